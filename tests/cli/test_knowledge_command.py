"""`careloom knowledge` indexes, searches and lists documents, and says in one line what is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli import knowledge
from pipelines.errors import ConfigError

CONFIG = """
state_dir = "state"
patient_salt = "s"
sources = []
locale = "en"
ledger = {url = "postgresql://x"}
airflow = {password = "p"}
model = {name = "m", version = "1"}
"""
FRONT = "---\ntitle: T\norigin: urn:x\ndate: 2026\nlicence: own\nlocale: en\n---\n"


@pytest.fixture
def careloom(tmp_path: Path) -> Callable[..., Result]:
    file = tmp_path / "careloom.toml"
    file.write_text(CONFIG, encoding="utf-8")
    return lambda *arguments: CliRunner().invoke(knowledge.app, [*arguments, "--config", str(file)])


def test_careloom_s_own_documents_are_indexed_searched_and_listed(careloom: Callable[..., Result]) -> None:
    assert "passages of 18 documents" in careloom("index").stdout
    (found,) = careloom("search", "borrow", "a", "wheelchair", "--cap", "1", "--json").stdout.splitlines()
    assert json.loads(found)["id"] == "en/visiting#2"
    assert (
        json.loads(careloom("search", "探视时间", "--locale", "zh", "--json").stdout.splitlines()[0])["locale"] == "zh"
    )
    assert "no passage answers this" in careloom("search", "football match").stdout
    assert len(careloom("list", "--json").stdout.splitlines()) > 40


def test_folders_of_the_configuration_are_relative_to_it(careloom: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(FRONT + "Parking is free.", encoding="utf-8")
    with (tmp_path / "careloom.toml").open("a", encoding="utf-8") as file:
        file.write('[knowledge]\nfolders = ["docs"]\n')
    assert "1 passages of 1 documents" in careloom("index").stdout
    assert "Parking is free." in careloom("search", "parking").stdout


def test_a_search_before_any_index_names_the_command(careloom: Callable[..., Result]) -> None:
    result = careloom("search", "parking")
    assert isinstance(result.exception, ConfigError)
    assert "run `careloom knowledge index`" in str(result.exception)


def test_a_document_that_lacks_its_licence_is_one_clear_line(careloom: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(FRONT.replace("licence: own\n", "") + "Text.", encoding="utf-8")
    result = careloom("index", str(tmp_path))
    assert isinstance(result.exception, ConfigError)
    assert "a.md: front matter lacks licence; add it" in str(result.exception)


def test_a_language_that_nobody_speaks_here_is_refused(careloom: Callable[..., Result]) -> None:
    assert isinstance(careloom("search", "parking", "--locale", "fr").exception, ConfigError)
