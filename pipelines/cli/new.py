"""`careloom new`: a plugin to begin with, as a package of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    stage: Annotated[str, typer.Argument(help="pre_visit, in_visit or post_visit.")],
    name: Annotated[str, typer.Argument(help="Of the package: lower-case words with hyphens.")],
    into: Annotated[Path, typer.Option(help="The folder that the package's folder is made in.")] = Path(),
) -> None:
    """Write a package with one working scenario, ten golden cases and a test that passes.

    Examples:

      careloom new pre_visit my-scenario

      careloom new in_visit ward-brief --into ~/plugins
    """
    from pipelines.authoring.package import write_package

    folder = write_package(stage, name, into)
    module = name.replace("-", "_")
    typer.echo(f"{folder}: a scenario that works. What it does is in {module}/scenario.py; now")
    typer.echo(f"  careloom check {folder}")
    typer.echo(
        f"  careloom try {stage.replace('-', '_')}.{module} --package {folder}"
        f" --patient {folder / 'tests/golden/en_red_flag.json'}"
    )
