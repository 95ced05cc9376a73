"""The plugin that the documentation shows is loaded, started and held to the conformance kit."""

from __future__ import annotations

import importlib.util
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from plugins import hookspecs
from plugins.checks import check
from plugins.matching import Matcher
from plugins.scenario import Case
from plugins.testing import ScenarioConformance

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugins.md"
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
    """The first Python block of the document, as a module of its own."""
    block = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[0]
    file = tmp_path / "shown_visit_brief.py"
    file.write_text(block, encoding="utf-8")
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
    assert Matcher([scenario]).match(TRIGGER) == [scenario]


@pytest.mark.parametrize("promise", KIT)
def test_the_plugin_in_the_document_is_conformant(shown: ModuleType, promise: str) -> None:
    kit: Any = type("Kit", (ScenarioConformance,), {"scenario": shown.VisitBrief(), "cases": (CASE,)})()
    getattr(kit, promise)()


def test_every_hook_is_in_the_document_and_has_a_docstring() -> None:
    hooks = {n: h for n, h in vars(hookspecs.ScenarioSpecs).items() if n.startswith("careloom_")}
    assert hooks
    for name, hook in hooks.items():
        assert f"def {name}(" in DOCUMENT.read_text(encoding="utf-8")
        assert hook.__doc__
