"""The only loader of plugins: built-in ones and the allow-listed entry points, each held to the same rules.

A plugin that is broken, or a thing of it that is refused, is reported and does not take the others down.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from types import MappingProxyType
from typing import Any

from plugins.counters import Counter, full_name
from plugins.errors import FAULTS, DuplicateScenario, OfferRefused, PluginBroken, PluginError, PluginNotFound, told
from plugins.guarding import Guard
from plugins.hookspecs import Settings
from plugins.knowledge import KnowledgeSource
from plugins.lifecycle import Hooked, Lifecycle
from plugins.model_backend import BackendFactory
from plugins.offers import PROJECT, Offers, offers
from plugins.scenario import Scenario

BUILT_IN = (
    "plugins.pre_visit.triage",
    "plugins.pre_visit.patient_qa",
    "plugins.pre_visit.health_education",
    "plugins.pre_visit.visit_brief",
    "plugins.in_visit.admission_note",
    "plugins.in_visit.exam_recommendation",
    "plugins.in_visit.record_qc",
    "plugins.in_visit.order_safety",
    "plugins.in_visit.icu_watch",
    "plugins.post_visit.discharge_summary",
    "plugins.post_visit.follow_up",
    "plugins.post_visit.adherence_risk",
    "plugins.guards.numbers",
    "plugins.guards.dates",
    "plugins.guards.drug_names",
    "plugins.guards.laterality",
    "plugins.guards.negation",
    "plugins.guards.other_patient",
    "plugins.guards.injection",
    "plugins.guards.unsafe_advice",
    "plugins.guards.codes",
    "plugins.guards.support",
    "plugins.guards.echo",
    "plugins.guards.status",
    "plugins.knowledge.index",
)


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plugin, for `careloom plugins`.

    Attributes:
        name: of its entry point; of a built-in one, its module.
        module: what is loaded.
        distribution: what was installed; "" where nobody knows.
        version: of that.
        enabled: whether it was loaded.
        why_not: why it was not, or what of it was refused; "" where all is well.
        brings: hook's subject -> ids of what it brings: "scenarios", "guards", "knowledge", "backends", "metrics".
    """

    name: str
    module: str
    distribution: str
    version: str
    enabled: bool
    why_not: str = ""
    brings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of loading.

    Attributes:
        scenarios: id -> scenario, those that may run.
        refused: (plugin, reason) of every plugin, or thing of one, that may not; the reason names the remedy.
        disabled: ids that the configuration switched off.
        guards: in the order in which they look.
        knowledge: in the order in which they are asked; empty where `load` was given no settings.
        backends: kind of model server -> what makes a backend; those of careloom itself are not among them.
        counters: full name -> declaration of every plugin's own.
        hooks: plugins with lifecycle hooks.
        plugins: all that are installed, loaded or not.
    """

    scenarios: Mapping[str, Scenario[Any]]
    refused: tuple[tuple[str, str], ...] = ()
    disabled: tuple[str, ...] = ()
    guards: tuple[Guard, ...] = ()
    knowledge: tuple[KnowledgeSource, ...] = ()
    backends: Mapping[str, BackendFactory] = field(default_factory=dict)
    counters: Mapping[str, Counter] = field(default_factory=dict)
    hooks: tuple[Hooked, ...] = ()
    plugins: tuple[PluginInfo, ...] = ()

    @property
    def lifecycle(self) -> Lifecycle:
        """Calls all lifecycle hooks."""
        return Lifecycle(self.hooks)


def load(
    enabled: Iterable[str] = (),
    disabled_scenarios: Iterable[str] = (),
    *,
    built_in: Collection[str] = BUILT_IN,
    settings: Callable[[str], Settings] | None = None,
) -> Loaded:
    """Load the built-in plugins and those of the named entry points (group `careloom`).

    Args:
        enabled: names of entry points that may be loaded; nothing that is merely installed ever is.
        disabled_scenarios: ids of scenarios that must not run.
        built_in: modules that come with careloom; they are plugins like any other.
        settings: plugin -> what it may know of the configuration, where knowledge is needed; see `Settings`.

    What is wrong with one plugin or scenario stands in `Loaded.refused`; nothing is raised.
    """
    loading = _Loading(frozenset(disabled_scenarios))
    for name in dict.fromkeys((*built_in, *enabled)):
        try:
            plugin = _import(name, built_in=name in built_in)
            brought = offers(name, plugin, settings(name) if settings else None)
        except PluginError as error:
            loading.refuse(name, str(error))
        except FAULTS as error:
            loading.refuse(name, f"loading it failed with {told(error)}; repair or disable it")
        else:
            loading.take(name, brought)
    return loading.done(tuple(enabled), built_in)


def installed_plugins(enabled: Iterable[str] = (), disabled_scenarios: Iterable[str] = ()) -> tuple[PluginInfo, ...]:
    """Every plugin that is installed or named in the configuration: from where, which version, enabled or why not."""
    return load(enabled, disabled_scenarios).plugins


class _Loading:
    """What has been taken so far; the first of two with one id stays."""

    def __init__(self, off: frozenset[str]) -> None:
        self._off = off
        self._refused: list[tuple[str, str]] = []
        self._brought: dict[str, dict[str, tuple[str, ...]]] = {}
        self._by_id: dict[str, dict[str, Any]] = {
            "scenarios": {}, "guards": {}, "knowledge": {}, "backends": {}, "metrics": {}
        }  # fmt: skip
        self._hooks: list[Hooked] = []

    def refuse(self, plugin: str, reason: str) -> None:
        self._refused.append((plugin, reason))

    def take(self, plugin: str, brought: Offers) -> None:
        """Keep what a plugin brings, but for ids that are taken."""
        for reason in brought.refused:
            self.refuse(plugin, reason)
        subjects: dict[str, Iterable[tuple[str, Any]]] = {
            "scenarios": ((scenario.id, scenario) for scenario in brought.scenarios),
            "guards": ((guard.id, guard) for guard in brought.guards),
            "knowledge": ((source.id, source) for source in brought.knowledge),
            "backends": brought.backends.items(),
            "metrics": ((full_name(plugin, counter), counter) for counter in brought.counters),
        }
        self._brought[plugin] = {what: tuple(self._kept(plugin, what, found)) for what, found in subjects.items()}
        if brought.lifecycle is not None:
            self._hooks.append(brought.lifecycle)

    def _kept(self, plugin: str, what: str, found: Iterable[tuple[str, Any]]) -> Iterator[str]:
        for id_, one in found:
            if id_ in self._by_id[what]:
                self.refuse(plugin, str(_taken(what, id_, self._by_id[what][id_])))
            else:
                self._by_id[what][id_] = one
                yield id_

    def done(self, enabled: tuple[str, ...], built_in: Collection[str]) -> Loaded:
        scenarios = self._by_id["scenarios"]
        for id_ in sorted(self._off - scenarios.keys()):
            self.refuse(id_, "disabled_scenarios names it, but no plugin brings it; correct the id")
        return Loaded(
            scenarios=MappingProxyType({i: scenario for i, scenario in scenarios.items() if i not in self._off}),
            refused=tuple(self._refused),
            disabled=tuple(i for i in scenarios if i in self._off),
            guards=tuple(self._by_id["guards"].values()),
            knowledge=tuple(self._by_id["knowledge"].values()),
            backends=MappingProxyType(self._by_id["backends"]),
            counters=MappingProxyType(self._by_id["metrics"]),
            hooks=tuple(self._hooks),
            plugins=tuple(self._infos(enabled, built_in)),
        )

    def _infos(self, enabled: tuple[str, ...], built_in: Collection[str]) -> Iterator[PluginInfo]:
        for module in built_in:
            yield self._info(module, module, PROJECT, _version(PROJECT))
        points = {point.name: point for point in entry_points(group=PROJECT)}
        for name in dict.fromkeys((*enabled, *sorted(points))):
            point = points.get(name)
            distribution = point.dist if point else None
            info = (distribution.name, distribution.version) if distribution else ("", "")
            yield self._info(name, point.value if point else "", *info, allowed=name in enabled)

    def _info(self, name: str, module: str, distribution: str, version: str, *, allowed: bool = True) -> PluginInfo:
        reasons = [reason for plugin, reason in self._refused if plugin == name]
        if not allowed:
            reasons = ["not enabled; name it in plugins.enabled"]
        brings = {what: ids for what, ids in self._brought.get(name, {}).items() if ids}
        off = [id_ for id_ in brings.get("scenarios", ()) if id_ in self._off]
        reasons += [f"{id_} is in plugins.disabled_scenarios" for id_ in off]
        return PluginInfo(name, module, distribution, version, name in self._brought, "; ".join(reasons), brings)


def _taken(what: str, id_: str, by: Any) -> PluginError:
    """Why a second thing of one id is refused."""
    other = getattr(by, "__module__", "") if what == "backends" else type(by).__module__
    remedy = "rename this one, or leave one of the plugins out"
    if what == "scenarios":
        return DuplicateScenario(f"{id_} is taken by {other}; {remedy}")
    return OfferRefused(f"{what}: {id_} is taken by {other}; {remedy}")


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
    except FAULTS as error:
        raise PluginBroken(f"importing it failed with {told(error)}; repair or disable it") from error


def _entry_point(name: str) -> EntryPoint:
    found = tuple(entry_points(group=PROJECT, name=name))
    if not found:
        installed = ", ".join(sorted(e.name for e in entry_points(group=PROJECT))) or "none"
        raise PluginNotFound(f"no entry point {name!r} in group {PROJECT!r} is installed (installed: {installed})")
    return found[0]


@cache
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
