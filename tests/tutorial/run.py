"""docs/plugins.md followed as a new user would: `make tutorial`, or `python -m tests.tutorial.run [--json FILE]`.

The repository is cloned into an empty folder, and every command block of the document is run there, in its order, in
one shell, as it is written. Nothing is added but the checks between them: what the document promises must be there (the
plugin in `careloom plugins`, its DAG in Airflow, its draft at the hospital, its counter at the exporter; and after it
was taken out no DAG, and its waiting work kept and named). What is committed is what is cloned.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from pipelines.config import Config, load

ROOT = Path(__file__).parents[2]
SCENARIO = "pre_visit.my_scenario"
#: What `careloom up` says when everything runs.
UP = "up; to open:"
PATIENCE = 420.0
_DONE = "__tutorial_done__"


@dataclass
class Report:
    """What came of it.

    Attributes:
        commands: each with its seconds and exit code, in the document's order.
        seen: what was looked for and found, with the seconds it took.
        failures: what did not hold.
        seconds: of all.
    """

    commands: list[tuple[str, float, int]] = field(default_factory=list)
    seen: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Shell:
    """One bash in which the commands are typed, one after the other; all that they say is kept in a file."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._log = log
        self._file = log.open("w", encoding="utf-8")
        self._bash = subprocess.Popen(
            ["bash", "--norc"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip

    def type(self, command: str) -> tuple[int, str]:
        """Run a command; (exit code, what it said)."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{command}\necho {_DONE} $?\n")
        self._bash.stdin.flush()
        said: list[str] = []
        for line in self._bash.stdout:
            before, found, code = line.partition(_DONE)
            said.append(before)
            self._file.write(before)
            self._file.flush()
            if found:
                return int(code), "".join(said)
        raise RuntimeError(f"the shell ended; see {self._log}")

    def close(self) -> None:
        """Leave the shell."""
        if self._bash.stdin is not None:
            self._bash.stdin.close()
        self._bash.wait(60)
        self._file.close()


def commands(document: str) -> list[str]:
    """The lines of the document's command blocks, without their remarks."""
    blocks = re.findall(r"```sh\n(.*?)```", document, re.DOTALL)
    lines = (line.strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


class Tutorial:
    """One run of the document in a clone."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.report = Report()
        self._began = time.monotonic()
        self._shell = Shell(clone, clone.parent / "tutorial.log")
        self._up = clone.parent / "up.log"
        self._up_pid = 0

    def run(self) -> Report:
        """Every command, and what must be seen after it."""
        try:
            for command in commands((self.clone / "docs" / "plugins.md").read_text("utf-8")):
                self._do(command)
                if self.report.failures:
                    break
        finally:
            self._stop()
            self._shell.close()
            self.report.seconds = round(time.monotonic() - self._began, 1)
        return self.report

    def _do(self, command: str) -> None:
        began = time.monotonic()
        say(f"$ {command}")
        if command.startswith("careloom up"):
            code, said = self._in_the_background(command)
        else:
            code, said = self._shell.type(command)
        self.report.commands.append((command, round(time.monotonic() - began, 1), code))
        say(f"  exit code {code} after {time.monotonic() - began:.1f} s")
        last = command == "careloom plugins" and "careloom up --plugin my_scenario" in self._done_before()
        if code != (1 if last else 0):
            self.report.failures.append(f"{command}: exit code {code}: {said[-800:]}")
            return
        self._look_after(command, said, last=last)

    def _done_before(self) -> list[str]:
        return [command for command, _, _ in self.report.commands]

    def _in_the_background(self, command: str) -> tuple[int, str]:
        """`careloom up` in a terminal of its own, until everything runs."""
        self._up.touch()  # the shell may be slower than the first look
        _, said = self._shell.type(f"{command} > {self._up} 2>&1 & echo pid $!")
        self._up_pid = int(re.findall(r"pid (\d+)", said)[0])
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and UP not in self._up.read_text("utf-8"):
            if not Path(f"/proc/{self._up_pid}").exists():
                return 1, self._up.read_text("utf-8")
            time.sleep(0.5)
        text = self._up.read_text("utf-8")
        return (0, text) if UP in text else (1, f"not up after {PATIENCE:g} s: {text}")

    # --- what must be seen --------------------------------------------------------------------------------------------

    def _look_after(self, command: str, said: str, *, last: bool) -> None:
        if command == "careloom plugins" and not last:
            self._must("installed, and not yet enabled", "NOT ENABLED  my_scenario" in said)
        elif command.startswith("careloom up"):
            code, listed = self._shell.type("careloom plugins")
            self._must("in `careloom plugins`, enabled", code == 0 and "enabled      my_scenario" in listed)
            self._wait_for("a DAG in Airflow", lambda: SCENARIO in self._dags())
        elif command.startswith("careloom send") and "careloom switch" not in " ".join(self._done_before()):
            self._wait_for("its labelled Flag at the hospital", self._flag)
            self._wait_for("its work in the metrics", lambda: self._finished() >= 1)
        elif command.startswith("careloom send"):
            self._wait_for("one piece of work that waits", lambda: self._waiting() == 1)
        elif last:
            self._must("gone, and said why", "no entry point 'my_scenario'" in said)
            self._must("its waiting work named", f"1 pieces of work for {SCENARIO}" in said)
            self._wait_for("its DAG gone from Airflow", lambda: SCENARIO not in self._dags())
            self._must("its waiting work kept", self._waiting() == 1)

    def _must(self, what: str, holds: bool) -> None:
        say(f"  {'seen' if holds else 'NOT SEEN'}: {what}")
        if holds:
            self.report.seen[what] = 0.0
        else:
            self.report.failures.append(f"not seen: {what}")

    def _wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            if holds():
                self.report.seen[what] = round(time.monotonic() - began, 1)
                say(f"  seen: {what} (after {self.report.seen[what]} s)")
                return
            time.sleep(1)
        self._must(what, False)

    @property
    def _config(self) -> Config:
        return load(self.clone / ".careloom" / "stack" / "careloom.toml")

    def _dags(self) -> list[str]:
        airflow = self._config.airflow
        with httpx.Client(base_url=airflow.url, timeout=30, trust_env=False) as client:
            login = {"username": airflow.username, "password": airflow.password.get_secret_value()}
            token = client.post("/auth/token", json=login).json()["access_token"]
            found = client.get("/api/v2/dags", params={"limit": 200}, headers={"authorization": f"Bearer {token}"})
            return [dag["dag_id"] for dag in found.json()["dags"]]

    def _flag(self) -> bool:
        (source,) = self._config.sources
        assert source.server_token is not None
        headers = {"authorization": f"Bearer {source.server_token.get_secret_value()}", "cache-control": "no-cache"}
        url = f"{str(source.base_url).rstrip('/')}/Flag"
        found = httpx.get(url, params={"subject": "Patient/p1"}, headers=headers, timeout=30, trust_env=False).json()
        return any("AIAST" in json.dumps(entry["resource"]) for entry in found.get("entry", []))

    def _finished(self) -> float:
        page = self._metrics()
        lines = [line for line in page if line.startswith("careloom_work_finished_total{") and SCENARIO in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def _waiting(self) -> float:
        from sqlalchemy import create_engine, text

        engine = create_engine(self._config.ledger.url.get_secret_value())
        try:
            with engine.connect() as ledger:
                asked = "SELECT count(*) FROM work WHERE scenario = :scenario AND state = 'waiting'"
                return float(ledger.execute(text(asked), {"scenario": SCENARIO}).scalar_one())
        finally:
            engine.dispose()

    def _metrics(self) -> list[str]:
        return httpx.get(
            f"http://127.0.0.1:{self._config.exporter.port}/metrics", trust_env=False, timeout=30
        ).text.splitlines()

    def _stop(self) -> None:
        """Ctrl-C in the other terminal."""
        if not self._up_pid:
            return
        self._shell.type(f"kill -{signal.SIGINT.value} {self._up_pid} && wait {self._up_pid}")
        self._must("Ctrl-C leaves no process", "no process is left" in self._up.read_text("utf-8"))


def say(text: str) -> None:
    """Progress, to the one who waits."""
    print(text, file=sys.stderr, flush=True)


def clone(into: Path) -> Path:
    """What is committed here, in an empty folder, with ../shared beside it where there is one."""
    there = into / "careloom"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(there)], check=True)
    if (ROOT.parent / "shared").is_dir():
        (into / "shared").symlink_to(ROOT.parent / "shared")
    return there


def main() -> int:
    """Exit code 0 when every command and every promise held, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the report into this file")
    parser.add_argument("--keep", action="store_true", help="leave the clone, and say where it is")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="careloom-tutorial-"))
    folder.chmod(0o755)
    report = Tutorial(clone(folder)).run()
    for command, seconds, code in report.commands:
        print(f"{seconds:8.1f} s  {code}  {command}")
    for what, seconds in report.seen.items():
        print(f"{seconds:8.1f} s     seen: {what}")
    print(f"{report.seconds:8.1f} s     from the clean clone to the end")
    if chosen.json:
        chosen.json.write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if report.failures or chosen.keep:
        say(f"kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    for failure in report.failures:
        say(f"tutorial: {failure}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
