"""The loader takes what keeps the rules, and says of everything else why not, without taking it down with it."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from plugins import manager
from plugins.hookspecs import hookimpl
from plugins.manager import load
from plugins.post_visit.follow_up import FollowUp
from plugins.scenario import RecordQuery, Scenario, Stage, Trigger

BUILT_IN = ["pre_visit.triage", "in_visit.admission_note", "post_visit.follow_up"]


class Good(FollowUp):
    id = "post_visit.other"


def install(monkeypatch: pytest.MonkeyPatch, **plugins: Any) -> None:
    """Entry points of these names in the group `careloom`; each value is a plugin module, None for a broken one."""
    for name, plugin in plugins.items():
        monkeypatch.setitem(sys.modules, f"fake_{name}", plugin)
    points = [importlib.metadata.EntryPoint(name, f"fake_{name}", manager.PROJECT) for name in plugins]
    monkeypatch.setattr(manager, "entry_points", lambda **q: importlib.metadata.EntryPoints(points).select(**q))


def plugin(*scenarios: Any) -> types.ModuleType:
    module = types.ModuleType("fake")

    @hookimpl
    def careloom_scenarios() -> list[Any]:
        return list(scenarios)

    module.careloom_scenarios = careloom_scenarios  # type: ignore[attr-defined]
    return module


def changed(**attributes: Any) -> Scenario[Any]:
    return type("Changed", (Good,), attributes)()


def reason(monkeypatch: pytest.MonkeyPatch, *scenarios: Any) -> str:
    """Why these scenarios of a plugin are refused; the built-in ones run all the same."""
    install(monkeypatch, theirs=plugin(*scenarios))
    loaded = load(["theirs"])
    assert [i for i in loaded.scenarios if i in BUILT_IN] == BUILT_IN
    assert [name for name, _ in loaded.refused] == ["theirs"]
    return loaded.refused[0][1]


def test_the_built_in_scenarios_load_and_nothing_is_refused() -> None:
    loaded = load()
    assert set(BUILT_IN) <= set(loaded.scenarios)
    assert loaded.refused == ()
    assert all(plugin.enabled and not plugin.why_not for plugin in loaded.plugins if plugin.name in manager.BUILT_IN)


def test_an_installed_plugin_that_is_not_enabled_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, theirs=plugin(Good()))
    assert "post_visit.other" not in load().scenarios
    assert "post_visit.other" in load(["theirs"]).scenarios


def test_a_disabled_scenario_does_not_run_and_is_named() -> None:
    loaded = load(disabled_scenarios=["pre_visit.triage"])
    assert "pre_visit.triage" not in loaded.scenarios
    assert loaded.disabled == ("pre_visit.triage",)
    assert loaded.refused == ()


def test_disabling_a_scenario_that_nobody_brings_is_reported() -> None:
    assert load(disabled_scenarios=["pre_visit.triagge"]).refused == (
        ("pre_visit.triagge", "disabled_scenarios names it, but no plugin brings it; correct the id"),
    )


def test_an_enabled_plugin_that_is_not_installed_is_reported_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, theirs=plugin(Good()))
    loaded = load(["missing", "theirs"])
    assert loaded.refused[0][0] == "missing"
    assert "installed: theirs" in loaded.refused[0][1]
    assert "post_visit.other" in loaded.scenarios


def test_a_plugin_that_cannot_be_imported_takes_nobody_down(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, broken=None, theirs=plugin(Good()))
    loaded = load(["broken", "theirs"])
    assert "importing it failed" in loaded.refused[0][1]
    assert "post_visit.other" in loaded.scenarios


def test_a_plugin_that_ends_the_process_takes_nobody_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At its import, in a hook that is called at load, and in a property of what it brings; Ctrl-C goes through."""
    monkeypatch.syspath_prepend(str(tmp_path))

    class Ending(Good):
        @property
        def title(self) -> Any:  # type: ignore[override]
            raise SystemExit(1)

    hooked = types.ModuleType("fake")

    @hookimpl
    def careloom_scenarios() -> list[Any]:
        raise SystemExit("no licence")

    hooked.careloom_scenarios = careloom_scenarios  # type: ignore[attr-defined]
    install(monkeypatch, imported=None, hooked=hooked, ending=plugin(Ending()), theirs=plugin(Good()))
    monkeypatch.delitem(sys.modules, "fake_imported")
    (tmp_path / "fake_imported.py").write_text("import sys\nsys.exit(2)\n", encoding="utf-8")
    loaded = load(["imported", "hooked", "ending", "theirs"])
    assert [name for name, _ in loaded.refused] == ["imported", "hooked", "ending"]
    assert all("leave sys.exit() out" in why for _, why in loaded.refused)
    assert [i for i in loaded.scenarios if i in BUILT_IN] == BUILT_IN
    assert "post_visit.other" in loaded.scenarios
    (tmp_path / "fake_imported.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        load(["imported"])


def test_a_scenario_of_another_shape_than_a_rule_expects_takes_nobody_down(monkeypatch: pytest.MonkeyPatch) -> None:
    why = reason(monkeypatch, changed(triggers=(3,)))
    assert "Changed: looking at it failed with AttributeError" in why


def test_a_misspelt_hook_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("fake")

    @hookimpl
    def careloom_scenario() -> list[Any]:
        return [Good()]

    module.careloom_scenario = careloom_scenario  # type: ignore[attr-defined]
    install(monkeypatch, theirs=module)
    assert "careloom_scenario" in load(["theirs"]).refused[0][1]


def test_a_plugin_without_hookimpl_is_told_what_it_forgot(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("fake")
    module.careloom_scenarios = lambda: [Good()]  # type: ignore[attr-defined]
    install(monkeypatch, theirs=module)
    assert "@hookimpl" in load(["theirs"]).refused[0][1]


def test_a_plugin_that_raises_while_it_is_asked_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("fake")

    @hookimpl
    def careloom_scenarios() -> list[Any]:
        raise ZeroDivisionError

    module.careloom_scenarios = careloom_scenarios  # type: ignore[attr-defined]
    install(monkeypatch, theirs=module)
    assert "ZeroDivisionError" in load(["theirs"]).refused[0][1]


def test_the_first_of_two_scenarios_with_one_id_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Same(FollowUp):
        pass

    assert "post_visit.follow_up is taken by plugins.post_visit.follow_up" in reason(monkeypatch, Same())


def test_a_class_instead_of_an_instance_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "with the parentheses" in reason(monkeypatch, Good)


def test_a_good_scenario_beside_a_refused_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, theirs=plugin(changed(version=""), Good()))
    assert "post_visit.other" in load(["theirs"]).scenarios


class Unbounded(BaseModel):
    text: str


def query(**more: Any) -> tuple[RecordQuery, ...]:
    return (RecordQuery(**({"name": "q", "resource_type": "Observation", "params": {"patient": "{patient}"}} | more)),)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"deadline": None}, "deadline is missing"),
        ({"version": ""}, "version is empty"),
        ({"max_tokens": "many"}, "max_tokens is empty or of the wrong type"),
        ({"deadline": timedelta(0)}, "greater than zero"),
        ({"objective": 1.0}, "share between 0 and 1"),
        ({"objective": 95.0}, "share between 0 and 1"),
        ({"id": "follow_up"}, "is not <stage>.<name>"),
        ({"id": "pre_visit.other"}, "its stage is post_visit"),
        ({"stage": Stage.IN_VISIT}, "its stage is in_visit"),
        ({"triggers": ()}, "nothing triggers it"),
        ({"triggers": (Trigger("Encouter"),)}, "no resource type 'Encouter'"),
        ({"triggers": (Trigger("SubscriptionTopic"),)}, "no resource type 'SubscriptionTopic'"),
        ({"triggers": (Trigger("Encounter", {"status": "finished"}),)}, "must be a tuple"),  # type: ignore[dict-item]
        ({"triggers": (Trigger("Encounter", fhirpath="status = = 'x'"),)}, "not FHIRPath"),
        ({"triggers": (Trigger("Encounter", fhirpath="status.exist()"),)}, "fails on a resource"),
        ({"record": query() + query()}, "two queries are called 'q'"),
        ({"record": query(resource_type="Obs")}, "no resource type 'Obs'"),
        ({"record": query(params={"patient": "{patiant}"})}, "unknown placeholder; known are {encounter}, {patient}"),
        ({"record": query(params={"patient": "{patient"})}, "open brace"),
        ({"record": query(params={"patient": "{}"})}, "unknown placeholder"),
        ({"record": query(cap=0)}, "cap must be at least 1"),
        ({"record": query(window=timedelta(days=1))}, "window needs date_param"),
        ({"output_model": None}, "output_model is missing"),
        ({"output_model": Unbounded}, "unbounded"),
    ],
)
def test_a_scenario_that_breaks_a_rule_is_refused_with_the_rule(
    monkeypatch: pytest.MonkeyPatch, attributes: dict[str, Any], says: str
) -> None:
    if says == "unbounded":
        attributes = {"output_model": type("U", (Unbounded,), {"model_config": {"extra": "forbid"}})}
    assert says in reason(monkeypatch, changed(**attributes))
