"""Ten times the normal load for ten minutes: what is too much waits where it is kept best, and drains by itself."""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

from account import Outcome
from cases import Case
from house import House
from options import Options
from trial import Trial, trial

from pipelines.ledger import State
from pipelines.stack import processes

#: Rows that may wait in the ledger before Kafka is no longer read: few, so that it comes to that.
_MAX_WAITING = 200
#: Events that a system which was away sends at once, in the middle of it: more than the gateway has under way.
_AT_ONCE = 600
#: Connections that it opens for them; the gateway takes 256 requests at a time.
_CONNECTIONS = 400
_SETTINGS = {"dispatcher": {"batch_size": 100, "max_open_runs": 2, "max_waiting": _MAX_WAITING}}


def tenfold(options: Options, say: Callable[[str], None]) -> Iterator[Outcome]:
    """Ten times the normal load: normal is an eighth of what the house was seen to carry, so that it falls behind."""
    with House(settings=_SETTINGS, say=say) as house:
        carried = _capacity(house, 120 if options.quick else 500)
        normal = options.rate or carried / 8
        say(f"  carries {carried:.1f} events/s; normal is {normal:.1f}/s, and now 10 times that")
        name = f"10 times the normal load for {options.seconds:.0f} s"
        patience = 300 + 4 * options.seconds
        with trial(house, options, name, streaming=False, patience=patience) as told, Watch(house) as watch:
            _send(told, options, normal * 10, watch, say)
            told.ended()
        told.outcome.notes.insert(0, f"carries {carried:.1f} events/s unhurried; normal taken as {normal:.1f}/s")
        yield told.outcome


def _send(told: Trial, options: Options, rate: float, watch: Watch, say: Callable[[str], None]) -> None:
    """The stream at that rate, and a crowd in the middle of it."""
    house, began = told.house, time.monotonic()
    house.sender.statuses.clear()
    stream = _Until(house.cases.make(int(options.seconds * rate), seed=options.seed), options, began)
    crowd = house.cases.make(_AT_ONCE, seed=options.seed)
    sending: list[Future[None]] = [house.sender.start(stream, side_by_side=64, every=1 / rate)]
    shown = began
    while not all(one.done() for one in sending):
        time.sleep(0.2)
        if len(sending) == 1 and time.monotonic() - began > options.seconds / 2:
            sending.append(house.sender.start(crowd, side_by_side=_CONNECTIONS))
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            say(f"  {len(house.sender.acknowledgements)} acknowledged; {dict(house.ledger.account().work)}")
            say(f"    {watch.line}")
    for one in sending:
        one.result()
    told.cases += stream.taken + (crowd if len(sending) == 2 else [])
    took = time.monotonic() - began
    refused = {status: count for status, count in sorted(house.sender.statuses.items()) if status >= 300}
    told.outcome.notes += [
        f"offered {len(told.cases) / took:.1f} events/s for {took:.0f} s, {_AT_ONCE} of them at once;"
        f" told to come back: {refused or 'nobody'} (each was acknowledged in the end)",
        watch.line,
    ]


class _Until:
    """Cases one by one, until a person has had enough; knows which it has given."""

    def __init__(self, cases: list[Case], options: Options, began: float) -> None:
        self._cases = cases
        self._over = options.over
        self.taken: list[Case] = []

    def __iter__(self) -> Iterator[Case]:
        for case in self._cases:
            if self._over.is_set():
                return
            self.taken.append(case)
            yield case


def _capacity(house: House, count: int) -> float:
    """Events a second from the first request to the last draft, all sent as fast as they are taken."""
    cases = house.cases.make(count)
    began = time.monotonic()
    house.sender.send(cases, side_by_side=16)
    wanted = [case.event_id for case in cases]
    while True:
        states = house.states(wanted)
        if sum(state == "written" for rows in states.values() for _, state, _ in rows) == count:
            return count / (time.monotonic() - began)
        time.sleep(0.05)


class Watch:
    """What every program holds in memory, how much waits where, and for how long reading was held back.

    Proportional set sizes (PSS): what processes share is divided among them, so that their sum is what they take.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._sizes: dict[str, list[float]] = {}
        self.waiting = self.lag = 0
        self.held = self.looked = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    @property
    def line(self) -> str:
        """Peaks of each third of the time, so that growth is seen."""
        sizes = ", ".join(f"{name} {_thirds(seen)}" for name, seen in sorted(list(self._sizes.items())))
        share = self.held / max(self.looked, 1)
        return (
            f"peak MB by third: {sizes}; in the ledger at most {self.waiting} rows waited (limit {_MAX_WAITING}),"
            f" in Kafka {self.lag} records; reading was held back in {share:.0%} of looks"
        )

    def _look(self) -> None:
        while not self._over.wait(1.0):
            for name, pids in self._programs():
                size = sum(map(_pss, pids))
                if size:
                    self._sizes.setdefault(name, []).append(size)
            with contextlib.suppress(OSError, StopIteration):
                page = self._metrics()
                self.held += _value(page, "careloom_dispatcher_reading_held_back") > 0
                self.looked += 1
                self.lag = max(self.lag, int(_value(page, "careloom_dispatcher_consumer_lag_records")))
            self.waiting = max(self.waiting, self._house.ledger.account().work.get(State.WAITING, 0))

    def _programs(self) -> Iterable[tuple[str, list[int]]]:
        yield from self._house.zygote.pids().items()
        servers = {"postgres": [self._house.postgres], "kafka": self._house.kafka}
        for name, each in servers.items():
            roots = [server.pid for server in each if server.running]
            yield name, [pid for root in roots for pid in (root, *processes.descendants(root))]

    def _metrics(self) -> list[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._house.metrics_ports[0]}/metrics", timeout=5) as page:
            return list(page.read().decode().splitlines())


def _value(page: Iterable[str], name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in page if line.startswith((f"{name} ", f"{name}{{")))


def _thirds(seen: list[float]) -> str:
    size = max(1, -(-len(seen) // 3))
    parts = iter(seen)
    return "/".join(f"{max(part):.0f}" for part in iter(lambda: list(islice(parts, size)), []))


def _pss(pid: int) -> float:
    """MB; 0 for one that has ended."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
    return 0.0
