"""`careloom send --case`: a golden case's patient, record and event are put into the source's FHIR server, in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.authoring.happening import happen
from pipelines.authoring.package import write_package
from pipelines.config import Config
from pipelines.errors import CareloomError, ConfigError
from tests.canary import CANARY


def config(**source: Any) -> Config:
    hospital = {
        "name": "hospital",
        "fhir_version": "R4",
        "token": "t",
        "base_url": "http://hospital.test/fhir",
    } | source
    return Config.model_validate(
        {
            "state_dir": ".",
            "patient_salt": "s",
            "sources": [{key: value for key, value in hospital.items() if value is not None}],
            "ledger": {"url": "postgresql+psycopg://h/d"},
            "airflow": {"password": "p"},
            "model": {"name": "m", "version": "1"},
        }
    )


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = write_package("pre_visit", "happening", tmp_path_factory.mktemp("package"))
    return package / "tests" / "golden" / "en_red_flag.json"


def test_the_patient_goes_first_and_the_event_last(case: Path) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(201)

    put = happen(config(server_token="secret"), [case], "hospital", transport=httpx.MockTransport(answer))
    assert put == 4
    assert [f"{r.method} {r.url.path}" for r in asked] == [
        "PUT /fhir/Patient/p1",
        "PUT /fhir/Condition/c1",
        "PUT /fhir/AllergyIntolerance/a1",
        "PUT /fhir/Appointment/e1",
    ]
    assert {r.headers["authorization"] for r in asked} == {"Bearer secret"}
    assert json.loads(asked[0].content)["birthDate"] == "1980-05-01"


def test_a_server_that_refuses_is_said_without_what_the_resource_held(case: Path, tmp_path: Path) -> None:
    data = json.loads(case.read_text(encoding="utf-8"))
    data["patient"]["name"] = [{"family": CANARY}]
    changed = tmp_path / "case.json"
    changed.write_text(json.dumps(data), encoding="utf-8")
    refuses = httpx.MockTransport(lambda request: httpx.Response(422, text=CANARY))
    with pytest.raises(CareloomError, match="answers 422 to a Patient of the case") as failed:
        happen(config(), [changed], "hospital", transport=refuses)
    assert CANARY not in str(failed.value)


def test_a_source_without_a_server_and_a_file_that_is_no_case_are_refused_before_anything_is_put(
    case: Path, tmp_path: Path
) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError("something was put")

    other = tmp_path / "patient.json"
    other.write_text('{"resourceType": "Patient"}')
    with pytest.raises(ConfigError, match="no base_url"):
        happen(config(base_url=None), [case], "hospital", transport=httpx.MockTransport(never))
    with pytest.raises(ConfigError, match="no golden case"):
        happen(config(), [case, other], "hospital", transport=httpx.MockTransport(never))
