"""`careloom demo` as a user runs it: twice over the same events, its drafts held to the reference validator."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from fhir_adapters.approval import asks_for_approval
from fhir_adapters.decision import decision_of
from fhir_adapters.drafts import SCENARIO_TAG
from plugins.manager import load
from plugins.scenario import Stage
from tests.end_to_end.demo import Run

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

SCENARIOS = load().scenarios


def test_the_first_run_writes_drafts_for_every_patient_in_every_stage_and_accounts_for_everything(first: Run) -> None:
    assert first.code == 0, first.errors[-3000:]
    assert first.report["patients"] >= 20
    assert first.report["unaccounted"] == 0
    assert first.report["written_twice"] == 0
    assert first.report["unwritten"] == {}
    assert set(first.report["drafts"]) == set(SCENARIOS)
    assert first.report["new"] > 0
    for hop in ("durable", "matched", "dispatched", "started", "context", "answered", "guarded", "written", "total"):
        assert first.report["hops"][hop]["p50"] <= first.report["hops"][hop]["p95"]
    for stage in Stage:
        assert len(subjects_of(first, stage)) == first.report["patients"], stage
    subjects = subjects_by_type(first)
    for resource_type in ("RiskAssessment", "Composition", "CarePlan"):
        assert len(subjects[resource_type]) == first.report["patients"], resource_type


def subjects_by_type(run: Run) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for draft in run.drafts:
        if "subject" in draft:
            found[draft["resourceType"]].add(draft["subject"]["reference"])
    return found


def subjects_of(run: Run, stage: Stage) -> set[str]:
    """Patients that the scenarios of a stage have drafted something for."""
    return {
        draft["subject"]["reference"]
        for draft in run.drafts
        if "subject" in draft
        and any(
            tag.get("system") == SCENARIO_TAG and tag["code"].startswith(f"{stage}.")
            for tag in draft.get("meta", {}).get("tag", ())
        )
    }


def test_every_draft_is_labelled_and_its_provenance_names_the_model(first: Run) -> None:
    by_type: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for draft in first.drafts:
        by_type[draft["resourceType"]].append(draft)
    assert by_type["Provenance"]
    assert by_type["Device"]
    for resource_type, drafts in by_type.items():
        if resource_type in ("Provenance", "Device"):
            continue
        for draft in drafts:
            assert "AIAST" in {label["code"] for label in draft["meta"]["security"]}, resource_type
    described = {target["reference"].split("/_history")[0] for p in by_type["Provenance"] for target in p["target"]}
    drafted = {
        f"{d['resourceType']}/{d['id']}" for t, ds in by_type.items() if t not in ("Provenance", "Device") for d in ds
    }
    assert drafted <= described


def test_every_decision_of_the_demos_clinician_is_in_the_ledger_with_its_verdict(first: Run) -> None:
    put, kept = first.report["decided"], first.report["decisions"]
    assert put == kept
    assert put["accepted"] > put["edited"] > put["rejected"] > 0
    tasks = [draft for draft in first.drafts if asks_for_approval(draft)]
    said = Counter(one.verdict.value for task in tasks if (one := decision_of(task)) is not None)
    assert said == put
    assert any(task["status"] == "requested" for task in tasks)
    assert len(tasks) == len({task["identifier"][0]["value"] for task in tasks})


def test_no_process_is_left_after_the_first_run(first: Run) -> None:
    assert first.processes_left == []


def test_a_second_run_over_the_same_events_writes_nothing_new(first: Run, second: Run) -> None:
    assert second.code == 0, second.errors[-3000:]
    assert second.report["replayed"] == second.report["events"] == first.report["events"]
    assert second.report["new"] == 0
    assert second.report["unaccounted"] == 0
    assert second.report["written_twice"] == 0
    assert second.report["drafts"] == first.report["drafts"]
    assert sum(second.report["decided"].values()) == 0
    assert second.report["decisions"] == first.report["decisions"]
    assert second.processes_left == []


def test_the_reference_validator_finds_no_error_in_anything_that_was_written(
    first: Run, validator_errors: Callable[[dict[str, Any]], list[str]]
) -> None:
    assert first.drafts
    wrong = {
        f"{draft['resourceType']}/{draft['id']}": errors
        for draft in first.drafts
        if (errors := validator_errors(draft))
    }
    assert wrong == {}
