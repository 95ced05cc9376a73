"""What a benchmark says: figures with their bars, as a table for people and as JSON for machines."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Say = Callable[[str], None]

_BEGAN = time.monotonic()


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured.
        value: in `unit`.
        bar: what must hold, in words; empty where nothing must.
        met: whether it does; None where there is no bar, or where it could not be judged.
    """

    name: str
    value: float
    unit: str
    bar: str = ""
    met: bool | None = None


@dataclass
class Result:
    """All that one benchmark found.

    Attributes:
        bench: its name.
        figures: for the table.
        details: whatever else belongs into the JSON.
        text: shown below the table as it is.
        seconds: that it took.
        why_not: why it could not be run; empty when it was.
    """

    bench: str
    figures: list[Figure] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    seconds: float = 0.0
    why_not: str = ""

    def add(self, name: str, value: float, unit: str) -> None:
        """A figure that no bar stands for."""
        self.figures.append(Figure(name, value, unit))

    def hold(
        self, name: str, value: float, unit: str, *, at_most: float = math.inf, at_least: float = -math.inf
    ) -> None:
        """A figure with its bar."""
        bar = f"<= {at_most:g}" if at_most < math.inf else f">= {at_least:g}"
        self.figures.append(Figure(name, value, unit, bar, at_least <= value <= at_most))

    def spread(self, name: str, values: Sequence[float], unit: str = "s") -> None:
        """p50 and p95 of many."""
        self.add(f"{name}, p50", percentile(values, 50), unit)
        self.add(f"{name}, p95", percentile(values, 95), unit)


Bench = Callable[[bool, Say], Result]
"""`bench(quick, say)`."""


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile; NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def say(text: str) -> None:
    """One line of progress on stderr, with the seconds since the start."""
    print(f"[{time.monotonic() - _BEGAN:5.0f} s] {text}", file=sys.stderr, flush=True)


def timed(name: str, bench: Bench, quick: bool) -> Result:
    """Run one benchmark; what it has started is stopped also when this process is asked to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say(f"{name}: begins")
    began = time.monotonic()
    result = bench(quick, lambda text: say(f"{name}: {text}"))
    result.seconds = round(time.monotonic() - began, 1)
    return result


def machine() -> Mapping[str, Any]:
    """Where this was measured; how busy the machine is with other things decides what times are worth."""
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def table(results: Iterable[Result]) -> str:
    """The figures, one line each."""
    lines = []
    for result in results:
        lines.append(
            f"\n{result.bench} ({result.seconds:.0f} s)" + (f": not run: {result.why_not}" if result.why_not else "")
        )
        width = max((len(figure.name) for figure in result.figures), default=0)
        for figure in result.figures:
            verdict = {True: "holds", False: "DOES NOT HOLD", None: ""}[figure.met]
            value = f"{_short(figure.value)} {figure.unit}".rstrip()
            lines.append(f"  {figure.name:<{width}}  {value:>16}  {figure.bar:<10} {verdict}".rstrip())
        if result.text:
            lines.append(result.text)
    return "\n".join(lines)


def _short(value: float) -> str:
    if value != value or value == int(value):
        return f"{value:.0f}"
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def write(file: Path, results: Iterable[Result]) -> None:
    """JSON of everything."""
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = {"machine": machine(), "results": [asdict(result) for result in results]}
    file.write_text(json.dumps(whole, indent=1, ensure_ascii=False, default=str) + "\n", "utf-8")


def read(file: Path) -> list[Result]:
    """What `write` wrote; nothing where there is no file."""
    if not file.exists():
        return []
    whole = json.loads(file.read_text("utf-8"))
    return [Result(**{**one, "figures": [Figure(**each) for each in one["figures"]]}) for one in whole["results"]]


def main(name: str, bench: Bench) -> int:
    """The command line of one benchmark; returns 0 when all its bars hold."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.bench.{name}")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--quick", action="store_true", help="fewer of everything: a look, no figure to rely on")
    options = parser.parse_args()
    result = timed(name, bench, options.quick)
    if options.json:
        write(options.json, [result])
    print(table([result]))
    return verdict([result])


def verdict(results: Iterable[Result]) -> int:
    """0 when every bar holds, else 1."""
    return int(any(figure.met is False for result in results for figure in result.figures))
