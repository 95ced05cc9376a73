"""Each broken plugin is refused with a message that says what is wrong; docs/plugin-refusals.md shows them all."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.authoring.target import find, golden_cases
from pipelines.cli.app import build
from plugins.conformance import conformance
from tests.plugins import broken_plugins as table
from tests.plugins.unbroken_plugins import BASES, Broken, write


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """What is imported of a package inside is forgotten afterwards."""
    path, known = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in [name for name in sys.modules if name not in known and name.startswith("x_")]:
            del sys.modules[name]


def first_failure(package: Path, golden: int = 2) -> tuple[str, str]:
    """(check, what is said) of the first thing that is wrong; two red-flag cases are enough, and quick."""
    (target,) = find(str(package))
    if target.refused:
        return "it loads", target.refused[0]
    (scenario,) = target.scenarios
    cases = [case for case in golden_cases(scenario) if "red_flag" in case.name][:golden]
    failed = [each for each in conformance(scenario, cases) if not each.ok]
    return (failed[0].check, failed[0].what) if failed else ("", "")


def said(tmp_path: Path) -> Iterator[tuple[Any, str, str]]:
    for broken in table.BROKEN:
        with nothing_left_behind():
            found = first_failure(write(broken, tmp_path))
        yield broken, *found


def row(broken: Any, check: str, what: str) -> str:
    words = re.sub(r"[^ '\"]*/x-[a-z-]+/", "", " ".join(what.replace("|", "\\|").split()))
    return f"| {broken.about} | {words} | {check} |"


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, str, str]]:
    return list(said(tmp_path_factory.mktemp("broken")))


def test_every_broken_plugin_is_refused_with_what_is_wrong(refusals: list[tuple[Any, str, str]]) -> None:
    assert len(refusals) >= 15
    wrong = {broken.name: what for broken, _, what in refusals if broken.says not in what}
    assert wrong == {}


@pytest.mark.parametrize("base", BASES)
def test_what_is_broken_there_is_good_before(base: str, tmp_path: Path) -> None:
    """With steps, with a panel and with knowledge: the whole kit, and all ten golden cases."""
    good = Broken(f"good-{base}".rstrip("-"), "nothing", "", "", "", base)
    with nothing_left_behind():
        (target,) = find(str(write(good, tmp_path)))
        assert target.refused == ()
        (scenario,) = target.scenarios
        checked = list(conformance(scenario, golden_cases(scenario)))
    assert [f"{each.check}: {each.what} at {each.where}" for each in checked if not each.ok] == []


@pytest.mark.parametrize(("base", "asked"), [("steps", 2), ("panel", 2)])
def test_try_takes_every_answer_of_the_golden_case(base: str, asked: int, tmp_path: Path) -> None:
    good = Broken(f"tried-{base}", "nothing", "", "", "", base)
    with nothing_left_behind():
        package = write(good, tmp_path)
        patient = str(package / "tests" / "golden" / "en_red_flag.json")
        arguments = ["try", f"pre_visit.x_tried_{base}", "--package", str(package), "--patient", patient]
        result = CliRunner().invoke(build(), arguments)
    assert result.exit_code == 0, result.stdout
    assert result.stdout.count("--- answer ") == asked
    assert "by the file" in result.stdout


def test_the_document_shows_them_all(refusals: list[tuple[Any, str, str]]) -> None:
    """`CARELOOM_WRITE=1 pytest tests/plugins/test_broken_plugins.py` writes it."""
    text = table.HEAD + "\n".join(row(*each) for each in refusals) + "\n"
    if os.environ.get("CARELOOM_WRITE"):
        table.DOCUMENT.write_text(text, encoding="utf-8")
    assert table.DOCUMENT.read_text(encoding="utf-8") == text


def test_the_command_shows_check_place_and_remedy_and_fails(tmp_path: Path) -> None:
    broken = next(each for each in table.BROKEN if each.name == "rule-gone")
    with nothing_left_behind():
        result = CliRunner().invoke(build(), ["check", str(write(broken, tmp_path))])
    assert result.exit_code == 1
    assert "FAILED pre_visit.x_rule_gone: golden cases come out as they are written" in result.stdout
    assert "(at en_red_flag)" in result.stdout
    assert "do: correct the scenario, or what the case expects" in result.stdout
    assert "ok     pre_visit.x_rule_gone: it may be loaded" in result.stdout
