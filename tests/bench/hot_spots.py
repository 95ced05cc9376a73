"""Where the time and the CPU of a burst of 2,000 go: per process, per hop, and by function in dispatcher and tasks.

py-spy samples from outside 50 times a second and takes only threads that run. It slows the burst, so its times stand in
no other figure; shares are what to read.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.stack.part import PROJECT
from tests.bench import tools
from tests.bench.burst import by_process, hops, report
from tests.bench.figures import Result, Say, main
from tests.bench.house import House, appointments

SIZE = 2_000
RATE = 50
TOP = 15
#: A frame that only processes of one kind have.
_STEPS = {"Carry.execute (": "tasks"}
_REST = "scheduler, executor's workers, and tasks seen too short to tell"
#: What is careloom's own, in the files' names.
_OWN = ("pipelines/", "plugins/", "fhir_adapters/", "monitoring/", "scenario_dags.py")
_PLACE = re.compile(r"^(?P<name>.+) \((?P<file>.+):\d+\)$")

#: Frames from the outermost in, the process before all, and how often they were seen.
Sample = tuple[list[str], int]


def bench(quick: bool, say: Say) -> Result:
    """One burst under py-spy."""
    result = Result("profile")
    size = 400 if quick else SIZE
    try:
        spy = tools.folder("py-spy") / "bin" / "py-spy"
    except tools.Missing as error:
        result.why_not = str(error)
        return result
    kept = PROJECT / ".careloom" / "bench" / "profile"  # speedscope and flamegraph.pl read these
    kept.mkdir(parents=True, exist_ok=True)
    with House(say) as house:
        house.warm_up()
        roots = house.roots()
        watched = {name: kept / f"{name}.txt" for name in ("dispatcher", "scheduler", "gateway", "api-server")}
        spies = [_watch(spy, roots[name], file) for name, file in watched.items()]
        time.sleep(2)
        with house.meter() as meter:
            began = house.send(appointments("p", size))
            rows = house.drain("p", size)
        for one in spies:
            one.send_signal(signal.SIGINT)
        for one in spies:
            one.wait(60)
        say(f"{size} events in {time.time() - began:.0f} s under py-spy")
        details = {
            "runs": len({row.run_id for row in rows}),
            "cpu_s_per_event": {name: round(cpu / size, 6) for name, cpu in by_process(meter).items()},
            "peak_mib": {name: round(peak / 2**20) for name, peak in meter.peak.items()},
            "hops": hops(rows),
        }
        result.details["burst"] = details
        result.text = report(f"{size:,} events, sampled", details)
        for title, stacks in _parts(watched):
            result.text += _top(title, stacks)
    return result


def _watch(spy: Path, pid: int, file: Path) -> subprocess.Popen[bytes]:
    command = (str(spy), "record", "--pid", str(pid), "--subprocesses", "--rate", str(RATE), "--nonblocking")
    return subprocess.Popen(
        (*command, "--format", "raw", "--output", str(file)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _parts(watched: dict[str, Path]) -> Iterator[tuple[str, list[Sample]]]:
    """Title -> samples; the processes of the scheduler's tree are told apart by what they were seen doing."""
    for name, file in watched.items():
        samples = list(_read(file))
        if name == "scheduler":
            yield from _by_step(samples)
        else:
            yield name, samples


def _by_step(samples: list[Sample]) -> Iterator[tuple[str, list[Sample]]]:
    kinds: dict[str, str] = {}
    for stack, _ in samples:
        for mark, title in _STEPS.items():
            if any(frame.startswith(mark) for frame in stack):
                kinds[_process(stack)] = title
    for title in (*_STEPS.values(), _REST):
        yield title, [one for one in samples if kinds.get(_process(one[0]), _REST) == title]


def _process(stack: list[str]) -> str:
    """The one that was sampled: py-spy puts all that it descends from before it."""
    return [frame for frame in stack if frame.startswith("process ")][-1]


def _read(file: Path) -> Iterator[Sample]:
    """py-spy's raw format: frames from the outermost in, and how often they were seen."""
    if not file.exists():
        return
    for line in file.read_text("utf-8", "replace").splitlines():
        frames, _, count = line.rpartition(" ")
        if count.isdigit() and ";" in frames:
            yield frames.split(";"), int(count)


def _top(title: str, stacks: list[Sample]) -> str:
    """The functions that most samples end in, and those that most are inside of."""
    total = sum(count for _, count in stacks)
    if not total:
        return f"  {title}: no samples\n"
    own, inside, ours = Counter[str](), Counter[str](), Counter[str]()
    for stack, count in stacks:
        last = max(n for n, frame in enumerate(stack) if frame.startswith("process "))
        names = [_name(frame) for frame in stack[last + 1 :]] or ["outside Python"]
        own[names[-1]] += count
        for name in set(names):
            (ours if any(part in name for part in _OWN) else inside)[name] += count
    lines = [f"  {title}: {total / RATE:.1f} s seen running"]
    lines += _lines("in the function itself", own.most_common(TOP), total)
    lines += _lines("in a function of careloom's and what it calls", ours.most_common(2 * TOP), total)
    lines += _lines("in any other and what it calls", inside.most_common(TOP) if not ours else (), total)
    return "\n".join(lines) + "\n"


def _lines(title: str, counted: Iterable[tuple[str, int]], total: int) -> list[str]:
    lines = [f"      {100 * count / total:5.1f} %  {name}" for name, count in counted]
    return [f"    {title}:", *lines] if lines else []


def _name(frame: str) -> str:
    found = _PLACE.match(frame)
    return f"{found['name']} ({found['file']})" if found else frame[:60]


if __name__ == "__main__":
    sys.exit(main("profile", bench))
