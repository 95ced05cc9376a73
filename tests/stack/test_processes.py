"""Processes are found by the marks in their environment."""

from __future__ import annotations

import os
import subprocess
import uuid

from pipelines.stack import processes


def test_only_processes_with_the_whole_mark_are_found() -> None:
    mine, other = uuid.uuid4().hex, uuid.uuid4().hex
    environments = [processes.marks(mine, "a"), processes.marks(mine, "b"), processes.marks(other, "a")]
    started = [subprocess.Popen(["sleep", "60"], env={**os.environ, **env}) for env in environments]
    try:
        assert processes.marked(mine) == sorted(one.pid for one in started[:2])
        assert processes.marked(mine, "b") == [started[1].pid]
        assert processes.marked(mine[:-1]) == []
    finally:
        for one in started:
            one.kill()
            one.wait()
    assert processes.marked(mine) == []


def test_a_zombie_is_not_alive() -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.alive(ended.pid)
    ended.wait()


def test_children_of_children_are_descendants() -> None:
    parent = subprocess.Popen(["sh", "-c", "sh -c 'sleep 60; true' & wait"], start_new_session=True)
    try:
        while len(found := processes.descendants(parent.pid)) < 2:
            pass
        assert all(processes.alive(pid) for pid in found)
    finally:
        os.killpg(parent.pid, 9)
        parent.wait()


def test_bytecode_that_may_not_lie_beside_its_source_is_kept_elsewhere() -> None:
    changed = processes.with_bytecode({"PYTHONDONTWRITEBYTECODE": "1", "A": "b"})
    assert changed["A"] == "b"
    assert "PYTHONDONTWRITEBYTECODE" not in changed
    folder = changed["PYTHONPYCACHEPREFIX"]
    assert processes.with_bytecode(changed) == changed
    told = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "elsewhere"}
    assert processes.with_bytecode(told) == {"PYTHONPYCACHEPREFIX": "elsewhere"}
    assert processes.with_bytecode({"A": "b"}) == {"A": "b"}
    assert folder.endswith(".careloom/pycache")
