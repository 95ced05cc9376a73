"""`careloom demo` as a user runs it: twice over the same events, its drafts held to the reference validator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from plugins.manager import load

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SCENARIOS = load().scenarios


@dataclass(frozen=True)
class Run:
    """One run of the command."""

    code: int
    report: dict[str, Any]
    errors: str
    drafts: list[dict[str, Any]]
    processes_left: list[str]


def run_demo(state: Path, model: tuple[str, ...]) -> Run:
    saved = state.parent / f"{state.name}.ndjson"
    command = [sys.executable, "-m", "pipelines.cli", "demo", "--state", str(state), "--save", str(saved), *model]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    print(done.stderr[-6000:])
    print(done.stdout[-6000:])
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "{}"
    drafts = [json.loads(line) for line in saved.read_text("utf-8").splitlines()] if saved.exists() else []
    return Run(done.returncode, json.loads(last), done.stderr, drafts, left_of(state))


def left_of(state: Path) -> list[str]:
    """Processes that still know the state folder, by command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            known = " ".join(process.cmdline()) + " ".join(process.environ().values())
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if str(state) in known:
            found.append(f"{process.pid} {process.name()}")
    return found


@pytest.fixture(scope="module", params=[pytest.param((), marks=pytest.mark.long, id="vllm"), ("--stand-in",)])
def model(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """CI has the time for the stand-in here, and lets vLLM answer under faults; `make chaos` has it for both."""
    chosen: tuple[str, ...] = request.param
    return chosen


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, model: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "state"
    folder.parent.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def first(state: Path, model: tuple[str, ...]) -> Run:
    return run_demo(state, model)


@pytest.fixture(scope="module")
def second(state: Path, model: tuple[str, ...], first: Run) -> Run:
    return run_demo(state, model)


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
    subjects = subjects_by_type(first)
    for resource_type in ("RiskAssessment", "Composition", "CarePlan"):  # one type that only one stage writes
        assert len(subjects[resource_type]) == first.report["patients"], resource_type


def subjects_by_type(run: Run) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for draft in run.drafts:
        if "subject" in draft:
            found[draft["resourceType"]].add(draft["subject"]["reference"])
    return found


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


def test_no_process_is_left_after_the_first_run(first: Run) -> None:
    assert first.processes_left == []


def test_a_second_run_over_the_same_events_writes_nothing_new(first: Run, second: Run) -> None:
    assert second.code == 0, second.errors[-3000:]
    assert second.report["replayed"] == second.report["events"] == first.report["events"]
    assert second.report["new"] == 0
    assert second.report["unaccounted"] == 0
    assert second.report["written_twice"] == 0
    assert second.report["drafts"] == first.report["drafts"]
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
