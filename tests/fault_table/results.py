"""The table: kept as JSON, one fault at a time, and written as docs/fault-table.md."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from pipelines.stack.part import PROJECT
from tests.fault_table.faults import FAULTS
from tests.fault_table.runbook import RUNBOOKS
from tests.fault_table.trial import Outcome

#: Outcomes, the newest of each fault, and the page that is written of them.
FILE, PAGE = PROJECT / "docs" / "fault-table.json", PROJECT / "docs" / "fault-table.md"

_HEAD = """\
# Faults, and who is told of them

Written by `make fault-table` (`python -m tests.fault_table --write`) from runs on a real stack: Apache Kafka,
PostgreSQL, Airflow, a FHIR server (sekmet), Prometheus, Alertmanager and statsd_exporter, with the rules and the
example of an Alertmanager configuration as they stand in `monitoring/`. The model is a stand-in that can be made ill.
Every five seconds a patient is admitted, which starts two scenarios. Letters of wards are scenarios of an outside
plugin, due after 20 s, and there was one an hour in the three days before, all in time: shares of hours and of days
move within minutes there, under the rules as they are.

**Paged** is what reached a telephone at Alertmanager's end, after grouping and inhibition, in seconds from the fault
on; **over** is from the mending until the alert no longer fired. **Besides** is what else reached the telephone:
nothing should. **Kept quiet** fired too, and its cause spoke for it.

Run on {machine}, which was shared with other work (load is that at the page): the times hold what that cost. A scale
below 1 means that the `for:` and the windows of the rules, and Alertmanager's `group_interval`, were that much shorter.
"""


def read(file: Path) -> dict[str, Outcome]:
    """Outcomes by fault; none where there is no file."""
    if not file.exists():
        return {}
    return {one["fault"]: Outcome(**one) for one in json.loads(file.read_text("utf-8"))}


def write(file: Path, outcomes: Iterable[Outcome]) -> None:
    """Replace the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(one) for one in outcomes], ensure_ascii=False, indent=1) + "\n", "utf-8")


def ordered(outcomes: dict[str, Outcome]) -> list[Outcome]:
    """As `FAULTS` has them."""
    return [outcomes[fault.name] for fault in FAULTS if fault.name in outcomes]


def table(outcomes: Iterable[Outcome]) -> str:
    """Markdown, a row a fault."""
    rows = [
        "| fault | alert | paged | over | besides | kept quiet | scale | load | run (UTC) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*rows, *map(_row, outcomes)]) + "\n"


def _row(one: Outcome) -> str:
    if one.alert is None:
        alert, paged, over = "none: it mends itself in time", "nobody", "-"
    else:
        alert = f"[{one.alert}](../monitoring/runbooks/{one.alert}.md)"
        paged = "**not paged**" if one.paged is None else f"{one.receiver}, {one.paged:.0f} s"
        over = "**it did not end**" if one.resolved is None else f"{one.resolved:.0f} s"
    besides = ", ".join(f"**{other}**" for other in one.others) or "nothing"
    if one.trouble:
        besides += f" (trouble of the run: {one.trouble})"
    quiet = ", ".join(one.quiet).replace("Careloom", "") or "-"
    return (
        f"| {one.what} | {alert} | {paged} | {over} | {besides} | {quiet} | {one.scale:g} | {one.load:.0f} | {one.at} |"
    )


def page(outcomes: list[Outcome]) -> str:
    """docs/fault-table.md."""
    good = sum(one.good for one in outcomes)
    parts = [
        _HEAD.format(machine="; ".join(sorted({one.machine for one in outcomes}))),
        f"{good} of {len(outcomes)} faults: the right alert alone, over after the mending, its runbook right.\n",
        table(outcomes),
        _runbooks(outcomes),
    ]
    return "\n".join(parts)


def _runbooks(outcomes: list[Outcome]) -> str:
    """Which pages were carried out on their fault, and which were not."""
    rows = [
        "## Runbooks carried out",
        "",
        "The commands of a page are run as they stand there, on its fault, in the running stack; each has to end as",
        "the page says and to show what the page says that it shows.",
        "",
        "| runbook | on the fault | commands | wrong |",
        "|---|---|---|---|",
    ]
    done: set[str] = set()
    for one in outcomes:
        for name, count in one.commands.items():
            done.add(name)
            wrong = "; ".join(one.runbooks.get(name, [])).replace("|", "\\|").replace("\n", " ") or "none"
            rows.append(f"| [{name}](../monitoring/runbooks/{name}.md) | {one.fault} | {count} | {wrong} |")
    left = sorted({file.stem for file in RUNBOOKS.glob("*.md")} - done)
    rows += ["", "Not carried out:" if left else "Every page was carried out.", ""]
    rows += [f"- {name}: {NOT_MADE.get(name, 'its fault was not made in these runs.')}" for name in left]
    return "\n".join(rows) + "\n"


#: Alerts whose faults are not made, and why.
NOT_MADE: dict[str, str] = {}
