"""What monitoring costs: the same burst with the exporter, Prometheus and Airflow's StatsD on, and with all of it off.

Two houses, one after the other, each with a warm-up. CPU is the kernel's own sum over every process, so that what the
exporter makes PostgreSQL do is in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tests.bench.burst import by_process
from tests.bench.figures import Result, Say, main
from tests.bench.house import House, appointments

SIZE = 2_000
#: Seconds of watching a stack that has nothing to do.
_IDLE = 20
_LEFT_OUT = ("fakes",)
_WATCHED = ("gateway", "dispatcher", "exporter", "statsd", "prometheus")
_ALONE = ("gateway", "dispatcher")
_NO_STATSD = {"AIRFLOW__METRICS__STATSD_ON": "False"}
#: What monitoring may cost of what an event costs.
_SHARE = 0.15


def bench(quick: bool, say: Say) -> Result:
    """Both houses."""
    size = 200 if quick else SIZE
    result = Result("monitoring_cost")
    totals = {}
    for title, parts, airflow in (("with", _WATCHED, None), ("without", _ALONE, _NO_STATSD)):
        say(f"{title} monitoring")
        with House(say, parts=parts, airflow=airflow) as house:
            house.warm_up()
            with house.meter() as idle:
                time.sleep(_IDLE)
            with house.meter() as meter:
                house.send(appointments("m", size))
                rows = house.drain("m", size)
        written = sum(row.state == "written" for row in rows)
        result.hold(f"{title} monitoring: events not written", size - written, "", at_most=0)
        spent, resting = _sum(by_process(meter)), _sum(by_process(idle)) / _IDLE
        totals[title] = spent / size
        result.add(f"{title} monitoring: CPU per event", totals[title], "s")
        result.add(f"{title} monitoring: idle", resting, "cores")
        result.details[title] = {name: round(cpu / size, 6) for name, cpu in by_process(meter).items()}
        each = ", ".join(f"{name} {cpu * 1000:.3f}" for name, cpu in result.details[title].items())
        result.text += f"  {title} monitoring, CPU ms per event: {each}\n"
    own = sum(result.details["with"].get(name, 0.0) for name in ("exporter", "statsd", "prometheus"))
    result.add("its own processes, CPU per event", own, "s")
    share = (totals["with"] - totals["without"]) / totals["without"]
    result.hold("monitoring, of what an event costs without", share, "", at_most=_SHARE)
    return result


def _sum(each: Mapping[str, float]) -> float:
    return sum(cpu for name, cpu in each.items() if name not in _LEFT_OUT)


if __name__ == "__main__":
    sys.exit(main("monitoring_cost", bench))
