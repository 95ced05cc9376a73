"""The client of Airflow's REST API, against the stand-in; the marked tests hold Airflow itself to the same contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.config import Airflow
from pipelines.dispatcher.airflow_api import AirflowApi, Triggered
from pipelines.errors import AirflowError, AirflowUnavailable
from tests.dispatcher.parts import NOTE


@pytest.fixture
def api(fake_airflow) -> Iterator[AirflowApi]:
    made = AirflowApi(fake_airflow.config, keep_dags=0.0)
    yield made
    made.close()


def test_a_run_that_is_asked_for_twice_is_there_once(api: AirflowApi, fake_airflow):
    assert api.trigger(NOTE, "r1", {"items": 3}) is Triggered.CREATED
    assert api.trigger(NOTE, "r1", {"items": 3}) is Triggered.ALREADY_THERE
    assert fake_airflow.conf == {(NOTE, "r1"): {"items": 3}}


def test_the_state_of_a_run_is_told_and_none_where_there_is_none(api: AirflowApi, fake_airflow):
    api.trigger(NOTE, "r1")
    fake_airflow.runs[NOTE, "r1"] = "failed"
    assert api.run_state(NOTE, "r1") == "failed"
    assert api.run_state(NOTE, "r2") is None


def test_dags_are_told_page_by_page_with_their_pauses_but_not_those_that_cannot_run(api: AirflowApi, fake_airflow):
    fake_airflow.paused = {f"pre_visit.s{n}": n == 7 for n in range(230)}
    fake_airflow.import_errors = {"pre_visit.s3"}
    assert set(api.dags()) == set(fake_airflow.paused) - {"pre_visit.s3"}
    assert api.paused() == {"pre_visit.s7"}


def test_the_list_of_dags_is_kept_for_a_while(fake_airflow):
    api = AirflowApi(fake_airflow.config, keep_dags=3600)
    before = api.dags()
    fake_airflow.paused[NOTE] = True
    assert api.dags() == before == {NOTE: False}
    api.close()


def test_one_token_serves_all_and_is_renewed_when_it_ran_out(api: AirflowApi, fake_airflow):
    api.trigger(NOTE, "r1")
    api.trigger(NOTE, "r2")
    assert fake_airflow.logins == 1
    fake_airflow.tokens.clear()  # ours is no longer known
    assert api.trigger(NOTE, "r3") is Triggered.CREATED
    assert fake_airflow.logins == 2


def test_a_wrong_password_is_named_and_not_repeated(fake_airflow):
    wrong = Airflow.model_validate({"url": fake_airflow.url, "password": "wrong-secret"})
    with pytest.raises(AirflowError, match=r"401.*airflow\.password") as caught:
        AirflowApi(wrong).trigger(NOTE, "r1")
    assert "wrong-secret" not in str(caught.value)
    assert not isinstance(caught.value, AirflowUnavailable)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_pass_is_told_from_what_will_not(api: AirflowApi, fake_airflow, status: int):
    fake_airflow.status = status
    for ask in (lambda: api.trigger(NOTE, "r"), lambda: api.run_state(NOTE, "r"), api.dags):
        with pytest.raises(AirflowUnavailable):
            ask()


def test_a_dag_that_is_not_there_is_refused(api: AirflowApi):
    with pytest.raises(AirflowError, match=r"404.*no\.such") as caught:
        api.trigger("no.such", "r")
    assert not isinstance(caught.value, AirflowUnavailable)


def test_no_answer_is_unavailable():
    nobody = Airflow.model_validate({"url": "http://127.0.0.1:9", "password": "p"})
    with pytest.raises(AirflowUnavailable, match="does not answer"):
        AirflowApi(nobody).dags()
