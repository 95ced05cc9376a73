"""Writes docs/metrics.md from `monitoring.metrics`: `python -m monitoring.reference > docs/metrics.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from monitoring.metrics import DECLARED, LABELS, LEDGER, Metric
from monitoring.series import MOST, Size, bound, total

_TITLES = {
    "gateway": "Gateway",
    "dispatcher": "Dispatcher",
    "exporter": "Exporter: the process itself",
    "ledger": "Exporter: read from the ledger",
}

_HEAD = """\
# Metrics

Written from `monitoring/metrics/` by `python -m monitoring.reference`; a test holds both together. Every process
also shows `process_*` (CPU, memory, open files, start time) and `careloom_build_info`. What the exporter reads from the
ledger is exact: it equals the ledger's rows, never goes back, and does not depend on any process having lived on.
"""


def reference() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for key, title in _TITLES.items():
        parts += [f"## {title}\n", *_table(m for m in DECLARED.values() if _section(m) == key)]
    parts += ["## Labels\n", "All values come from closed sets.\n", *_labels()]
    parts += ["## How many series\n", *_series(Size())]
    return "\n".join(parts)


def _section(metric: Metric) -> str:
    return "ledger" if metric.name in LEDGER else metric.process


def _table(metrics: Iterable[Metric]) -> list[str]:
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return [*rows, ""]


def _labels() -> list[str]:
    rows = ["| label | what | values |", "|---|---|---|"]
    for label, (values, what) in sorted(LABELS.items()):
        rows.append(f"| `{label}` | {what} | {', '.join(sorted(values)) if values else 'as configured'} |")
    return [*rows, ""]


def _series(size: Size) -> list[str]:
    """The bound, and what most of it is."""
    declared = sorted(DECLARED.values(), key=lambda metric: -bound(metric, size))
    most = [metric for metric in declared if bound(metric, size) >= 500]
    rest = sum(bound(metric, size) for metric in declared if metric not in most)
    text = (
        f"All processes together show at most **{total(size):,}** series in a house of {size.scenarios} scenarios,"
        f" {size.models} models, {size.sources} sources, {size.partitions} partitions, {size.plugins} plugins with"
        f" hooks and {len(size.verdicts)} things that guards can find: every combination of every label's values, most"
        f" of which never occur (a scenario asks one model). The bound is {MOST:,}; a test shows all of them for real,"
        " and fails where there are more (`monitoring.series`). On top of it come Airflow's and vLLM's own series; a"
        " panel, whose joined name is one more model (4,600 series where every scenario asked it); and plugins' own"
        " counters, each of 200 series for a scenario at most.\n"
    )
    rows = ["| metric | series at most |", "|---|---|"]
    rows += [f"| `{metric.name}` | {bound(metric, size):,} |" for metric in most]
    return [text, *rows, f"| all others | {rest + total(size) - sum(bound(m, size) for m in declared):,} |", ""]


if __name__ == "__main__":
    sys.stdout.write(reference())
