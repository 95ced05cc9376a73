"""A runbook's commands, as they stand on its page, run in the running stack.

A page's fenced commands are run line by line by bash, with only this put in: the ports of this stack for the usual
ones, and for SCENARIO, ID, ... what the fault is about. What a line is to show stands behind it:

    careloom status          # shows: gateway +0 .* not running
    curl -s localhost:1      # ends with: 7

`shows:` is a regular expression that the output has to contain; `ends with:` the exit code where it is not 0.
`careloom status` ends with 1 while something is down, and may.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.stack.part import PROJECT
from tests.fault_table.scaling import windows

RUNBOOKS = PROJECT / "monitoring" / "runbooks"
#: Seconds that one command may take.
PATIENCE = 120

_FENCE = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_SHOWS = re.compile(r"\s+# shows: (.+)$")
_ENDS = re.compile(r"\s+# ends with: (\d+)\b.*$")
_COMMENT = re.compile(r"\s{2,}# .*$")
#: Words of a page that stand for what the fault is about.
PLACEHOLDER = re.compile(r"\b(SCENARIO|EVENT|ID|CLASS|SOURCE|POISON|PID)\b")


@dataclass(frozen=True)
class Command:
    """One line of a page.

    Attributes:
        line: to be run.
        shows: what its output has to contain, or None.
        code: with which it ends.
    """

    line: str
    shows: str | None = None
    code: int = 0


@dataclass
class Step:
    """A command that was run.

    Attributes:
        line: as it stands on the page.
        wrong: what was not as the page says, or None.
    """

    line: str
    code: int
    output: str
    wrong: str | None = None


@dataclass
class CarriedOut:
    """A page that was carried out."""

    page: str
    steps: list[Step] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """What was not as the page says."""
        return [f"{step.line}: {step.wrong}" for step in self.steps if step.wrong]


def commands(page: str, heading: str) -> list[Command]:
    """The fenced commands under one heading of a page's text."""
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for block in _FENCE.findall(section) for line in block.splitlines()]
    return [command(line) for line in lines if line.strip() and not line.startswith("#")]


def command(line: str) -> Command:
    """One line of a page, taken apart."""
    shows, ends = _SHOWS.search(line), _ENDS.search(line)
    bare = _COMMENT.sub("", _ENDS.sub("", _SHOWS.sub("", line)))
    return Command(bare.strip(), shows[1].strip() if shows else None, int(ends[1]) if ends else 0)


def carry_out(
    alert: str,
    heading: str,
    *,
    folder: Path,
    environment: Mapping[str, str],
    addresses: Mapping[str, str],
    words: Mapping[str, str],
    scale: float = 1.0,
) -> CarriedOut:
    """Run the commands under a heading of an alert's page.

    Args:
        alert: whose page.
        heading: "Diagnosis" or "Mitigation".
        folder: where an operator would stand: its `.careloom/stack` is the stack's.
        environment: of the commands.
        addresses: usual host:port -> that of this stack.
        words: placeholder -> what stands for it.
        scale: of the rules; a page's queries look back as far as its rule does.
    """
    done = CarriedOut(alert)
    for one in commands((RUNBOOKS / f"{alert}.md").read_text("utf-8"), heading):
        short = replace(one, line=windows(one.line, scale)) if scale != 1 and one.line.startswith("promtool") else one
        done.steps.append(_run(short, folder, environment, addresses, words))
    return done


def _run(
    command: Command,
    folder: Path,
    environment: Mapping[str, str],
    addresses: Mapping[str, str],
    words: Mapping[str, str],
) -> Step:
    line = put_in(command.line, addresses, words)
    if left := PLACEHOLDER.search(line):
        return Step(command.line, -1, "", f"nothing is known to stand for {left[0]}")
    try:
        ran = subprocess.run(
            ["bash", "-c", line],
            cwd=folder,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Step(command.line, -1, "", f"was not done after {PATIENCE} s")
    output = ran.stdout + ran.stderr
    return Step(command.line, ran.returncode, output, wrong(command, ran.returncode, output, addresses, words))


def put_in(text: str, addresses: Mapping[str, str], words: Mapping[str, str]) -> str:
    """The text with this stack's addresses and this fault's words."""
    for usual, here in addresses.items():
        text = text.replace(usual, here)
    return PLACEHOLDER.sub(lambda found: words.get(found[0], found[0]), text)


def wrong(
    command: Command, code: int, output: str, addresses: Mapping[str, str], words: Mapping[str, str]
) -> str | None:
    """What is not as the page says, or None."""
    allowed = {command.code} | ({1} if command.line.startswith("careloom status") else set())
    if code not in allowed:
        return f"ended with {code}: {output.strip()[-200:]}"
    if command.shows and not re.search(put_in(command.shows, addresses, words), output, re.MULTILINE):
        return f"does not show {command.shows!r}: {output.strip()[:300]}"
    return None
