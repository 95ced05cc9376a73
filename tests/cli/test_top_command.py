"""`careloom top`: what it shows of a real ledger, that it fits a small terminal, and how it begins and ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import Engine, text

from pipelines.cli.top import plain, screen
from pipelines.cli.watching import Sight, Watch
from pipelines.config import Config, load
from pipelines.errors import ErrorClass, LedgerError, StepFailed
from pipelines.ledger import EventRow, Incoming, Inference, Ledger, Match, Position, Written
from plugins import manager
from tests.canary import CANARY
from tests.least_config import write_least_config

TRIAGE = "pre_visit.triage"


@pytest.fixture
def file(ledger_url: str, tmp_path: Path) -> Path:
    return write_least_config(tmp_path, ledger={"url": ledger_url})


@pytest.fixture
def config(file: Path) -> Config:
    return load(file)


@pytest.fixture
def watch(config: Config) -> Iterator[Watch]:
    made = Watch(config, manager.load(), lag=lambda _: 7)
    yield made
    made.close()


def enter(ledger: Ledger, offset: int, patient: str) -> None:
    now, position = datetime.now(UTC), Position("t", 0, offset)
    event = EventRow(f"e{offset}", "h", "R4", "Encounter", f"e{offset}", "1", None, "written", patient, position,
                     now, now)  # fmt: skip
    ledger.record([Incoming(position, event, (Match(TRIAGE, "1", "pre_visit"),))])


@pytest.fixture
def busy(ledger_engine: Engine) -> Ledger:
    """One piece of work written, one dead, one behind it, one ready, and a switch pulled."""
    ledger = Ledger(ledger_engine, max_attempts=1, backoff=1e-9)
    enter(ledger, 0, "p0")
    run = ledger.take_run(TRIAGE, 10)
    assert run
    [item] = ledger.claim(run.run_id, 60)
    ledger.written(ledger.inferred(item, Inference({"drafts": []}, {})), Written(["Flag/1"], 1, 0))
    enter(ledger, 1, "p1")
    run = ledger.take_run(TRIAGE, 10)
    assert run
    [item] = ledger.claim(run.run_id, 60)
    ledger.failed(item, StepFailed(ErrorClass.PAYLOAD_INVALID, "the event is no Encounter"))
    enter(ledger, 2, "p1")
    enter(ledger, 3, "p3")
    ledger.switch_off("model", "m", by="dr-wu", why="a drill")
    return ledger


def lines(sight: Sight, height: int | None = 24, trouble: str = "") -> list[str]:
    console = Console(width=80, height=height or 200, highlight=False)
    with console.capture() as shown:
        console.print(screen(sight, 80, height, trouble))
    return shown.get().splitlines()


def test_it_tells_what_waits_and_why_what_is_dead_how_fast_and_what_is_switched_off(watch: Watch, busy: Ledger) -> None:
    watch.settled(5)
    sight = watch.look()
    shown = lines(sight)
    [row] = [line.split() for line in shown if line.startswith("pre/triage")]
    assert row[1:6] == ["running", "2", "0", "1", "1"]
    assert "100%" in row
    whole = "\n".join(shown)
    assert "lag 7" in whole
    assert "1 of pre/triage wait: an earlier one of its patient is a dead letter" in whole
    assert "switched off: model m, by dr-wu" in whole
    assert "dead: 1 of pre/triage (payload_invalid)" in whole
    assert "airflow: Airflow at http://127.0.0.1:9 does not answer" in whole
    [triage] = [one for one in plain(sight)["scenarios"] if one["scenario"] == TRIAGE]
    assert (triage["waiting"], triage["parked"], triage["objective_met"]) == (2, 1, True)


def test_it_fits_eighty_by_twenty_four_and_says_what_is_left_out(watch: Watch, busy: Ledger) -> None:
    for n in range(30):
        busy.switch_off("model", f"m{n}", by="dr-wu", why="a drill " * 20)
    sight = watch.look()
    shown = lines(sight, trouble="the ledger does not answer " * 10)
    assert len(shown) <= 24
    assert max(map(len, shown)) <= 80
    assert any("more" in line for line in shown)
    assert any(line.startswith("pre/triage") for line in shown)
    assert len(lines(sight, None)) > 40


def test_a_ledger_that_is_down_is_said_and_the_next_look_tries_again(config: Config, busy: Ledger) -> None:
    nowhere = Config.model_validate(
        {**config.model_dump(), "ledger": {"url": "postgresql://nobody@127.0.0.1:9/nothing"}}
    )
    watch = Watch(nowhere, manager.load(), lag=lambda _: None)
    for _ in range(2):
        with pytest.raises(LedgerError, match="the ledger does not answer"):
            watch.look()
    watch.close()


class Terminal:
    """`careloom top` in a terminal of 80 by 24."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "top", "--every", "0.5", *arguments],
            stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"}, start_new_session=True,
        )  # fmt: skip
        self.seen = ""

    def until(self, what: str, seconds: float = 90) -> None:
        give_up = time.monotonic() + seconds
        while what not in self.seen:
            assert time.monotonic() < give_up, self.seen[-2000:]
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")

    def press(self, keys: bytes) -> int:
        os.write(self.master, keys)
        self.until("\x1b[?1049l")  # back from the alternate screen
        code = self.process.wait(30)
        assert termios.tcgetattr(self.slave)[3] == self.before[3]
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def test_in_a_terminal_it_lives_until_q_is_pressed_and_leaves_the_terminal_as_it_was(
    file: Path, busy: Ledger, ledger_engine: Engine
) -> None:
    terminal = Terminal("--config", str(file))
    try:
        terminal.until("pre/triage")
        with ledger_engine.begin() as connection:
            connection.execute(text("DELETE FROM switches"))
        busy.switch_off("model", "m", by="dr-lin", why="another drill")
        terminal.until("dr-lin")
        assert terminal.press(b"q") == 0
    finally:
        terminal.close()


def test_without_a_ledger_it_says_so_and_tries_again_and_once_fails(tmp_path: Path) -> None:
    file = write_least_config(tmp_path)
    terminal = Terminal("--config", str(file))
    try:
        terminal.until("the ledger does not answer")
        terminal.until("tried again every 0.5 s")
        assert terminal.press(b"q") == 0
    finally:
        terminal.close()
    once = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "top", "--once", "--json", "--config", str(file)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert once.returncode == 1
    assert "the ledger does not answer" in once.stderr


def test_where_the_output_is_no_terminal_it_looks_once(file: Path, busy: Ledger) -> None:
    asked = [sys.executable, "-m", "pipelines.cli", "top", "--once", "--json", "--config", str(file)]
    shown = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True)
    whole = json.loads(shown.stdout)
    assert {wait["why"] for wait in whole["waits"]} >= {"behind_parked"}
    assert whole["switches"][0]["by"] == "dr-wu"


def test_a_scenario_for_which_a_run_stays_is_named_though_nothing_of_it_is_done(watch: Watch, busy: Ledger) -> None:
    run = busy.stand("in_visit.icu_watch")
    assert run is not None
    assert busy.stands(run.run_id, 60) == "in_visit.icu_watch"
    sight = watch.look()
    assert [line.strip() for line in lines(sight) if "stay" in line] == ["runs stay for: in/icu_watch"]
    stays = {one["scenario"]: one["staying"] for one in plain(sight)["scenarios"]}
    assert {scenario for scenario, number in stays.items() if number} == {"in_visit.icu_watch"}


def of_a_named_patient(ledger: Ledger) -> None:
    """Work that is written, computed, dead and waiting, with a patient's name wherever the ledger has room for one."""
    now = datetime.now(UTC)
    for offset in range(4):
        position = Position("t", 0, 100 + offset)
        event = EventRow(f"{CANARY}-{offset}", "h", "R4", "Encounter", f"{CANARY}-{offset}", CANARY, None, "written",
                         CANARY if offset > 1 else f"{CANARY}-{offset}", position, now, now)  # fmt: skip
        ledger.record([Incoming(position, event, (Match(TRIAGE, "1", "pre_visit"),))])
    run = ledger.take_run(TRIAGE, 3)
    assert run
    written, computed, dead = ledger.claim(run.run_id, 60)
    drafts = Inference({"drafts": [{"text": CANARY}]}, {}, model="m")
    ledger.written(ledger.inferred(written, drafts), Written([f"Flag/{CANARY}"], 1, 0))
    ledger.inferred(computed, drafts)
    ledger.failed(dead, StepFailed(ErrorClass.PAYLOAD_INVALID, f"of {CANARY}"))


def test_a_patients_name_is_in_nothing_that_it_shows(file: Path, watch: Watch, ledger_engine: Engine) -> None:
    of_a_named_patient(Ledger(ledger_engine, max_attempts=1, backoff=1e-9))
    with ledger_engine.connect() as connection:
        rows = [str(row) for table in ("events", "work") for row in connection.execute(text(f"SELECT * FROM {table}"))]
    assert sum(row.count(CANARY) for row in rows) >= 16, "it is there to be shown"
    sight = watch.look()
    shown = "\n".join(lines(sight, None, trouble="the ledger does not answer"))
    assert "dead: 1 of pre/triage (payload_invalid)" in shown
    whole = json.dumps(plain(sight), ensure_ascii=False)
    asked = [sys.executable, "-m", "pipelines.cli", "top", "--once", "--config", str(file)]
    for told in ([], ["--json"]):
        done = subprocess.run([*asked, *told], capture_output=True, text=True, timeout=120, check=True)
        assert "triage" in done.stdout
        shown += done.stdout + done.stderr
    terminal = Terminal("--config", str(file))
    try:
        terminal.until("pre/triage")
        assert terminal.press(b"q") == 0
    finally:
        terminal.close()
    assert CANARY not in shown + whole + terminal.seen
