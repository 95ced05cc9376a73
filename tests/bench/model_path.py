"""What careloom's model path costs beside the same requests sent straight to the same vLLM, 32 in flight.

Ours: prompt, fence, schema, fleet, session, citations, guards. Straight: the bytes that ours sent, by a bare aiohttp
session. Rounds of the two take turns (ours, straight, straight, ours ...), after one that fills the prefix cache. An
answer that is none is asked for again by ours, as in life; requests are what is counted.
"""

from __future__ import annotations

import asyncio
import json
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

from pipelines.asking import Asking, Spent
from pipelines.config import load
from pipelines.demo.hospital import patients
from pipelines.errors import StepFailed
from pipelines.models.fleet import Fleet
from pipelines.models.openai_chat import body
from pipelines.stack import vllm
from pipelines.stack.environment import Stack
from plugins.manager import load as load_plugins
from plugins.model_backend import ChatAnswer, ChatRequest
from plugins.pre_visit.triage import Triage
from plugins.scenario import Case
from tests.bench.figures import Result, Say, main

IN_FLIGHT = 32
CASES = 64
TURNS = ("ours", "straight", "straight", "ours") * 2
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
            asyncio.run(_measure(stack, TURNS[:4] if quick else TURNS, result, say))
    return result


async def _measure(stack: Stack, turns: Sequence[str], result: Result, say: Say) -> None:
    config = load(stack.config)
    loaded = load_plugins()
    fleet = _Noting(config.registry, loaded.backends)
    asking = Asking(
        fleet, loaded.guards, max_prompt_chars=config.runner.max_prompt_chars, ask=_ask, is_off=_nothing_is_off
    )
    scenario, cases = Triage(), list(_cases(CASES))
    refused = 0

    async def ours() -> None:
        nonlocal refused

        async def one(n: int, case: Case) -> None:
            nonlocal refused
            try:
                await asking(scenario, case, Spent(), request_id=f"bench-{n}")
            except StepFailed:
                refused += 1

        await _side_by_side([partial(one, n, case) for n, case in enumerate(cases)])

    await ours()
    url, bodies = f"{config.model.url}/chat/completions", [_bytes(config.model.name, one) for one in fleet.first]
    say(f"{len(bodies)} prompts of {sum(map(len, bodies)) // len(bodies)} bytes; prefix cache filled")
    seen: dict[str, list[dict[str, float]]] = {"ours": [], "straight": []}
    tokens = 0

    async def straight() -> None:
        nonlocal tokens

        async def one(session: aiohttp.ClientSession, content: bytes) -> None:
            nonlocal tokens
            async with session.post(url, data=content, headers={"content-type": "application/json"}) as answer:
                tokens += orjson.loads(await answer.read())["usage"]["completion_tokens"]

        # a session a round: vLLM closes connections that lie idle while the other way has its turn
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
            await _side_by_side([partial(one, session, content) for content in bodies])

    for turn in turns:
        fleet.asked, fleet.tokens, tokens = 0, 0, 0
        began, cpu = time.perf_counter(), time.process_time()
        await (ours() if turn == "ours" else straight())
        round_ = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        round_ |= {"requests": fleet.asked or len(bodies), "tokens": fleet.tokens or tokens}
        seen[turn].append(round_)
        say(f"{turn}: {round_['requests'] / round_['seconds']:.2f} requests/s")
    await fleet.close()
    _tell(result, seen, refused)


def _tell(result: Result, seen: Mapping[str, Sequence[Mapping[str, float]]], refused: int) -> None:
    rates = {}
    for way, rounds in seen.items():
        sums = {what: sum(one[what] for one in rounds) for what in ("seconds", "cpu", "requests", "tokens")}
        rates[way] = {what: sums[what] / sums["seconds"] for what in ("requests", "tokens")}
        result.add(f"{way}: requests", rates[way]["requests"], "/s")
        result.add(f"{way}: tokens of answers", rates[way]["tokens"], "/s")
        result.add(f"{way}: client's CPU per request", sums["cpu"] / sums["requests"] * 1000, "ms")
    result.add("ours against straight, tokens", rates["ours"]["tokens"] / rates["straight"]["tokens"], "x")
    ratio = rates["ours"]["requests"] / rates["straight"]["requests"]
    result.hold(f"ours against straight, requests, {IN_FLIGHT} in flight", ratio, "x", at_least=0.95)
    result.details = {"rounds": seen, "answers refused by schema or guard, all rounds": refused}


class _Noting(Fleet):
    """The fleet, and what went through it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.first: list[ChatRequest] = []
        self.asked = 0
        self.tokens = 0
        self._known: set[str] = set()

    async def ask(self, model: Any, request: ChatRequest) -> ChatAnswer:
        key = json.dumps(request.messages)
        if key not in self._known:
            self._known.add(key)
            self.first.append(request)
        self.asked += 1
        answer = await super().ask(model, request)
        self.tokens += answer.completion_tokens
        return answer


async def _ask(_: str, question: Callable[[], Awaitable[ChatAnswer]]) -> ChatAnswer:
    return await question()


async def _nothing_is_off(*_: str) -> bool:
    return False


async def _side_by_side(work: Sequence[Callable[[], Awaitable[None]]]) -> None:
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(begin: Callable[[], Awaitable[None]]) -> None:
        async with slots:
            await begin()

    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(one(each))


def _bytes(model: str, request: ChatRequest) -> bytes:
    return orjson.dumps(body(model, request) | {"priority": request.priority})


def _cases(number: int) -> Iterator[Case]:
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
