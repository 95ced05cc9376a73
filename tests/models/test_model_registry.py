"""The registry: who is asked for which scenario, what it costs, and what does not fit together is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.models.settings import Model, Registry

BASE = """
state_dir = "."
patient_salt = "s"
sources = []
[ledger]
url = "postgresql://x"
[airflow]
password = "p"
"""
TWO = """
[[models]]
name = "first"
version = "1"
[[models]]
name = "second"
version = "2"
[[models]]
name = "board"
kind = "panel"
members = ["second", "first"]
"""


def configured(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "careloom.toml"
    file.write_text(BASE + text, encoding="utf-8")
    return load(file)


def names(registry: Registry, scenario: str) -> list[str]:
    return [model.name for model in registry.route(scenario)]


def test_a_single_model_section_is_the_default_as_before(tmp_path: Path) -> None:
    config = configured(tmp_path, '[model]\nname = "only"\nversion = "1"\n')
    assert names(config.registry, "in_visit.anything") == ["only"]
    assert config.model.name == "only"


def test_the_first_of_several_is_asked_where_no_route_says_otherwise(tmp_path: Path) -> None:
    config = configured(tmp_path, TWO)
    assert config.model.name == "first"
    assert names(config.registry, "pre_visit.triage") == ["first"]


def test_a_route_by_scenario_goes_before_one_by_stage_and_a_panel_stands_for_its_members(tmp_path: Path) -> None:
    config = configured(tmp_path, TWO + '[routing]\nin_visit = "second"\n"in_visit.note" = ["board", "first"]\n')
    assert names(config.registry, "in_visit.other") == ["second"]
    assert names(config.registry, "in_visit.note") == ["second", "first"]
    assert names(config.registry, "post_visit.note") == ["first"]
    assert [model.name for model in config.registry.models] == ["first", "second"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TWO + '[routing]\nin_visit = "thrid"\n', "names 'thrid', which is no model; there are first, second, board"),
        (TWO + "[routing]\nin_visit = []\n", "routing.in_visit names no model"),
        (TWO.replace('"second", "first"]', '"second"]'), "at least two different members"),
        (TWO.replace('"second", "first"]', '"second", "nobody"]'), "names 'nobody', which is no model"),
        (TWO + '[[models]]\nname = "first"\nversion = "3"\n', "two models have the same name"),
        ('[[models]]\nname = "first"\n', "version is missing"),
        (
            TWO + '[[models]]\nname = "x"\nversion = "1"\nmembers = ["first", "second"]\n',
            'members are for kind = "panel"',
        ),
        (TWO + '[[models]]\nname = "x"\nkind = "panel"\nmembers = ["board", "first"]\n', "has the panel 'board' in it"),
        (TWO + '[[models]]\nname = "x"\nversion = "1"\ncurrency = "yuan"\n', "currency"),
        (TWO + '[[models]]\nname = "x"\nversion = "1"\ncost_per_secnod = 1\n', "cost_per_secnod"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_its_name(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configured(tmp_path, text)
    assert says.lower() in str(refused.value).lower()


def test_a_cost_adds_up_tokens_and_seconds() -> None:
    model = Model(
        name="m",
        version="1",
        cost_per_1k_prompt_tokens=2.0,
        cost_per_1k_completion_tokens=8.0,
        cost_per_second=0.5,
    )
    assert model.cost(500, 250, 4.0) == pytest.approx(1.0 + 2.0 + 2.0)


def test_a_key_is_not_shown_and_is_there_for_the_backend() -> None:
    model = Model(name="m", version="1", api_key="sesame")
    assert "sesame" not in repr(model)
    assert model.secret == "sesame"
