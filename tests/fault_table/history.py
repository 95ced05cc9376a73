"""Three days before the faults: a house whose drafts were in time, so that a share over days is one of days.

Without them ten minutes are all the history that there is, and each fault of minutes is a budget burnt for days.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

#: Seconds of history at scale 1, and between its samples.
DAYS, STEP = 3 * 86_400, 300


def remember(folder: Path, every: Mapping[str, float], *, scale: float) -> None:
    """Put it into a Prometheus' data folder, before that Prometheus starts.

    Args:
        folder: `--storage.tsdb.path`.
        every: scenario -> seconds between two of its events.
        scale: of the rules: a shorter look back needs less.

    Raises:
        subprocess.CalledProcessError: promtool takes no history.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = folder.parent / "history.om"
    text.write_text(openmetrics(every, until=time.time() - STEP, scale=scale), "utf-8")
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(folder)]
    subprocess.run(made, check=True, capture_output=True, timeout=300)
    text.unlink()


def openmetrics(every: Mapping[str, float], *, until: float, scale: float) -> str:
    """The history as OpenMetrics has it: each event drafted in time, none late.

    Args:
        until: Unix time of the last sample.
    """
    steps = round(DAYS * scale / STEP)
    lines = ["# TYPE careloom_deadlines counter"]
    for scenario, seconds in every.items():
        stage = scenario.partition(".")[0]
        for outcome, grows in (("met", STEP / seconds), ("missed", 0.0)):
            labels = f'scenario="{scenario}",stage="{stage}",outcome="{outcome}",instance="before",job="exporter"'
            lines += [
                f"careloom_deadlines_total{{{labels}}} {step * grows:g} {until - (steps - step) * STEP:.0f}"
                for step in range(steps + 1)
            ]
    return "\n".join([*lines, "# EOF", ""])
