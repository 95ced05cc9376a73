"""The outcomes as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from account import Outcome

_HEAD = (
    "fault", "done", "events", "written", "stale", "parked", "lost", "doubled", "wrong", "stale writes",
    "unaccounted", "recovery p50 s", "max s", "drained s",
)  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """One row a fault, the sum below, and why a fault was not done."""
    rows = [_HEAD, *(_row(one) for one in outcomes if one.skipped is None), _sum(outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(_cell(row, column, widths) for column in range(len(_HEAD))) for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    lines.insert(-1, "-" * len(lines[0]))
    lines += [f"not done here: {one.name}: {one.skipped}" for one in outcomes if one.skipped is not None]
    lines += [f"{one.name}: {note}" for one in outcomes for note in one.notes]
    return "\n".join(lines)


def _cell(row: Sequence[str], column: int, widths: Sequence[int]) -> str:
    return row[column].ljust(widths[column]) if column == 0 else row[column].rjust(widths[column])


def _row(one: Outcome) -> tuple[str, ...]:
    p50, longest = one.recovery or (None, None)
    seconds = ["" if value is None else f"{value:.1f}" for value in (p50, longest, one.drained)]
    return (one.name, *(str(number) for number in _counts(one)), *seconds)


def _counts(one: Outcome) -> tuple[int, ...]:
    return (
        one.injections, one.events, one.written, one.stale, one.parked, one.lost, one.doubled, one.wrong,
        one.stale_writes, one.unaccounted,
    )  # fmt: skip


def _sum(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    totals = [sum(numbers) for numbers in zip(*(_counts(one) for one in outcomes), strict=True)]
    return ("all of them", *(str(number) for number in totals), "", "", "")
