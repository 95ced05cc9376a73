"""docs/plugins.md: every snippet runs, every hook and every part of a scenario is in it, and the tutorial works.

Run here: the commands `new`, `check`, `try`, `plugins`, and every Python block. `pip install`, and what the DAG
folder and the exporter make of the plugin, run in tests/plugins/test_outside_plugin.py; of `up`, `send` and `status`
the options are held to the command line's own here, and what they do is tests/end_to_end's.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipelines.cli.app import build
from pipelines.cli.up import _plugins
from pipelines.config import Plugins
from pipelines.errors import ConfigError
from plugins import hookspecs
from plugins.checks import check
from plugins.golden import GoldenCase
from plugins.golden import check as check_golden
from plugins.manager import load
from plugins.matching import Matcher
from plugins.model_backend import PRIORITIES
from plugins.scenario import FIRST, Case, Scenario, Stage
from plugins.testing import ScenarioConformance

DOCUMENT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    for line in block.splitlines()
]
TRIGGER = {
    "resourceType": "Appointment",
    "id": "a1",
    "status": "arrived",
    "description": "knee pain",
    "participant": [{"actor": {"reference": "Patient/p1"}}],
}
CASE = Case(TRIGGER, {"resourceType": "Patient", "id": "p1"}, {}, "en", datetime(2026, 11, 22, tzinfo=UTC))
KIT = [name for name in vars(ScenarioConformance) if name.startswith("test_")]


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The Python blocks of the document in one module."""
    file = tmp_path / "shown_first_brief.py"
    (tmp_path / "golden").mkdir()
    text = "\n".join(PYTHON).replace("FOLDER", f"__import__('pathlib').Path({str(tmp_path / 'golden')!r})")
    file.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, file.stem, module)
    spec.loader.exec_module(module)
    return module


def test_the_plugin_in_the_document_loads_and_starts(shown: ModuleType) -> None:
    (scenario,) = shown.careloom_scenarios()
    check(scenario)
    assert scenario.id not in load().scenarios
    assert Matcher([scenario]).match(TRIGGER) == [scenario]


@pytest.mark.parametrize("promise", KIT)
def test_the_plugin_in_the_document_is_conformant(shown: ModuleType, promise: str) -> None:
    kit: Any = type("Kit", (ScenarioConformance,), {"scenario": shown.VisitBrief(), "cases": (CASE,)})()
    getattr(kit, promise)()


def test_the_scenario_with_a_second_question_asks_it_where_the_document_says_so(shown: ModuleType) -> None:
    scenario = check(shown.CarefulBrief())
    (step,) = scenario.steps
    point = shown.Point(text="knee pain", sources=("Appointment/a1",))
    assert scenario.next_prompt(CASE, step, {FIRST: shown.Brief(points=[point])}) is None
    asked = scenario.next_prompt(CASE, step, {FIRST: shown.Brief(points=[point, point])})
    assert asked is not None
    assert [fact.text for fact in asked.facts] == ["knee pain", "knee pain"]


@pytest.mark.parametrize("promise", KIT)
@pytest.mark.parametrize("name", ["CarefulBrief", "SecondOpinion"])
def test_steps_and_panel_in_the_document_are_conformant(shown: ModuleType, name: str, promise: str) -> None:
    kit: Any = type("Kit", (ScenarioConformance,), {"scenario": getattr(shown, name)(), "cases": (CASE,)})()
    getattr(kit, promise)()


def test_the_panel_in_the_document_says_who_said_what(shown: ModuleType) -> None:
    brief, none = {"points": [{"text": "knee pain", "sources": ["R1"]}]}, {"points": []}
    expect = {"notices": ["panel.absent", "panel.disagreement"], "says": ["first: knee pain"], "drafts": ["opinions"]}
    said = {"first": brief, "second": none, "third": "model_timeout"}
    check_golden(shown.SecondOpinion(), GoldenCase("panel", "one of three is silent", CASE, None, expect, panel=said))


@pytest.mark.parametrize("promise", KIT)
def test_the_dialogue_in_the_document_is_conformant(shown: ModuleType, promise: str) -> None:
    kit: Any = type("Kit", (ScenarioConformance,), {"scenario": shown.Dialogue(), "cases": (dialogue(),)})()
    getattr(kit, promise)()


def test_the_dialogue_in_the_document_reads_what_was_said_days_before_and_answers_the_last(shown: ModuleType) -> None:
    scenario, case = check(shown.Dialogue()), dialogue()
    assert Matcher([scenario]).match(case.trigger) == [scenario]
    assert [fact.text for fact in scenario.prompt(case).facts] == ["And at night?", "Rest it.", "My knee hurts."]
    said = {"points": [{"text": "Pain at night", "sources": ["R1", "R3"]}]}
    (draft,) = check_golden(scenario, GoldenCase("talk", "third message", case, said, {"drafts": ["brief"]})).drafts
    assert draft.resource["inResponseTo"] == [{"reference": "Communication/m3"}]
    assert draft.sources == ("Communication/m3", "Communication/m1")


def dialogue() -> Case:
    """A question, an answer, and days later what the patient asks next; a message about something else beside it."""

    def message(id_: str, sender: str, text: str, day: int, answers: str = "") -> dict[str, Any]:
        tied = {"inResponseTo": [{"reference": f"Communication/{answers}"}]} if answers else {}
        said = {"payload": [{"contentString": text}], "sent": f"2026-11-{day}T08:00:00+08:00", **tied}
        about = {"subject": {"reference": "Patient/p1"}, "sender": {"reference": sender}}
        return {"resourceType": "Communication", "id": id_, "status": "completed", **about, **said}

    earlier = [
        message("m1", "Patient/p1", "My knee hurts.", 18),
        message("m2", "Practitioner/d1", "Rest it.", 19, answers="m1"),
        message("x", "Patient/p1", "Where do I park?", 20),
    ]
    return Case(
        message("m3", "Patient/p1", "And at night?", 21, answers="m2"),
        CASE.patient,
        {"messages": earlier},
        "en",
        CASE.now,
    )


def test_the_priority_that_the_document_tells_is_that_of_the_stages() -> None:
    assert sorted(PRIORITIES, key=PRIORITIES.__getitem__) == [Stage.IN_VISIT, Stage.PRE_VISIT, Stage.POST_VISIT]
    assert not hasattr(Scenario, "priority")


def test_the_test_class_in_the_document_is_one(shown: ModuleType) -> None:
    assert issubclass(shown.TestVisitBrief, ScenarioConformance)
    assert isinstance(shown.TestVisitBrief.scenario, shown.VisitBrief)


def test_every_toml_block_is_what_careloom_and_packages_read() -> None:
    blocks = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)]
    (configured,) = [block["plugins"] for block in blocks if "plugins" in block]
    assert Plugins.model_validate(configured).enabled == ("my_scenario",)
    assert any(block.get("project", {}).get("entry-points", {}).get("careloom") for block in blocks)


def test_the_tutorials_commands_work_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("CARELOOM_CONFIG", raising=False)
    ran = []
    for command in COMMANDS:
        name, *arguments = shlex.split(command)
        if name == "cd":
            monkeypatch.chdir(arguments[0])
        elif name == "careloom" and arguments[0] in ("new", "check", "try", "plugins"):
            result = CliRunner().invoke(build(), arguments)
            assert result.exit_code == 0, (command, result.exception, result.stdout[-600:])
            ran.append(arguments[0])
    assert ran == ["new", "try", "try", "check", "plugins", "plugins"]
    for name in [name for name in sys.modules if name.split(".")[0] == "my_scenario"]:
        monkeypatch.delitem(sys.modules, name)


def test_every_command_and_option_in_the_document_exists() -> None:
    group: Any = typer.main.get_command(build())
    said = [*COMMANDS, *re.findall(r"`(careloom [^`]+)`", DOCUMENT)]
    commands = [shlex.split(each)[1:] for each in said if each.startswith("careloom ")]
    assert {words[0] for words in commands} >= {"new", "try", "check", "plugins", "up", "send", "status", "switch"}
    for words in commands:
        command = group.commands[words[0]]
        if hasattr(command, "commands") and len(words) > 1:
            command = command.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words


def test_up_allows_a_plugin_that_is_installed_and_refuses_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("my_scenario", "my_scenario.scenario", "careloom")
    points = importlib.metadata.EntryPoints([point])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **query: points.select(**query))
    assert _plugins(["my_scenario"]) == {"plugins": {"enabled": ["my_scenario"]}}
    assert _plugins([]) == {}
    with pytest.raises(ConfigError, match="--plugin other: not installed \\(installed: my_scenario\\)"):
        _plugins(["other"])


def undocumented_hooks(specifications: Iterable[type]) -> list[str]:
    """Hooks whose exact signature is not in the document, or that have no docstring."""
    hooks = {n: h for spec in specifications for n, h in vars(spec).items() if n.startswith("careloom_")}
    rows = {name: f"| `{name}({', '.join(arguments(hook))})` |" for name, hook in hooks.items()}
    return [name for name, row in rows.items() if row not in DOCUMENT or not hooks[name].__doc__]


def undocumented_parts(scenario: type) -> list[str]:
    """Fields and methods of a scenario that are not in the document."""
    fields = [name for name in scenario.__annotations__ if not name.startswith("_")]
    methods = {n: m for n, m in vars(scenario).items() if callable(m) and not n.startswith("_")}
    rows = {name: f"| `{name}` |" for name in fields}
    rows |= {name: f"| `{name}({', '.join(arguments(method))})` |" for name, method in methods.items()}
    return [name for name, row in rows.items() if row not in DOCUMENT]


def arguments(function: Any) -> list[str]:
    return [a for a in function.__code__.co_varnames[: function.__code__.co_argcount] if a != "self"]


def test_every_hook_is_in_the_document_and_has_a_docstring() -> None:
    assert sum(len([n for n in vars(spec) if n.startswith("careloom_")]) for spec in hookspecs.SPECIFICATIONS) >= 8
    assert undocumented_hooks(hookspecs.SPECIFICATIONS) == []


def test_every_field_and_method_of_a_scenario_is_in_the_document() -> None:
    assert len(Scenario.__annotations__) >= 15
    assert undocumented_parts(Scenario) == []


def test_what_is_new_and_not_in_the_document_is_found() -> None:
    class Specs:
        def careloom_after_lunch(self, menu: str) -> None:
            """Told of the menu."""

        def careloom_before_infer(self, work: Any, more: Any) -> None:
            """Another argument than the document shows."""

        def careloom_scenarios(self) -> None:  # without a docstring
            return None

    class Parts:
        colour: str
        version: str

        def prompt(self, case: Case, mood: str) -> None:
            return None

    assert undocumented_hooks([Specs]) == ["careloom_after_lunch", "careloom_before_infer", "careloom_scenarios"]
    assert undocumented_parts(Parts) == ["colour", "prompt"]


def test_every_built_in_scenario_is_in_the_document() -> None:
    for id_ in load().scenarios:
        assert f"| `{id_}` |" in DOCUMENT
