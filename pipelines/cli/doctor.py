"""`careloom doctor`: what this machine lacks, and how to get it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.up import STATE


def doctor(
    state: Annotated[Path, typer.Option(help="The state folder that `careloom up` would use.")] = STATE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text.")] = False,
) -> None:
    """Say what this machine lacks for the stack, and how to get it. Changes nothing.

    Exit code 1 when something is missing without which the stack does not start.

    Example:

      careloom doctor
    """
    from pipelines.stack.diagnosis import diagnose

    findings = diagnose(state)
    for finding in findings:
        if as_json:
            typer.echo(json.dumps(asdict(finding), ensure_ascii=False))
            continue
        mark = {"ok": "ok      ", "optional": "optional", "missing": "MISSING "}[finding.level]
        typer.echo(f"{mark}  {finding.name:<20} {finding.found}")
        if finding.remedy and finding.level != "ok":
            typer.echo(f"{'':<30} -> {finding.remedy}")
    if any(finding.level == "missing" for finding in findings):
        raise typer.Exit(1)
