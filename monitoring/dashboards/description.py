"""What a dashboard is here: rows of panels, each with its queries, its runbook and its way to Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: Labels of a metric that has both, and of one that has the scenario alone, as the variables choose them.
BOTH = 'scenario=~"$scenario", stage=~"$stage"'
SCENARIO = 'scenario=~"$scenario"'

#: Grafana's names of the units that are used here.
Unit = Literal["s", "short", "none", "percentunit", "reqps", "ops", "bool"]
#: Of a condition that is 1 when all is well, and of one that is 1 when something is wrong.
UP, WRONG = {1: "up", 0: "DOWN"}, {0: "no", 1: "YES"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: what is seen.
        description: how to read it; shown at the panel's corner.
        unit: Grafana's name of the unit.
        queries: legend (with {{label}}) -> PromQL.
        kind: lines over time, one number a series, or a table of the newest values: one row for each set of labels,
            one column for each query, headed by its legend.
        runbook: the alert whose runbook says what to do about it. Where an alert reads a metric of the panel, it is
            here or in `runbooks`; docs/dashboards.md names the panels that have none.
        runbooks: further ones.
        airflow: whether its series lead to their DAG and its runs in Airflow (they then have the label: scenario, or
            dag_id, which is the same).
        width: of Grafana's 24 columns.
        red_from: it is red from this value on; not of a table.
        red_below: it is red below this value.
        words: what stands in place of a value.
        at_least: where the axis ends when all values are lower: a line of zeros is no mountain range. 1, or 0.1
            where the unit is a rate or a share.
        units: column of a table -> its unit, where it is not the panel's.
        red: column of a table -> the value from which on it is red.
        decimals: of numbers; as many as they need where it is None.
        sort_by: column of a table, largest first.
        height: of Grafana's rows of 30 pixels.
    """

    title: str
    description: str
    unit: Unit
    queries: Mapping[str, str]
    kind: Literal["lines", "number", "table"] = "lines"
    runbook: str | None = None
    airflow: bool = False
    width: int = 8
    red_from: float | None = None
    red_below: float | None = None
    words: Mapping[int, str] = field(default_factory=dict)
    at_least: float | None = None
    units: Mapping[str, Unit] = field(default_factory=dict)
    red: Mapping[str, float] = field(default_factory=dict)
    decimals: int | None = None
    sort_by: str | None = None
    height: int = 8
    runbooks: tuple[str, ...] = ()

    @property
    def all_runbooks(self) -> tuple[str, ...]:
        """The alerts whose runbooks it leads to."""
        return (*((self.runbook,) if self.runbook else ()), *self.runbooks)


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


def or_zero(expression: str, label: str = "") -> str:
    """0 where there is no such series yet: it is made by the first thing that it counts.

    Args:
        expression: the query.
        label: of the legend, which then says `none` for the 0.
    """
    zero = f'label_replace(vector(0), "{label}", "none", "", "")' if label else "vector(0)"
    return f"{expression} or on () {zero}"


def not_zero(expression: str, label: str) -> str:
    """The series that are not 0, and one of 0 where all are: a legend of fifteen zeros hides the one that is not."""
    return or_zero(f"({expression} > 0)", label)


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
