"""An older version's transaction of unknown end: the newer version's worker fences it off before it writes its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fhir_adapters.errors import FhirConflict, FhirRejected, FhirServerError, FhirUnavailable
from fhir_adapters.write_fence import is_fence
from pipelines.ledger.snapshot import snapshot
from pipelines.runner.batch import Outcome

LOST = FhirUnavailable("POST Bundle: no answer (ReadTimeout)")


def fences(house: Any) -> list[str]:
    return [reference.split("/")[0] for reference, resource in house.fhir.resources.items() if is_fence(resource)]


def counted(house: Any) -> dict[str, float]:
    found = snapshot(house.engine).samples
    return {s.labels["outcome"]: s.value for s in found if s.name == "careloom_write_fences_total"}


def arrives_late(house: Any, bundle: Any) -> bool:
    """The older transaction reaches the server at last; whether it was taken."""
    import asyncio

    before = dict(house.fhir.resources)
    try:
        asyncio.run(house.fhir.transaction(bundle))
    except FhirConflict as refused:
        assert refused.status == 412
        assert house.fhir.resources == before
        return False
    return True


@contextmanager
def refusing(house: Any, error: FhirServerError) -> Iterator[list[Any]]:
    """Meanwhile no transaction is taken; gives those that were sent."""
    sent: list[Any] = []
    transaction = house.fhir.transaction

    async def refuse(bundle: Any) -> Any:
        sent.append(bundle)
        raise error

    house.fhir.transaction = refuse
    try:
        yield sent
    finally:
        house.fhir.transaction = transaction


@pytest.fixture
def lost(house: Any) -> Any:
    """Runs the older version until its transaction of that part has left and its answer is lost; returns it."""

    def until_lost(part: str) -> Any:
        house.enter(140 if part == "rules" else 80, id_="o1", version="1")
        run_id = house.run()
        with refusing(house, LOST) as sent:
            assert house.carry(run_id).outcomes == {Outcome.FAILED: 1}
        return sent[0]

    return until_lost


@pytest.mark.parametrize("part", ["rules", "model"])
def test_a_transaction_whose_answer_was_lost_is_refused_when_it_arrives_after_the_newer_version(
    house: Any, lost: Any, part: str
) -> None:
    late = lost(part)
    house.enter(90, id_="o1", version="2")
    house.wake()
    house.carry()
    assert [row.state for row in house.rows()] == ["stale", "written"]
    assert fences(house) == ["Flag" if part == "rules" else "RiskAssessment", "Provenance", "Provenance"]
    assert not arrives_late(house, late)
    assert counted(house) == {"held": 1}
    assert [row.on_wire for row in house.rows()] == [[], []]


def test_one_that_had_been_taken_before_is_simply_older(house: Any) -> None:
    house.enter(80, id_="o1", version="1")
    house.fhir.lose_answer = True
    house.carry()
    house.enter(90, id_="o1", version="2")
    house.wake()
    house.carry()
    assert [row.state for row in house.rows()] == ["stale", "written"]
    assert len([risk for risk in house.fhir.written("RiskAssessment") if not is_fence(risk)]) == 2
    assert counted(house) == {"written_before": 1}


def test_a_worker_that_died_before_a_byte_left_leaves_its_mark_and_one_that_was_answered_none(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.runner import write_back

    class Died(BaseException):
        pass

    def dies(name: str) -> None:
        if name == "runner.leaving":
            raise Died

    house.enter(80, id_="o1", version="1")
    run_id = house.run()
    monkeypatch.setattr(write_back, "fail_point", dies)
    with pytest.raises(Died):
        house.carry(run_id)
    monkeypatch.undo()
    (row,) = house.rows()
    assert [mark.split(" ")[:3] for mark in row.on_wire] == [["model", "RiskAssessment", "risk"]]
    house.carry(run_id)
    (row,) = house.rows()
    assert (row.state, len(row.on_wire)) == ("written", 1)  # of the first try nobody knows anything yet


@pytest.mark.parametrize("status", [400, 409, 412, 422, 429])
def test_a_refusal_is_an_answer_and_leaves_nothing_to_fence(house: Any, status: int) -> None:
    kind: type[FhirServerError] = {409: FhirConflict, 412: FhirConflict, 429: FhirUnavailable}.get(status, FhirRejected)
    house.enter(80)
    with refusing(house, kind(f"POST Bundle: {status}", status=status)):
        assert house.carry().outcomes == {Outcome.FAILED: 1}
    (row,) = house.rows()
    assert row.on_wire == []


@pytest.mark.parametrize("status", [None, 408, 500, 503, 504])
def test_a_proxy_s_answer_or_none_leaves_the_mark(house: Any, status: int | None) -> None:
    house.enter(80)
    with refusing(house, FhirUnavailable("POST Bundle: no answer", status=status)):
        house.carry()
    (row,) = house.rows()
    assert len(row.on_wire) == 1


def test_an_ordinary_day_marks_and_fences_nothing(house: Any) -> None:
    house.enter(140, id_="o1", version="1")
    house.carry()
    house.enter(150, id_="o1", version="2")
    house.carry()
    assert [(row.state, row.on_wire) for row in house.rows()] == [("written", []), ("written", [])]
    assert fences(house) == []
    assert counted(house) == {}


def test_while_the_server_does_not_take_the_fence_the_newer_version_waits(house: Any, lost: Any) -> None:
    lost("model")
    house.enter(90, id_="o1", version="2")
    house.wake()
    with refusing(house, LOST) as sent:
        assert house.carry().outcomes == {Outcome.FAILED: 1}
    assert [is_fence(bundle["entry"][0]["resource"]) for bundle in sent] == [True]
    house.wake()
    assert house.carry().outcomes == {Outcome.WRITTEN: 1}
    assert len(fences(house)) == 3


@pytest.mark.parametrize("how", ["refused", "not_held"])
def test_a_server_that_cannot_be_fenced_holds_up_no_newer_version_and_that_is_counted(
    house: Any, lost: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    late = lost("model")
    house.enter(90, id_="o1", version="2")
    house.wake()
    transaction = house.fhir.transaction

    async def no_fence(bundle: Any) -> Any:
        if is_fence(bundle["entry"][0]["resource"]):
            raise FhirRejected("POST Bundle: 422", status=422)
        return await transaction(bundle)

    if how == "refused":
        house.fhir.transaction = no_fence
    else:
        house.fhir.lenient = True
    assert house.carry().outcomes == {Outcome.WRITTEN: 1}
    assert counted(house) == {how: 1}
    assert "fence" in caplog.text
    assert arrives_late(house, late)


def test_another_scenario_s_or_resource_s_marks_are_nobody_s_business(house: Any, lost: Any) -> None:
    lost("model")
    house.enter(90, id_="o2", patient="p2", version="2")
    house.fhir.put({"resourceType": "Patient", "id": "p2", "gender": "male"})
    house.carry()
    assert fences(house) == []


def test_a_replay_finds_what_was_written_behind_a_fence(house: Any) -> None:
    import asyncio

    from pipelines.runner.recognition import written_before

    house.fhir.found["Provenance"] = [
        {"resourceType": "Provenance", "target": [{"identifier": {"value": "x"}}]},
        {"resourceType": "Provenance", "target": [{"reference": "Flag/1"}]},
    ]
    assert asyncio.run(written_before(house.fhir, "e:s:1")) == ("Flag/1",)
