"""What a dashboard is here: rows of panels, each with its queries, its runbook and its way to Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: Labels of a metric that has both, and of one that has the scenario alone, as the variables choose them.
BOTH = 'scenario=~"$scenario", stage=~"$stage"'
SCENARIO = 'scenario=~"$scenario"'

#: Grafana's names of the units that are used here.
Unit = Literal["s", "short", "percentunit", "reqps", "ops", "bool"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: what is seen.
        description: how to read it; shown at the panel's corner.
        unit: Grafana's name of the unit.
        queries: legend (with {{label}}) -> PromQL.
        kind: lines over time, one number a series, or a table of the newest values.
        runbook: the alert whose runbook says what to do about it.
        airflow: whether its series lead to their scenario's DAG and runs in Airflow (they then have the label).
        width: of Grafana's 24 columns.
    """

    title: str
    description: str
    unit: Unit
    queries: Mapping[str, str]
    kind: Literal["lines", "number", "table"] = "lines"
    runbook: str | None = None
    airflow: bool = False
    width: int = 8


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard.

    Attributes:
        uid: stable; also the JSON file's name.
        one_scenario: whether one scenario is chosen rather than some.
    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    one_scenario: bool = False

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels."""
        return tuple(panel for row in self.rows for panel in row.panels)


def rate(metric: str, labels: str = "", by: str = "") -> str:
    """`sum by (by) (rate(metric{labels}))` over Grafana's own interval; per second."""
    return f"sum{_by(by)} (rate({metric}{_braces(labels)}[$__rate_interval]))"


def grown(metric: str, labels: str = "", by: str = "", *, over: str = "1h") -> str:
    """By how much a counter has grown in the last hour, or `over`."""
    return f"sum{_by(by)} (increase({metric}{_braces(labels)}[{over}]))"


def or_zero(expression: str) -> str:
    """0 where there is no such series yet: it is made by the first thing that it counts."""
    return f"{expression} or on () vector(0)"


def quantile(share: float, histogram: str, labels: str = "", by: str = "") -> str:
    """A quantile of a classic histogram, by labels."""
    buckets = f"sum by ({', '.join(filter(None, ('le', by)))}) (rate({histogram}_bucket{_braces(labels)}[5m]))"
    return f"histogram_quantile({share}, {buckets})"


def mean(histogram: str, labels: str = "", by: str = "") -> str:
    """The mean of what a histogram observed."""
    top, bottom = (f"sum{_by(by)} (rate({histogram}_{part}{_braces(labels)}[5m]))" for part in ("sum", "count"))
    return f"{top} / {bottom}"


def _by(by: str) -> str:
    return f" by ({by})" if by else ""


def _braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""
