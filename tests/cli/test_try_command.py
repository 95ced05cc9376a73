"""`careloom try`: every installed scenario runs on a file with no service running, and shows what came of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipelines.authoring.record_file import demo_names, read_patient
from pipelines.authoring.target import golden_cases
from pipelines.cli.app import build
from pipelines.errors import ConfigError, StepFailed
from plugins.golden import read
from plugins.manager import load
from plugins.matching import Matcher

SCENARIOS = load().scenarios
GOLDEN = Path(__file__).parents[1] / "plugins" / "golden"


@pytest.fixture(autouse=True)
def no_stack_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CARELOOM_CONFIG", raising=False)


def attempt(*arguments: object) -> Result:
    return CliRunner().invoke(build(), ["try", *map(str, arguments)], catch_exceptions=True)


def tried(*arguments: object) -> dict[str, Any]:
    result = attempt(*arguments, "--json")
    assert result.exit_code == 0, (result.exception, result.stdout[-800:])
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("id_", SCENARIOS)
def test_every_scenario_runs_on_its_golden_cases(id_: str) -> None:
    folder = GOLDEN / id_.partition(".")[2]
    cases = read(folder)
    assert cases
    for case in cases[:: max(1, len(cases) // 2)]:
        trial = tried(id_, "--patient", folder / f"{case.name}.json")
        assert trial["scenario"] == id_
        assert trial["problems"] == []
        if "findings" in case.expect:
            assert sorted(each["code"] for each in trial["findings"]) == sorted(case.expect["findings"])


@pytest.mark.parametrize("id_", SCENARIOS)
def test_every_scenario_runs_on_a_patient_of_the_demo(id_: str) -> None:
    """With the demo's own event where one starts it, else with that of a golden case's."""
    scenario = SCENARIOS[id_]
    matcher = Matcher([scenario])
    for name in demo_names():
        if any(matcher.match(r) for r in read_patient(name, "zh").resources):
            trial = tried(id_, "--patient", name)
            assert trial["questions"] or not trial["asked"]
            assert trial["answered_by"] == "stand-in"
            return
    pytest.skip(f"no event of the demo starts {id_}; its golden cases are tried above")


def test_prompt_answer_verdicts_and_drafts_are_shown_and_the_stand_in_says_what_it_is() -> None:
    shown = attempt("pre_visit.triage", "--patient", "synthea-01").stdout
    for part in (
        "the newest of 1 in synthea-01 that start it",
        "<<<RECORD",
        "by the stand-in: the least that the schema allows",
        "guards: nothing found; statements cut in all: 0",
        "--- acuity: RiskAssessment",
        '"resourceType": "RiskAssessment"',
    ):
        assert part in shown


def test_a_given_answer_is_guarded_as_a_models(tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    reasons = [{"text": "Fever of 41.7 degrees", "sources": ["R1"]}, {"text": "no source", "sources": ["R99"]}]
    answer.write_text(json.dumps({"reasons": reasons, "acuity": "2", "department": "emergency"}))
    trial = tried("pre_visit.triage", "--patient", "synthea-02", "--answer", answer, "--locale", "en")
    assert trial["answered_by"] == "given"
    assert trial["cut"] == 2
    assert trial["verdicts"]["numbers"]
    assert "Fever of 41.7" not in json.dumps(trial["drafts"])


def test_a_bundle_of_ones_own_is_searched_as_a_server_would(tmp_path: Path) -> None:
    """References by urn:uuid, a query's cap, its status and its patient; the locale and the clock as told."""
    about = {"reference": "urn:uuid:0000-1"}
    active = {"coding": [{"code": "active"}]}
    entries: list[dict[str, Any]] = [
        {"fullUrl": "urn:uuid:0000-1", "resource": {"resourceType": "Patient", "gender": "male"}},
        {"resource": {"resourceType": "Appointment", "id": "a", "status": "booked", "participant": [{"actor": about}],
                      "reasonCode": [{"text": "knee pain"}], "start": "2026-01-05T09:00:00Z"}},
        {"resource": {"resourceType": "Condition", "id": "other", "clinicalStatus": active,
                      "subject": {"reference": "Patient/2"}, "code": {"text": "not his"}}},
        {"resource": {"resourceType": "Condition", "id": "over", "subject": about, "code": {"text": "long gone"},
                      "clinicalStatus": {"coding": [{"code": "resolved"}]}}},
    ]  # fmt: skip
    entries += [
        {"resource": {"resourceType": "Condition", "id": f"c{n}", "clinicalStatus": active, "subject": about,
                      "recordedDate": f"2025-01-{n:02}", "code": {"text": f"problem {n}"}}}
        for n in range(1, 26)
    ]  # fmt: skip
    file = tmp_path / "bundle.json.gz"
    file.write_bytes(gzip.compress(json.dumps({"resourceType": "Bundle", "entry": entries}).encode()))
    trial = tried("pre_visit.triage", "--patient", file, "--locale", "en")
    assert trial["event"] == "Appointment/a"
    assert trial["now"] == "2026-01-05 09:00:00+00:00"
    assert trial["found"]["problems"] == 20
    assert trial["truncated"] == ["problems"]
    user = trial["questions"][0]["user"]
    assert "problem 25" in user
    assert "not his" not in user
    assert "long gone" not in user


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pre_visit.triage", "--patient", "nobody"), "none of the demo's patients: patients-synthea-like-01"),
        (("pre_visit.nothing", "--patient", "synthea-01"), "no installed plugin and no scenario"),
        (("pre_visit.triage", "--patient", "synthea-01", "--locale", "de"), "write zh or en"),
        (("pre_visit.triage", "--patient", "synthea-01", "--now", "soon"), "write one as in"),
        (("pre_visit.triage", "--patient", "empty.json"), "no resourceType"),
        (("pre_visit.triage", "--patient", "patient.json"), "give the event with --event FILE"),
        (("pre_visit.triage", "--patient", "synthea-01", "--event", "bundle.json"), "one FHIR resource is wanted"),
    ],
)
def test_what_cannot_be_tried_says_what_to_do(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "patient.json").write_text('{"resourceType": "Patient", "id": "p"}')
    (tmp_path / "bundle.json").write_text('{"resourceType": "Bundle"}')
    result = attempt(*arguments)
    assert isinstance(result.exception, ConfigError)
    assert says in str(result.exception)


def test_an_answer_that_is_none_is_refused_as_in_the_stack(tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text("no json")
    result = attempt("pre_visit.triage", "--patient", "synthea-01", "--answer", "answer.json")
    assert isinstance(result.exception, StepFailed)


def test_a_scenario_that_asks_no_model_says_so() -> None:
    case = next(c for c in golden_cases(SCENARIOS["in_visit.order_safety"]) if c.name == "en_no_issue")
    shown = attempt("in_visit.order_safety", "--patient", GOLDEN / "order_safety" / f"{case.name}.json").stdout
    assert "No model is asked" in shown
