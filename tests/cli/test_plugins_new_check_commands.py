"""`careloom plugins`, `new` and `check`: what they show, and that what they cannot do they say with the remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.app import build
from pipelines.errors import ConfigError
from tests.least_config import write_least_config


@pytest.fixture(autouse=True)
def a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CARELOOM_CONFIG", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


def careloom(*arguments: object) -> Result:
    return CliRunner().invoke(build(), [*map(str, arguments)])


def configured(ledger: str, *enabled: str) -> str:
    chosen = {"enabled": list(enabled), "disabled_scenarios": ["pre_visit.triage"]}
    return write_least_config(Path(), ledger={"url": ledger}, plugins=chosen).name


def test_without_a_configuration_the_built_in_plugins_are_shown_and_that_there_is_none() -> None:
    result = careloom("plugins")
    assert result.exit_code == 0
    assert result.stdout.startswith("no configuration here")
    assert "scenarios: pre_visit.triage" in result.stdout
    assert "guards: numbers" in result.stdout
    assert "knowledge: documents" in result.stdout


def test_what_is_refused_or_off_says_why_and_a_ledger_that_is_down_is_said_not_hidden() -> None:
    configured("postgresql+psycopg://nobody@127.0.0.1:9/nothing", "lost")
    result = careloom("plugins")
    assert result.exit_code == 1
    assert "NOT ENABLED  lost  (not installed)" in result.stdout
    assert "no entry point 'lost'" in result.stdout
    assert "but: pre_visit.triage is in plugins.disabled_scenarios" in result.stdout
    assert "the ledger does not answer" in result.stdout


def test_work_that_waits_for_a_scenario_that_is_gone_is_named(
    ledger_url: str, fill_ledger: Callable[..., None]
) -> None:
    configured(ledger_url)
    fill_ledger(4, scenario="pre_visit.gone", state="waiting")
    fill_ledger(2, scenario="pre_visit.gone", state="parked")
    fill_ledger(5, scenario="pre_visit.gone", state="written")
    fill_ledger(3, scenario="pre_visit.triage", state="waiting")
    assert "WAITING      6 pieces of work for pre_visit.gone, which nobody brings" in careloom("plugins").stdout
    assert json.loads(careloom("plugins", "--json").stdout)["waiting_for_nobody"] == {"pre_visit.gone": 6}


@pytest.mark.parametrize("stage", ["pre_visit", "in_visit", "post_visit"])
def test_the_test_of_a_new_package_passes_at_once(tmp_path: Path, stage: str) -> None:
    assert careloom("new", stage, "first-try").exit_code == 0
    package = tmp_path / "first-try"
    names = {file.stem for file in (package / "tests" / "golden").glob("*.json")}
    kinds = ("normal", "red_flag", "empty", "contradictory", "injected")
    assert names == {f"{locale}_{kind}" for locale in ("zh", "en") for kind in kinds}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    ran = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stdout[-1500:]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("mid_visit", "mine"), "there are pre_visit, in_visit, post_visit"),
        (("pre_visit", "My Scenario"), "lower-case words with hyphens"),
        (("pre_visit", "x" * 49), "at most 48 characters"),
        (("pre_visit", "triage"), "careloom has a scenario pre_visit.triage"),
        (("pre_visit", "json"), "Python has a module 'json' here already"),
        (("pre_visit", "class"), "Python has a module 'class'"),
        (("pre_visit", "mine", "--into", "nowhere"), "no such folder"),
        (("pre_visit", "there"), "is there already"),
    ],
)
def test_new_refuses_what_would_not_work_and_writes_nothing(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "there").mkdir()
    result = careloom("new", *arguments)
    assert isinstance(result.exception, ConfigError)
    assert says in str(result.exception)
    assert list(tmp_path.rglob("*.py")) == []


def test_a_built_in_scenario_is_checked_by_its_id() -> None:
    result = careloom("check", "pre_visit.visit_brief", "--json")
    lines: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["check"] for line in lines if not line["ok"]] == []
    assert len(lines) >= 12
    assert result.exit_code == 0


def test_a_scenario_without_golden_cases_is_told_so(tmp_path: Path) -> None:
    careloom("new", "post_visit", "no-cases")
    for file in (tmp_path / "no-cases" / "tests" / "golden").glob("*.json"):
        file.unlink()
    result = careloom("check", "no-cases")
    assert result.exit_code == 1
    assert "there is no golden case" in result.stdout


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (
            "nothing-of-that-name",
            "no folder, no .py file, no installed plugin and no scenario; there are the scenarios",
        ),
        ("bare", "there is no pyproject.toml"),
        ("unnamed", "no plugin is named; add [project.entry-points.careloom]"),
        ("torn", "not TOML"),
    ],
)
def test_what_cannot_be_checked_says_what_to_do(tmp_path: Path, what: str, says: str) -> None:
    (tmp_path / "bare").mkdir()
    for name, text in (("unnamed", "[project]\n"), ("torn", "[project\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(text)
    result = careloom("check", what)
    assert isinstance(result.exception, ConfigError)
    assert says in str(result.exception)
