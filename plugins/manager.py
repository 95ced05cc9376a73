"""The only loader of plugins: built-in scenarios and the allow-listed entry points, each held to the same rules.

A plugin that is broken, or a scenario that is refused, is reported and does not take the others down.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

import pluggy

from plugins.checks import check
from plugins.errors import DuplicateScenario, PluginBroken, PluginError, PluginNotFound
from plugins.hookspecs import ScenarioSpecs
from plugins.scenario import Scenario

PROJECT = "careloom"
"""Name of the hook project and of the entry point group."""

BUILT_IN = (
    "plugins.pre_visit.triage",
    "plugins.in_visit.admission_note",
    "plugins.post_visit.follow_up",
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of loading.

    Attributes:
        scenarios: id -> scenario, those that may run.
        refused: (plugin, reason) of every plugin or scenario that may not; the reason names the remedy.
        disabled: ids that the configuration switched off.
    """

    scenarios: Mapping[str, Scenario[Any]]
    refused: tuple[tuple[str, str], ...] = ()
    disabled: tuple[str, ...] = ()


def load(
    enabled: Iterable[str] = (),
    disabled_scenarios: Iterable[str] = (),
    *,
    built_in: Iterable[str] = BUILT_IN,
) -> Loaded:
    """Load the built-in scenarios and the plugins of the named entry points (group `careloom`).

    Args:
        enabled: names of entry points that may be loaded; nothing that is merely installed ever is.
        disabled_scenarios: ids of scenarios that must not run.
        built_in: modules that come with careloom; they are plugins like any other.

    What is wrong with one plugin or scenario stands in `Loaded.refused`; nothing is raised.
    """
    off = frozenset(disabled_scenarios)
    refused: list[tuple[str, str]] = []
    accepted: dict[str, Scenario[Any]] = {}
    for name in (*built_in, *enabled):
        try:
            offers = _offers(name, _import(name, built_in=name in BUILT_IN))
        except PluginError as error:
            refused.append((name, str(error)))
            continue
        for offer in offers:
            try:
                _accept(check(offer), accepted)
            except PluginError as error:
                refused.append((name, str(error)))
    unknown = sorted(off - accepted.keys())
    refused += [(i, "disabled_scenarios names it, but no plugin brings it; correct the id") for i in unknown]
    running = {i: scenario for i, scenario in accepted.items() if i not in off}
    return Loaded(MappingProxyType(running), tuple(refused), tuple(i for i in accepted if i in off))


def _accept(scenario: Scenario[Any], accepted: dict[str, Scenario[Any]]) -> None:
    if scenario.id in accepted:
        other = type(accepted[scenario.id]).__module__
        raise DuplicateScenario(f"{scenario.id} is taken by {other}; rename this one, or leave one of the plugins out")
    accepted[scenario.id] = scenario


def _import(name: str, *, built_in: bool) -> object:
    """The plugin object of a built-in module or an entry point.

    Raises:
        PluginNotFound: no entry point of that name is installed.
        PluginBroken: importing it failed.
    """
    try:
        return importlib.import_module(name) if built_in else _entry_point(name).load()
    except PluginError:
        raise
    except Exception as error:
        raise PluginBroken(f"importing it failed with {type(error).__name__}: {error}; repair or disable it") from error


def _entry_point(name: str) -> EntryPoint:
    found = tuple(entry_points(group=PROJECT, name=name))
    if not found:
        installed = ", ".join(sorted(e.name for e in entry_points(group=PROJECT))) or "none"
        raise PluginNotFound(f"no entry point {name!r} in group {PROJECT!r} is installed (installed: {installed})")
    return found[0]


def _offers(name: str, plugin: object) -> list[object]:
    """What one plugin brings, through a plugin manager of its own, so that a fault stays its own.

    Raises:
        PluginBroken: it implements no hook, misspells one, or fails while it is asked.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(ScenarioSpecs)
    try:
        manager.register(plugin, name)
        manager.check_pending()
        offers = [scenario for offer in manager.hook.careloom_scenarios() for scenario in offer]
    except pluggy.PluginValidationError as error:
        raise PluginBroken(f"{error}; the hooks and their arguments are in plugins/hookspecs.py") from error
    except Exception as error:
        raise PluginBroken(f"careloom_scenarios failed with {type(error).__name__}: {error}; repair it") from error
    if not manager.get_hookcallers(plugin):
        raise PluginBroken("it implements no hook; have you forgotten @hookimpl on careloom_scenarios?")
    return offers
