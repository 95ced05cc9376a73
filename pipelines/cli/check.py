"""`careloom check`: holds scenarios to the conformance kit, one line a check."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipelines.authoring.target import Target
    from plugins.conformance import Checked

_LOADS = "it loads"
_REFUSED = "do what the message says; docs/plugins.md shows a scenario that loads"


def check(
    what: Annotated[
        str, typer.Argument(help="A package's folder, a .py file, an installed plugin, or a scenario's id.")
    ],
    golden: Annotated[Path | None, typer.Option(help="Folder of golden cases; else those beside the package.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Check that scenarios are pure, bounded and valid, and do what their golden cases say.

    Each is tried on its golden cases as they are and with the record empty, huge, contradictory and full of injected
    text, in both languages, with answers that are valid and senseless, and with garbage. Nothing needs to be installed
    or enabled. Exit code 0 when all is well, 1 when something failed.

    Examples:

      careloom check .

      careloom check pre_visit.triage --json
    """
    from pipelines.authoring.target import find

    failed = count = 0
    for checked in _all(find(what), golden):
        count += 1
        failed += not checked.ok
        typer.echo(json.dumps(asdict(checked), ensure_ascii=False) if as_json else line(checked))
    if not as_json:
        typer.echo(f"{count} checks, {failed} failed" if failed else f"{count} checks, all well")
    if failed:
        raise typer.Exit(1)


def line(checked: Checked) -> str:
    """One check for people: what failed, where, and the remedy below it."""
    head = f"{'ok    ' if checked.ok else 'FAILED'} {checked.scenario}: {checked.check}"
    where = f" (at {checked.where})" if checked.where else ""
    return head if checked.ok else f"{head}\n         {checked.what}{where}\n         do: {checked.remedy}"


def _all(targets: Iterable[Target], golden: Path | None) -> Iterator[Checked]:
    from pipelines.authoring.target import golden_cases
    from plugins.conformance import Checked, conformance

    for target in targets:
        for reason in target.refused:
            yield Checked(target.name, _LOADS, False, reason, "", _REFUSED)
        if not target.refused and not target.scenarios:
            yield Checked(target.name, "it brings a scenario", False, "it brings none", "", "return one")
        for scenario in target.scenarios:
            yield from conformance(scenario, golden_cases(scenario, golden))
