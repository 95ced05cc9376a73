"""Many events at once: how long until every draft is written, what is lost or doubled, and what it costs.

Events are posted to the gateway as fast as it takes them and are drained when the last draft is at the FHIR server:
the whole way, both Airflow tasks included. Beside it, in the same Airflow: one run per event, each a single task that
does nothing but note that it ran.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from pipelines.dispatcher.airflow_api import AirflowApi
from tests.bench.accounting import Meter
from tests.bench.figures import Result, Say, main, percentile
from tests.bench.house import HOPS, House, Row, appointments

SIZES = (200, 2_000, 20_000)
SINGLE = "bench.single"
#: Seconds of watching a stack that has nothing to do.
_IDLE = 15
#: Not ours: the fakes' own CPU is what the bar leaves out.
_LEFT_OUT = ("fakes",)

_SINGLE_DAG = """
import time
from airflow.sdk import DAG, BaseOperator

class Note(BaseOperator):
    def execute(self, context):
        with open({file!r}, "a") as out:
            out.write(f"{{time.time()}}\\n")

with DAG({dag!r}, schedule=None, max_active_runs=1000, is_paused_upon_creation=False) as dag:
    Note(task_id="note", do_xcom_push=False)
"""


def bench(quick: bool, say: Say) -> Result:
    """All sizes, and one run per event at the smallest."""
    result = Result("burst")
    with House(say) as house:
        _write_single_dag(house)
        house.await_dags(SINGLE)
        house.warm_up()
        with house.meter() as idle:
            time.sleep(_IDLE)
        result.add("idle, all processes", _total(idle) / _IDLE, "cores")
        result.details["idle"] = {name: round(cpu / _IDLE, 4) for name, cpu in by_process(idle).items()}
        shares = ", ".join(f"{name} {cores:.3f}" for name, cores in result.details["idle"].items())
        result.text += f"  idle, cores: {shares}\n"
        single = _one_run_per_event(house, SIZES[0] if not quick else 50, result, say)
        per_event = {size: _burst(house, size, result, say) for size in (SIZES[:2] if quick else SIZES)}
        drained = next(f.value for f in result.figures if f.name == f"{SIZES[0]:,} events, drained")
        if not quick:
            result.hold("200 events, drained, against one run per event", drained / single, "x", at_most=0.1)
        result.hold("2,000 events, CPU per event", per_event[2_000], "s", at_most=0.02)
        if 20_000 in per_event:
            grows = per_event[20_000] / per_event[2_000]
            result.hold("20,000 events, CPU per event, against 2,000", grows, "x", at_most=1.2)
    return result


def _burst(house: House, size: int, result: Result, say: Say) -> float:
    """One burst; returns CPU seconds per event."""
    tag = f"b{size}"
    events = appointments(tag, size)
    before = house.record()
    with house.meter() as meter:
        began = house.send(events)
        sent = time.time() - began
        rows = house.drain(tag, size)
    after = house.record()
    written = [row for row in rows if row.state == "written"]
    last = {
        hop: max((t for r in written if (t := r.times[hop])), default=began) - began for hop in ("started", "written")
    }
    drained = last["written"] if len(written) == size else float("nan")
    say(f"{size} events: {len(written)} written in {drained:.1f} s")
    name = f"{size:,} events"
    result.hold(
        f"{name}, lost", size - len([e for e in events if f"Appointment/{e}" in after["written"]]), "", at_most=0
    )
    result.hold(f"{name}, doubled", _doubled(after["written"], events), "", at_most=0)
    result.add(f"{name}, last one sent", sent, "s")
    result.add(f"{name}, last one's scenario code begins", last["started"], "s")
    result.add(f"{name}, drained", drained, "s")
    per_event = _total(meter) / size
    result.add(f"{name}, CPU per event", per_event, "s")
    result.add(f"{name}, peak memory of all processes", sum(_ours(meter.peak).values()) / 2**20, "MiB")
    result.details[name] = {
        "runs": len({row.run_id for row in rows}),
        "transactions": after["transactions"] - before["transactions"],
        "recognised": after["recognised"] - before["recognised"],
        "cpu_s_per_event": {name: round(cpu / size, 6) for name, cpu in by_process(meter).items()},
        "peak_mib": {name: round(peak / 2**20) for name, peak in meter.peak.items()},
        "restarted": meter.restarted,
        "hops": hops(written),
    }
    result.text += report(name, result.details[name])
    return per_event


def _doubled(written: Mapping[str, Mapping[str, int]], events: Mapping[str, bytes]) -> int:
    """Events for which a draft of one type was made more than once (triage makes one of each type)."""
    return sum(any(n > 1 for n in written.get(f"Appointment/{event}", {}).values()) for event in events)


def _one_run_per_event(house: House, size: int, result: Result, say: Say) -> float:
    """Airflow's own way of REST; returns the seconds until the last task's code, for 200 runs."""
    api = AirflowApi(house.config.airflow, timeout=60)
    noted = house.folder / "single.txt"
    noted.write_text("")
    house.trigger(api, SINGLE, "warm")
    _await_lines(noted, 1, 60)
    with house.meter() as meter, ThreadPoolExecutor(8) as pool:
        began = time.time()
        list(pool.map(lambda n: house.trigger(api, SINGLE, f"single-{n}"), range(size)))
        lines = _await_lines(noted, size + 1, 300)
    api.close()
    seconds = float(lines[-1]) - began if len(lines) == size + 1 else float("nan")
    say(f"one run per event: {len(lines) - 1} of {size} in {seconds:.1f} s")
    result.add(f"one run per event, {size} runs of an empty task", seconds, "s")
    result.add("one run per event, CPU per event", _total(meter) / size, "s")
    return seconds


def _write_single_dag(house: House) -> None:
    file = str(house.folder / "single.txt")
    (house.dags / "bench_single.py").write_text(_SINGLE_DAG.format(file=file, dag=SINGLE))


def _await_lines(file: Path, number: int, patience: float) -> Sequence[str]:
    end = time.monotonic() + patience
    while len(lines := sorted(file.read_text().splitlines())) < number and time.monotonic() < end:
        time.sleep(0.05)
    return lines


def _ours(each: Mapping[str, int]) -> dict[str, int]:
    return {name: value for name, value in each.items() if name not in _LEFT_OUT}


def _total(meter: Meter) -> float:
    return sum(cpu.total for name, cpu in meter.cpu.items() if name not in _LEFT_OUT)


def by_process(meter: Meter) -> dict[str, float]:
    """CPU seconds by program; Airflow's scheduler split into its own loop, the executor's workers, and the tasks."""
    found = {}
    for name, cpu in meter.cpu.items():
        if name == "scheduler":
            found |= {"scheduler, its loop": cpu.root, "executor's workers": cpu.children, "tasks": cpu.below}
        else:
            found[name] = cpu.total
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def hops(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """p50, p95 and mean of the seconds from each hop to the next, and of the whole."""
    found = {}
    for before, after in (*pairwise(HOPS), (HOPS[0], HOPS[-1])):
        taken = [end - begin for row in rows if (begin := row.times[before]) is not None and (end := row.times[after])]
        if taken:
            name = f"{before} -> {after}"
            found[name] = {"p50": percentile(taken, 50), "p95": percentile(taken, 95), "mean": sum(taken) / len(taken)}
    return found


def report(name: str, details: Mapping[str, Mapping[str, float]]) -> str:
    """CPU and memory by process, and the hops, as text."""
    lines = [f"  {name}: {details['runs']} runs; CPU ms per event, peak MiB"]
    peaks = dict(details["peak_mib"])
    for process, cpu in details["cpu_s_per_event"].items():
        lines.append(f"    {process:<22} {cpu * 1000:8.3f} {peaks.get(process.split(',')[0], ''):>6}")
    lines.append(f"  {name}: seconds from hop to hop, p50 / p95")
    for hop, one in details["hops"].items():
        lines.append(f"    {hop:<24} {one['p50']:8.3f} / {one['p95']:.3f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main("burst", bench))
