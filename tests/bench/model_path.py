"""What careloom's model path costs beside the same requests sent straight to the same vLLM, 32 in flight.

Ours: prompt, fence, schema, admission, session, citations, guards. Ours without admission: the same with a gate that
never looks at the server's queue and lets all 32 in; it tells what the rest of the path costs. Straight: the bytes that
ours sent, by a bare aiohttp session. Rounds take turns (there and back again), after one that fills the prefix cache
and lets admission find its limit. An answer that is none is asked for again by ours, as in life; requests are what is
counted. A ratio is of rounds that stand beside each other; the bar is for the median of them.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from pipelines.config import load
from pipelines.demo.hospital import patients
from pipelines.errors import StepFailed
from pipelines.models.fleet import Fleet
from pipelines.models.openai_chat import body
from pipelines.runner.asking import Asking, Spent
from pipelines.stack import vllm
from pipelines.stack.environment import Stack
from plugins.manager import load as load_plugins
from plugins.model_backend import ChatAnswer, ChatRequest
from plugins.pre_visit.triage import Triage
from plugins.scenario import Case
from tests.bench.figures import Result, Say, main

IN_FLIGHT = 32
CASES = 64
OURS, OPEN, STRAIGHT = "ours", "ours without admission", "straight"
TURNS = (OURS, STRAIGHT, OPEN, OPEN, STRAIGHT, OURS) * 3
_COMPLAINTS = (
    "Fever and cough for three days, little sputum",
    "Dull upper abdominal pain for two weeks, worse after meals",
    "Right knee pain for a month, worse on stairs",
    "Itching rash for five days, no difficulty breathing",
)


def bench(quick: bool, say: Say) -> Result:
    """Rounds of both."""
    result = Result("model_path")
    if why_not := vllm.missing():
        result.why_not = why_not
        return result
    with tempfile.TemporaryDirectory(prefix="careloom-bench-", ignore_cleanup_errors=True) as folder:
        overrides = {"locale": "en", "model": {"max_in_flight": IN_FLIGHT}}
        with Stack(Path(folder) / "state", model="vllm", overrides=overrides, say=say) as stack:
            stack.start(["model"])
            asyncio.run(_measure(stack, TURNS[:6] if quick else TURNS, result, say))
    return result


async def _measure(stack: Stack, turns: Sequence[str], result: Result, say: Say) -> None:
    config = load(stack.config)
    loaded = load_plugins()
    scenario, asked = Triage(), list(cases(CASES))
    fleets = {
        OURS: _Noting(config.registry, loaded.backends),
        OPEN: _Noting(config.registry, loaded.backends, _no_look),
    }
    refused = 0

    async def ours(fleet: _Noting) -> None:
        asking = Asking(
            fleet, loaded.guards, max_prompt_chars=config.runner.max_prompt_chars, ask=_ask, is_off=_nothing_is_off
        )

        async def one(n: int, case: Case) -> None:
            nonlocal refused
            try:
                await asking(scenario, case, Spent(), request_id=f"bench-{n}")
            except StepFailed:
                refused += 1

        await side_by_side([partial(one, n, case) for n, case in enumerate(asked)])

    for fleet in fleets.values():
        await ours(fleet)
    straight = _Straight(f"{config.model.url}/chat/completions", config.model.name, fleets[OURS].first)
    say(f"{len(straight.bodies)} prompts of {straight.size} bytes; prefix cache filled")
    seen: dict[str, list[dict[str, float]]] = {OURS: [], OPEN: [], STRAIGHT: []}
    for turn in turns:
        way: _Noting | _Straight = fleets.get(turn, straight)
        way.begin()
        began, cpu = time.perf_counter(), time.process_time()
        await (straight.round() if isinstance(way, _Straight) else ours(way))
        seconds, spent = time.perf_counter() - began, time.process_time() - cpu
        seen[turn].append({"seconds": seconds, "cpu": spent, **way.told()})
        say(f"{turn}: {seen[turn][-1]['requests'] / seconds:.2f} requests/s")
    for fleet in fleets.values():
        await fleet.close()
    _tell(result, seen, refused)


def _tell(result: Result, seen: Mapping[str, Sequence[Mapping[str, float]]], refused: int) -> None:
    for way, rounds in seen.items():
        rates = [one["requests"] / one["seconds"] for one in rounds]
        result.add(f"{way}: requests, median", statistics.median(rates), "/s")
        result.add(f"{way}: requests, least", min(rates), "/s")
        result.add(f"{way}: requests, most", max(rates), "/s")
        cpu = sum(one["cpu"] for one in rounds) / sum(one["requests"] for one in rounds)
        result.add(f"{way}: client's CPU per request", cpu * 1000, "ms")
    result.add(f"{OURS}: limit of admission, mean", statistics.mean(one["limit"] for one in seen[OURS]), "")
    for way in (OURS, OPEN):
        ratios = {
            what: [
                (one[what] / one["seconds"]) / (other[what] / other["seconds"])
                for one, other in zip(seen[way], seen[STRAIGHT], strict=True)
            ]
            for what in ("requests", "tokens")
        }
        result.add(f"{way} against straight, tokens of answers, median", statistics.median(ratios["tokens"]), "x")
        name = f"{way} against straight, requests, {IN_FLIGHT} in flight"
        result.add(f"{name}, least", min(ratios["requests"]), "x")
        result.add(f"{name}, most", max(ratios["requests"]), "x")
        median = statistics.median(ratios["requests"])
        if way == OURS:
            result.hold(f"{name}, median", median, "x", at_least=0.95)
        else:
            result.add(f"{name}, median", median, "x")
    result.details = {"rounds": seen, "answers refused by schema or guard, all rounds": refused}


class _Straight:
    """The same requests without us."""

    def __init__(self, url: str, model: str, requests: Sequence[ChatRequest]) -> None:
        self._url = url
        self.bodies = [_bytes(model, one) for one in requests]
        self.size = sum(map(len, self.bodies)) // len(self.bodies)
        self._tokens = 0

    def begin(self) -> None:
        """A round."""
        self._tokens = 0

    def told(self) -> dict[str, float]:
        """Of the round."""
        return {"requests": len(self.bodies), "tokens": self._tokens}

    async def round(self) -> None:
        """All of them; a session a round: vLLM closes connections that lie idle while the others have their turn."""

        async def one(session: aiohttp.ClientSession, content: bytes) -> None:
            async with session.post(self._url, data=content, headers={"content-type": "application/json"}) as answer:
                self._tokens += orjson.loads(await answer.read())["usage"]["completion_tokens"]

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
            await side_by_side([partial(one, session, content) for content in self.bodies])


class _Noting(Fleet):
    """The fleet, and what went through it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.first: list[ChatRequest] = []
        self._known: set[str] = set()
        self.begin()

    def begin(self) -> None:
        """A round."""
        self._asked = self._tokens = self._limits = 0

    def told(self) -> dict[str, float]:
        """Of the round; the limit as every request found it when it was answered."""
        return {"requests": self._asked, "tokens": self._tokens, "limit": self._limits / max(1, self._asked)}

    async def ask(self, model: Any, request: ChatRequest) -> ChatAnswer:
        key = json.dumps(request.messages)
        if key not in self._known:
            self._known.add(key)
            self.first.append(request)
        answer = await super().ask(model, request)
        self._asked += 1
        self._tokens += answer.completion_tokens
        self._limits += self._open(model).gate.limit
        return answer


async def _no_look(_: Any) -> None:
    """A server that does not say how long its queue is: the gate stays as wide as configured."""


async def _ask(_: str, question: Callable[[], Awaitable[ChatAnswer]]) -> ChatAnswer:
    return await question()


async def _nothing_is_off(*_: str) -> bool:
    return False


async def side_by_side(work: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """All of it, `IN_FLIGHT` at a time."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(begin: Callable[[], Awaitable[None]]) -> None:
        async with slots:
            await begin()

    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(one(each))


def _bytes(model: str, request: ChatRequest) -> bytes:
    return orjson.dumps(body(model, request) | {"priority": request.priority})


def cases(number: int) -> Iterator[Case]:
    """Appointments of the demo's patients, with what their records hold."""
    people = patients()
    for n in range(number):
        records: dict[str, list[dict[str, Any]]] = {}
        for entry in orjson.loads(people[n % len(people)].bundle)["entry"]:
            records.setdefault(entry["resource"]["resourceType"], []).append(entry["resource"])
        (person,) = records["Patient"]
        appointment = {
            "resourceType": "Appointment",
            "id": f"bench-{n}",
            "status": "booked",
            "description": f"{_COMPLAINTS[n // len(people) % len(_COMPLAINTS)]} ({n})",
            "participant": [{"actor": {"reference": f"Patient/{person['id']}"}, "status": "accepted"}],
        }
        found = {query.name: records.get(query.resource_type, [])[: query.cap] for query in Triage.record}
        yield Case(appointment, person, found, "en", datetime.now(UTC))


if __name__ == "__main__":
    sys.exit(main("model_path", bench))
