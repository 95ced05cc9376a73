"""What every part of the stack is: something to prepare, programs to keep running, addresses to open."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipelines.errors import StackError
from pipelines.stack import processes
from pipelines.stack.supervisor import Program

#: The folder that holds pyproject.toml, dags/ and monitoring/ (an editable install, as scripts/bootstrap makes it).
PROJECT = Path(__file__).resolve().parents[2]


class Part(Protocol):
    """One part of the stack.

    Attributes:
        name: as in `Stack.start(parts=...)`.
        needs: names of parts that must be healthy before this one is prepared.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]: ...

    def prepare(self) -> None:
        """Whatever must be there before the programs start; quick when it is there already.

        Raises:
            StackError: it cannot be done; the message says what to do.
        """

    def programs(self) -> Sequence[Program]:
        """What to keep running; started side by side."""

    def addresses(self) -> Mapping[str, str]:
        """What a person may want to open: label -> address without secrets."""


def run_once(what: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a set-up command to its end with its output appended to `log`.

    Raises:
        StackError: it failed; the message quotes the end of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        try:
            code = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=processes.with_bytecode(os.environ if env is None else env),
                check=False,
            ).returncode
        except OSError as error:
            raise StackError(f"{what}: {argv[0]} cannot be run: {error.strerror}") from None
    if code:
        tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-12:])
        raise StackError(f"{what} ended with {code}; its log ({log}) ends:\n{tail}")
