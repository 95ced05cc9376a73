"""Counters of a plugin's own: declared with closed label sets, increased from its hooks, shown by the exporter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/+-]{0,62}")
#: careloom adds it to every counter of a plugin.
SCENARIO = "scenario"
#: Series that one counter may have for each scenario.
MOST_SERIES = 200


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter. Prometheus shows it as `careloom_plugin_<plugin>_<name>_total`, with the label `scenario` added.

    Attributes:
        name: lower-case words with underscores, without `careloom` and `_total`.
        help: one sentence for the operator.
        labels: label -> every value that it can have.
    """

    name: str
    help: str
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Increment:
    """One step of a counter, as a lifecycle hook returns it.

    Attributes:
        counter: `Counter.name`.
        labels: a value of its closed set for each label.
        by: how much; not negative.
    """

    counter: str
    labels: Mapping[str, str] = field(default_factory=dict)
    by: float = 1.0


def full_name(plugin: str, counter: Counter) -> str:
    """The counter's name as Prometheus shows it."""
    return f"careloom_plugin_{re.sub(r'[^a-z0-9]+', '_', plugin.lower()).strip('_')}_{counter.name}_total"


def fault(counter: object) -> str | None:
    """What is wrong with a declaration, with the remedy; None where nothing is."""
    if not isinstance(counter, Counter):
        return f"{type(counter).__name__} is no Counter; return plugins.counters.Counter(...)"
    if not _NAME.fullmatch(counter.name) or counter.name.startswith("careloom") or counter.name.endswith("_total"):
        return f"counter {counter.name!r}: lower-case words with _, without careloom and _total; careloom adds both"
    if not counter.help.strip():
        return f"counter {counter.name!r}: help is missing; say in one sentence what is counted"
    series = 1
    for label, values in counter.labels.items():
        if not _NAME.fullmatch(label) or label == SCENARIO:
            return (
                f"counter {counter.name!r}: label {label!r}: lower-case words with _; {SCENARIO} is added by careloom"
            )
        if not values or not all(isinstance(value, str) and _VALUE.fullmatch(value) for value in values):
            return f"counter {counter.name!r}: label {label!r}: name every value it can have; a label is a closed set"
        series *= len(values)
    if series > MOST_SERIES:
        return f"counter {counter.name!r}: {series} series for each scenario; {MOST_SERIES} at most: drop a label"
    return None


def keeps_to(counter: Counter, increment: Increment) -> bool:
    """Whether an increment has each label of its counter with one of its values, and does not go back."""
    return (
        increment.labels.keys() == counter.labels.keys()
        and all(increment.labels[label] in values for label, values in counter.labels.items())
        and increment.by >= 0
    )
