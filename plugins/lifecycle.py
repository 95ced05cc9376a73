"""What lifecycle hooks are told and what comes of them: frozen values without patient data in, increments out.

A hook sees ids, counts, codes and classes of error, never the case: it runs for other plugins' scenarios too. It can
change nothing. One that fails, or that counts what it has not declared, is itself counted and harms no row.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plugins.counters import SCENARIO, Counter, Increment, full_name, keeps_to
from plugins.errors import FAULTS

#: Counts hooks that failed, by plugin, hook and scenario; declared in `monitoring.metrics`.
HOOK_ERRORS = "careloom_plugin_hook_errors_total"


@dataclass(frozen=True, slots=True)
class Started:
    """A piece of work is about to be inferred; its record has been read.

    Attributes:
        scenario, scenario_version: whose it is.
        stage: of care.
        attempt: 1 for the first try.
    """

    scenario: str
    scenario_version: str
    stage: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Inferred:
    """A piece of work has its drafts.

    Attributes:
        work: what was started.
        models: names of those that answered.
        prompt_tokens, completion_tokens: of all answers.
        seconds: that the models took together.
        findings: codes of what rules and guards found.
        drafts: resource types of the drafts, one for each.
        cut: statements taken out of the answer.
    """

    work: Started
    models: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    findings: tuple[str, ...]
    drafts: tuple[str, ...]
    cut: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A try failed.

    Attributes:
        work: what was started.
        error_class: what it means, of `pipelines.errors.ErrorClass`.
        transient: whether the event will be tried again without counting against it.
    """

    work: Started
    error_class: str
    transient: bool


Counted = Mapping[str, Mapping[str, float]]
"""Metric name -> labels as canonical JSON -> how much: what the ledger keeps with the row."""


@dataclass(frozen=True, slots=True)
class Hooked:
    """One plugin's lifecycle hooks.

    Attributes:
        plugin: its name.
        hook: pluggy's relay to this plugin alone.
        counters: name -> what it declared.
    """

    plugin: str
    hook: Any
    counters: Mapping[str, Counter]


class Lifecycle:
    """Calls the lifecycle hooks of every plugin and adds up what they return.

    Args:
        plugins: those that implement any.
    """

    def __init__(self, plugins: Sequence[Hooked] = ()) -> None:
        self._plugins = tuple(plugins)

    def before_infer(self, work: Started) -> Counted:
        """The record is read; the model is asked next."""
        return self._call("careloom_before_infer", work, work=work)

    def after_infer(self, inferred: Inferred) -> Counted:
        """The drafts are computed."""
        return self._call("careloom_after_infer", inferred.work, inferred=inferred)

    def on_failure(self, failed: Failed) -> Counted:
        """The try failed."""
        return self._call("careloom_on_failure", failed.work, failed=failed)

    def _call(self, hook: str, about: Started, **told: object) -> Counted:
        counts: dict[tuple[str, str], float] = defaultdict(float)
        for plugin in self._plugins:
            try:
                returned = [i for offer in getattr(plugin.hook, hook)(**told) if offer for i in offer]
                steps = [_step(plugin, about.scenario, increment) for increment in returned]
            except FAULTS:  # whatever a plugin raises is its own trouble, and is counted
                steps = [
                    (HOOK_ERRORS, _canonical({"hook": hook, "plugin": plugin.plugin, SCENARIO: about.scenario}), 1.0)
                ]
            for name, labels, by in steps:
                counts[name, labels] += by
        return _nested((name, labels, by) for (name, labels), by in counts.items())


def added(*several: Counted) -> Counted:
    """The sum of several."""
    counts: dict[tuple[str, str], float] = defaultdict(float)
    for counted in several:
        for name, series in counted.items():
            for labels, by in series.items():
                counts[name, labels] += by
    return _nested((name, labels, by) for (name, labels), by in counts.items())


def _step(plugin: Hooked, scenario: str, increment: Increment) -> tuple[str, str, float]:
    """Raises ValueError for what the plugin has not declared so; the caller counts it."""
    counter = plugin.counters[increment.counter]
    if not keeps_to(counter, increment):
        raise ValueError("an increment must have every label of its counter, each with a declared value")
    labels = {**increment.labels, SCENARIO: scenario}
    return full_name(plugin.plugin, counter), _canonical(labels), float(increment.by)


def _canonical(labels: Mapping[str, str]) -> str:
    """As `pipelines.ledger.fold.canonical` writes the key of a sample."""
    return json.dumps(labels, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _nested(steps: Iterable[tuple[str, str, float]]) -> dict[str, dict[str, float]]:
    whole: dict[str, dict[str, float]] = {}
    for name, labels, by in steps:
        whole.setdefault(name, {})[labels] = by
    return whole
