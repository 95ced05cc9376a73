"""One step of the set-up: done once, again when its inputs change, its output in a log (standard library only)."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What the set-up makes, beside .venv.
HOME = ROOT / ".careloom"
BEGAN = time.monotonic()


class StepError(Exception):
    """A step failed; the message says what to do."""


def say(step: str, text: str) -> None:
    """One line of progress, with the seconds since the start."""
    print(f"[{time.monotonic() - BEGAN:4.0f} s] {step:<8}{text}", flush=True)


def run(step: str, *command: str | Path, env: dict[str, str] | None = None, limit: float | None = None) -> None:
    """Run a command with its output in .careloom/logs, for `limit` seconds at most.

    Raises:
        StepError: it failed; the message carries the end of its output.
    """
    log = HOME / "logs" / f"bootstrap-{step}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        out.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        out.flush()
        start = out.tell()
        try:
            code = subprocess.run(
                [str(part) for part in command],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                check=False,
                timeout=limit,
            ).returncode
        except subprocess.TimeoutExpired:
            raise StepError(f"{Path(command[0]).name} did not end within {limit:.0f} s") from None
        except OSError as error:
            raise StepError(f"{command[0]} cannot be run: {error.strerror}") from None
    if code:
        tail = "\n".join(log.read_bytes()[start:].decode("utf-8", "replace").splitlines()[-12:])
        raise StepError(f"{Path(command[0]).name} ended with {code}; the whole output is in {log}\n{tail}")


def digest(*inputs: Path | str) -> str:
    """What a step depends on, as one hash."""
    total = hashlib.sha256(platform.python_version().encode())
    for one in inputs:
        total.update(one.read_bytes() if isinstance(one, Path) else one.encode())
        total.update(b"\0")
    return total.hexdigest()


@dataclass(frozen=True)
class Step:
    """One thing to set up.

    Attributes:
        work: does it; raises StepError.
        made: exists when it is done.
        inputs: files and texts that make it necessary again when they change.
        after: steps to wait for, whether they succeed or not.
        needed: whether nothing works without it.
        why_not: why this machine cannot have it, or "".
    """

    name: str
    what: str
    work: Callable[[], None]
    made: Path
    inputs: Sequence[Path | str]
    after: tuple[str, ...] = ()
    needed: bool = False
    why_not: Callable[[], str] = field(default=lambda: "")

    @property
    def stamp(self) -> Path:
        """Where the hash of the inputs is kept once the step is done."""
        return HOME / "stamps" / self.name

    @property
    def excuse(self) -> Path:
        """Where `careloom doctor` reads why the step was not done."""
        return HOME / "stamps" / f"{self.name}.failed"

    def current(self) -> bool:
        """Whether it is done, with these inputs."""
        return self.made.exists() and self.stamp.is_file() and self.stamp.read_text() == digest(*self.inputs)

    def do(self) -> bool:
        """Do it unless it is done; returns whether it is done now."""
        if self.current():
            return True
        self.excuse.unlink(missing_ok=True)
        self.stamp.parent.mkdir(parents=True, exist_ok=True)
        reason = self.why_not()
        if not reason:
            say(self.name, self.what)
            started = time.monotonic()
            try:
                self.work()
            except StepError as error:
                reason = str(error)
        if reason:
            self.excuse.write_text(reason + "\n")
            say(self.name, ("FAILED: " if self.needed else "left out: ") + reason)
            return False
        self.stamp.write_text(digest(*self.inputs))
        say(self.name, f"done in {time.monotonic() - started:.0f} s")
        return True
