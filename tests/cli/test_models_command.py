"""`careloom models` shows what the registry says of each model, who asks it, and what is switched off."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import Engine
from typer.testing import CliRunner

from pipelines.cli.app import build
from pipelines.errors import ConfigError
from pipelines.ledger import Ledger
from pipelines.models.settings import Model
from pipelines.runner.asking import Said
from pipelines.runner.inference import _author
from tests.least_config import write_least_config

TOKEN = "s3cret-bearer"
WARD = {
    "name": "ward-llm",
    "version": "2026-10",
    "url": "http://127.0.0.1:9/v1",
    "registration_number": "备案-0001",
    "intended_use": "起草供医生审核的文本",
    "limits": "Not for children; not for diagnosis",
    "card": "https://models.example/ward-llm",
    "cost_per_1k_prompt_tokens": 0.5,
    "api_key": TOKEN,
}
OTHER = {"name": "second-llm", "version": "3", "url": "http://127.0.0.1:9/v1", "stand_in": True}
BOARD = {"name": "board", "kind": "panel", "members": ["ward-llm", "second-llm"]}
ROUTING = {"in_visit": ["second-llm", "ward-llm"], "pre_visit.triage": "second-llm"}


def shown(folder: Path, *arguments: str, **given: Any) -> Result:
    sections = {"model": WARD, "models": [OTHER, BOARD], "routing": ROUTING, **given}
    file = write_least_config(folder, **sections)
    return CliRunner().invoke(build(), ["models", "--config", str(file), *arguments])


def test_each_model_is_shown_with_what_its_maker_says_and_who_asks_it(tmp_path: Path) -> None:
    text = shown(tmp_path).stdout
    ward, second, board, ledger = text.strip().split("\n\n")
    assert ward.startswith("ward-llm 2026-10  (openai)\n")
    for said in ("备案-0001", "起草供医生审核的文本", "Not for children; not for diagnosis", WARD["card"]):
        assert str(said) in ward
    assert "0.5 CNY for 1000 prompt tokens" in ward
    assert "pre_visit.visit_brief" in ward.partition("asked by")[2].partition("\n")[0]
    assert "in_visit.icu_watch" in ward.partition("stands in for")[2]
    assert "STAND-IN" in second
    assert "pre_visit.triage" in second and "in_visit.icu_watch" in second
    assert second.count("not said; write it into [[models]]") == 3
    assert "ward-llm, second-llm" in board
    assert ledger == "the ledger does not answer: what is switched off is not known"
    assert TOKEN not in text


def test_as_json_it_has_the_same_and_no_secret(tmp_path: Path) -> None:
    result = shown(tmp_path, "--json")
    said = json.loads(result.stdout)
    ward, second, board = said["models"]
    assert said["switches_known"] is False
    assert {name: ward[name] for name in WARD.keys() & ward.keys()} == {k: v for k, v in WARD.items() if k in ward}
    assert ward["price"] == {"1000 prompt tokens": 0.5}
    assert "in_visit.icu_watch" in second["scenarios"] and "in_visit.icu_watch" in ward["in_place_of"]
    assert board["members"] == ["ward-llm", "second-llm"]
    assert TOKEN not in result.stdout


def test_a_model_that_is_switched_off_says_by_whom_and_why(
    tmp_path: Path, ledger_engine: Engine, ledger_url: str
) -> None:
    Ledger(ledger_engine).switch_off("model", "ward-llm", by="chief", why="wrong doses")
    assert "SWITCHED OFF   by chief since" in shown(tmp_path, ledger={"url": ledger_url}).stdout
    said = json.loads(shown(tmp_path, "--json", ledger={"url": ledger_url}).stdout)
    assert said["switches_known"] is True
    assert [model["off"] and model["off"]["why"] for model in said["models"]] == ["wrong doses", None, None]


def test_without_a_configuration_there_is_none_to_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CARELOOM_CONFIG", raising=False)
    assert isinstance(CliRunner().invoke(build(), ["models"]).exception, ConfigError)


def test_the_same_stands_in_the_author_of_the_drafts_of_a_panel_under_each_name() -> None:
    made: Callable[..., Model] = Model
    ward, second = made(**WARD), made(**OTHER, limits=" none known ")
    now = datetime.now(UTC)
    one = _author(Said((ward,), {}, None, 0, (), now))
    assert (one.intended_use, one.limits, one.card) == (WARD["intended_use"], WARD["limits"], WARD["card"])
    both = _author(Said((ward, second), {}, None, 0, (), now))
    assert both.limits == f"ward-llm: {WARD['limits']}\nsecond-llm: none known"
    assert both.card == f"ward-llm: {WARD['card']}"
    quiet = made(name="q", version="1")
    assert _author(Said((quiet, quiet), {}, None, 0, (), now)).limits == ""
