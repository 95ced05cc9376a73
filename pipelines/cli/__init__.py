"""The command line: `careloom`."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `careloom` command."""
    from pipelines.cli.app import build, run

    sys.exit(run(build()))
