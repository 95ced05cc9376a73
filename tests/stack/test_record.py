"""The record of a running stack: one at a time, and a stale one is known for what it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import StackError
from pipelines.stack import record
from pipelines.stack.probes import Probe
from pipelines.stack.status import status

RECORD = record.Record(
    stack_id="0" * 32,
    supervisor=4711,
    started=1.5,
    config="/somewhere/careloom.toml",
    programs={
        "api": record.Running("airflow", 1, 0, 2.5, "log", Probe("heartbeat", "http://127.0.0.1:1/", ("a", "b"))),
        "bare": record.Running("bare", 2, 3, 2.5, "log", None),
    },
    addresses={"UI": "http://127.0.0.1:1"},
    chosen={"broker": "tansu"},
    ready=True,
)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    record.write(tmp_path, RECORD)
    assert record.read(tmp_path) == RECORD


@pytest.mark.parametrize("text", ["", "{", "[]", '{"programs": {}}', '{"programs": {}, "colour": "red"}'])
def test_a_record_that_this_version_did_not_write_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    assert record.read(tmp_path) is None


def test_a_second_stack_in_a_folder_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    hold = record.Hold(tmp_path)
    record.write(tmp_path, RECORD)
    with pytest.raises(StackError, match=r"process 4711 runs a stack in .* already: .*--state DIR"):
        record.Hold(tmp_path)
    assert record.held(tmp_path)
    hold.release()
    hold.release()
    assert not record.held(tmp_path)
    record.Hold(tmp_path).release()


def test_a_folder_is_free_again_when_its_holder_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pipelines.stack.record import Hold\n"
        "hold = Hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    assert record.held(tmp_path)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert not record.held(tmp_path)


def test_status_tells_a_folder_without_a_stack_from_one_whose_stack_was_killed(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"no stack runs in .*: `careloom up` starts one"):
        status(tmp_path)
    record.write(tmp_path, RECORD)
    with pytest.raises(StackError, match="the last one was killed; `careloom up` clears up after it"):
        status(tmp_path)
