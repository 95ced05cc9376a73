"""The benchmarks' own arithmetic: what forked children use is neither lost nor counted twice."""

from __future__ import annotations

import os
import time

import pytest

from tests.bench import accounting, figures

BURN = 0.3


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))


def in_child(work) -> int:
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def busy_parent(begin: int, done: int) -> None:
    """Waits for a word, then: one child that burns and ends, one below it that does, and its own burning."""
    os.read(begin, 1)

    def child() -> None:
        os.waitpid(in_child(lambda: burn(BURN)), 0)
        burn(BURN)

    os.waitpid(in_child(child), 0)
    burn(BURN)
    os.write(done, b"!")
    os.read(begin, 1)


@pytest.fixture
def parent():
    begin_here, begin = os.pipe()
    done, done_there = os.pipe()
    pid = in_child(lambda: busy_parent(begin_here, done_there))
    yield pid, begin, done
    os.write(begin, b"!")
    os.waitpid(pid, 0)


def test_children_that_came_and_went_between_two_looks_are_counted_once(parent):
    pid, begin, done = parent
    with accounting.Meter(lambda: {"tree": pid}, every=60) as meter:
        os.write(begin, b"!")
        os.read(done, 1)
    used = meter.cpu["tree"]
    assert used.root == pytest.approx(BURN, abs=0.1)
    assert used.below == pytest.approx(2 * BURN, abs=0.1)
    assert used.children == 0
    assert meter.peak["tree"] > 0
    assert meter.restarted == []


def test_a_tree_whose_first_process_is_another_one_at_the_end_is_named():
    pids = iter((os.getpid(), os.getppid()))
    with accounting.Meter(lambda: {"tree": next(pids)}, every=60) as meter:
        pass
    assert meter.restarted == ["tree"]


def test_a_bar_is_judged_and_shown():
    result = figures.Result("b")
    result.hold("too much", 0.5, "s", at_most=0.25)
    result.hold("enough", 2, "/s", at_least=1)
    result.add("plain", 3, "")
    assert figures.verdict([result]) == 1
    shown = figures.table([result])
    assert "DOES NOT HOLD" in shown
    assert shown.count("holds") == 1


def test_percentiles_are_values_that_were_seen():
    assert figures.percentile([3, 1, 2], 50) == 2
    assert figures.percentile(range(1, 101), 95) == 95


def test_what_was_written_is_read_again(tmp_path):
    result = figures.Result("b", text="t")
    result.hold("x", 1.5, "s", at_most=2)
    figures.write(tmp_path / "f.json", [result])
    assert figures.read(tmp_path / "f.json") == [result]
