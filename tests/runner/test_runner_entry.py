"""What an Airflow task calls: put together from the configuration alone, and cheap to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import ErrorClass, LedgerError
from pipelines.runner import carry as runner
from pipelines.runner.batch import Outcome, Summary

ROOT = Path(__file__).parents[2]


def test_a_run_without_rows_is_nothing_to_do(house: Any) -> None:
    summary = runner.carry("no-such-run", house.config)
    assert summary.rows == 0
    assert not summary.failed_all
    assert summary.line == "no-such-run: nothing to do"


def test_a_ledger_that_is_not_there_ends_the_step_without_its_address(house: Any) -> None:
    nowhere = house.config.ledger.model_validate({"url": "postgresql://user:sesame@127.0.0.1:9/ledger"})
    config = house.config.model_copy(update={"ledger": nowhere})
    with pytest.raises(LedgerError) as caught:
        runner.carry("run", config)
    assert "sesame" not in str(caught.value)


def test_a_summary_says_what_failed_and_whether_everything_did() -> None:
    mixed = Summary("r1", {Outcome.WRITTEN: 2, Outcome.FAILED: 1}, {ErrorClass.MODEL_TIMEOUT: 1})
    assert mixed.line == "r1: 2 written, 1 failed (model_timeout 1)"
    assert not mixed.failed_all
    assert Summary("r1", {Outcome.FAILED: 1, Outcome.HELD_BACK: 3}).failed_all
    assert not Summary("r1", {Outcome.HELD_BACK: 3}).failed_all
    assert not Summary("r1", {Outcome.FAILED: 1, Outcome.STALE: 1}).failed_all


def test_importing_the_runner_brings_in_no_client_no_plugin_and_no_fhir_model() -> None:
    look = "import pipelines.runner.carry, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    shown = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"aiohttp", "kafka", "httpx", "fhir", "fhirpathpy", "airflow", "plugins", "lxml"}
    assert heavy & set(shown.stdout.split()) == set()
