"""What an event costs at the gateway: validated and passed through, one in a request and a hundred in a Bundle.

With Synthea's records, as large as they are, and with one small Appointment. Beside it, on the same resources:
fhir.resources validating alone, and kafka-python producing alone with the gateway's
settings. CPU seconds are what is compared: the gateway is one process on one core, and events per CPU second are the
events per second of a core that has nothing else to do.
"""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from fhir_adapters.fhir_models import model_of
from fhir_adapters.plainly_valid import plainly_valid
from pipelines.stack.part import PROJECT
from tests.bench import accounting
from tests.bench.figures import Result, Say, main, percentile
from tests.bench.house import House, appointments

DATA = PROJECT.parent / "shared" / "data" / "synthea"
IN_FLIGHT = 32
TOGETHER = 100
ROUNDS = 3
_SOURCES = {"checked": "reject", "passed": "pass"}
RECORDS = "Synthea's records"
SMALL = "one small Appointment"
_HOWS = {"one a request": 1, f"{TOGETHER} a Bundle": TOGETHER}


def bench(quick: bool, say: Say) -> Result:
    """Rounds of each way, one after the other, so that a busy moment of the machine meets all of them."""
    result = Result("gateway")
    if not DATA.is_dir():
        result.why_not = "../shared/data/synthea is not there"
        return result
    kinds = _kinds(quick)
    result.details["resources"] = {kind: _told(found) for kind, found in kinds.items()}
    for kind, told in result.details["resources"].items():
        say(f"{kind}: {told}")
    sources = [_source(name, validation) for name, validation in _SOURCES.items()]
    with House(say, config={"sources": sources}, parts=("gateway",)) as house:
        for kind, resources in kinds.items():
            _measure(house, kind, resources, 1 if quick else ROUNDS, result, say)
    return result


def _kinds(quick: bool) -> dict[str, list[bytes]]:
    """Whole records as a hospital has them, and the smallest event that a scenario waits for."""
    records = list(synthea())[:: 8 if quick else 1]
    return {RECORDS: records, SMALL: list(appointments("small", len(records) // 2).values())}


def _told(resources: Sequence[bytes]) -> dict[str, float]:
    """Their sizes in bytes, and how many of them fhir.resources is not asked about."""
    sizes = sorted(map(len, resources))
    plain = sum(plainly_valid(orjson.loads(one), "R4") for one in resources)
    return {
        "number": len(sizes),
        "mean": round(sum(sizes) / len(sizes)),
        **{f"p{percent}": percentile(sizes, percent) for percent in (5, 50, 95, 100)},
        "plainly valid": round(plain / len(sizes), 3),
    }


def _measure(house: House, kind: str, resources: Sequence[bytes], rounds: int, result: Result, say: Say) -> None:
    """All ways with one kind of resources."""
    ways = {f"{name}, {how}": (name, many) for name in _SOURCES for how, many in _HOWS.items()}
    for source, many in ways.values():
        _through_gateway(house, source, resources[:400], many)  # imports models, makes connections
    spent: dict[str, list[tuple[float, float]]] = {}
    for n in range(rounds):
        for way, (source, many) in ways.items():
            spent.setdefault(way, []).append(_through_gateway(house, source, resources, many))
        for way in ("fhir.resources alone", "kafka-python alone"):
            spent.setdefault(way, []).append(_alone(way, resources, house.config.kafka.bootstrap))
        say(f"{kind}: round {n + 1} done")
    rates = {way: len(resources) * len(each) / sum(cpu for cpu, _ in each) for way, each in spent.items()}
    for way, rate in rates.items():
        result.add(f"{kind}, {way}: events per CPU second", rate, "/s")
        seconds = sum(wall for _, wall in spent[way])
        result.add(f"{kind}, {way}: events per second as it went", len(resources) * len(spent[way]) / seconds, "/s")
    for how in _HOWS:
        by_round = [
            alone / ours
            for (ours, _), (alone, _) in zip(spent[f"checked, {how}"], spent["fhir.resources alone"], strict=True)
        ]
        name = f"{kind}, validated, {how}, against fhir.resources alone"
        result.hold(name, rates[f"checked, {how}"] / rates["fhir.resources alone"], "x", at_least=0.5)
        result.details[name] = {"of each round": by_round}
    result.details[f"{kind}, seconds"] = {way: {"cpu, wall": each} for way, each in spent.items()}


def _source(name: str, validation: str) -> dict[str, Any]:
    return {
        "name": name,
        "fhir_version": "R4",
        "token": "bench",
        "validation": validation,
        "subscription": "none",
        "reconcile_every": 0,
    }


def synthea() -> Iterator[bytes]:
    """Every resource of the Synthea records, referring to others by type and id, as a server would send it."""
    for file in sorted(DATA.glob("*.json.gz")):
        text = gzip.decompress(file.read_bytes())
        entries = orjson.loads(text)["entry"]
        for entry in entries:
            known = f"{entry['resource']['resourceType']}/{entry['resource']['id']}"
            text = text.replace(f'"{entry["fullUrl"]}"'.encode(), f'"{known}"'.encode())
        for entry in orjson.loads(text)["entry"]:
            yield orjson.dumps(entry["resource"])


def _bodies(resources: Sequence[bytes], many: int) -> Iterator[bytes]:
    if many == 1:
        yield from resources
        return
    for n in range(0, len(resources), many):
        entries = b",".join(b'{"resource":%b}' % one for one in resources[n : n + many])
        yield b'{"resourceType":"Bundle","type":"collection","entry":[%b]}' % entries


def _through_gateway(house: House, source: str, resources: Sequence[bytes], many: int) -> tuple[float, float]:
    """CPU seconds of the gateway, and seconds."""
    url = f"{house.config.gateway.url}/fhir/{source}"
    pid = house.roots()["gateway"]
    before, began = accounting.spent(pid, accounting.look()), time.perf_counter()
    asyncio.run(_post(url, list(_bodies(resources, many))))
    wall = time.perf_counter() - began
    return (accounting.spent(pid, accounting.look()) - before).total, wall


async def _post(url: str, bodies: list[bytes]) -> None:
    headers = {"authorization": "Bearer bench", "content-type": "application/fhir+json"}
    waiting = bodies[::-1]

    async def sender(session: aiohttp.ClientSession) -> None:
        while waiting:
            async with session.post(url, data=waiting.pop()) as answer:
                if answer.status >= 300:
                    raise RuntimeError(f"the gateway answered {answer.status}: {await answer.text()}")

    async with aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(sender(session))


def _alone(way: str, resources: Sequence[bytes], bootstrap: str) -> tuple[float, float]:
    """In a process of its own: what it spent on the work itself, imports and connections left out."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.gateway_rate", way, bootstrap],
        input=b"\n".join(resources),
        capture_output=True,
        check=True,
        cwd=PROJECT,
    )
    cpu, wall = orjson.loads(done.stdout)
    return cpu, wall


def _validate(resources: Sequence[bytes], _: str) -> None:
    for one in resources:
        parsed: Mapping[str, Any] = orjson.loads(one)
        model = model_of(parsed["resourceType"], "R4")
        if model is not None:
            model.model_validate(parsed)


class _Producing:
    """kafka-python with the gateway's settings and a topic of its own."""

    def __init__(self, bootstrap: str) -> None:
        from kafka import KafkaProducer
        from kafka.admin import KafkaAdminClient, NewTopic
        from kafka.errors import TopicAlreadyExistsError

        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        with suppress(TopicAlreadyExistsError):
            admin.create_topics([NewTopic("bench.raw", num_partitions=6, replication_factor=1)])
        admin.close()
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=2, max_request_size=2**24
        )
        self._producer.partitions_for("bench.raw")

    def __call__(self, resources: Sequence[bytes], _: str) -> None:
        sent = [self._producer.send("bench.raw", value=one, key=b"%x" % n) for n, one in enumerate(resources)]
        self._producer.flush()
        for one in sent:
            one.get()


def alone(way: str, bootstrap: str) -> None:
    """What `_alone` starts."""
    resources = sys.stdin.buffer.read().split(b"\n")
    work = _validate if way.startswith("fhir") else _Producing(bootstrap)
    work(resources[:: max(1, len(resources) // 400)], bootstrap)
    cpu, wall = time.process_time(), time.perf_counter()
    work(resources, bootstrap)
    sys.stdout.write(orjson.dumps([time.process_time() - cpu, time.perf_counter() - wall]).decode())


if __name__ == "__main__":
    if len(sys.argv) == 3 and not sys.argv[1].startswith("-"):
        alone(*sys.argv[1:])
    else:
        sys.exit(main("gateway_rate", bench))
