"""What our prompts' order is worth to vLLM's prefix cache: one scenario's batch, static text first, last, and behind a
line that no other prompt has.

All three say the same. "ours" is what `plugins.prompting.chat` makes. "static last" has the facts in front of the
instruction; "unique first" has ours behind a line with a number, as a time stamp or a request id in front would be.
Every round has a `cache_salt` of its own, so that it begins with an empty cache; the ways take turns. The ideal is what
a cache without a limit could serve when the prompts come one after the other: of each prompt the whole blocks of the
longest beginning that it has in common with an earlier one of its round, as vLLM's own tokenizer counts.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from pipelines.config import Config, load
from pipelines.models.openai_chat import body
from pipelines.stack import vllm
from pipelines.stack.environment import Stack
from plugins.model_backend import ChatRequest
from plugins.pre_visit.triage import Triage
from plugins.prompting import Message, chat, schema_for
from plugins.scenario import Case
from tests.bench.figures import Result, Say, main
from tests.bench.model_path import IN_FLIGHT, cases, side_by_side

CASES = 64
ROUNDS = 2
BLOCK = 16
"""Tokens of one block of vLLM's cache (`--block-size` on a CPU may differ; the page of metrics says which it is)."""
_COUNTER = re.compile(r"^vllm:prefix_cache_(hits|queries)_total(?:\{[^}]*\})? (\S+)", re.M)
_BLOCK_SIZE = re.compile(r'^vllm:cache_config_info\{.*\bblock_size="(\d+)"', re.M)

Messages = Sequence[Message]


def ours(messages: Messages, _: int) -> list[Message]:
    """As it is."""
    return list(messages)


def static_last(messages: Messages, _: int) -> list[Message]:
    """The facts first; one message, since a chat template puts the system's in front."""
    system, user = messages
    return [{"role": "user", "content": f"{user['content']}\n\n{system['content']}"}]


def unique_first(messages: Messages, number: int) -> list[Message]:
    """A line in front that no other prompt has; digits come first, so that not even one block is shared."""
    system, user = messages
    return [{"role": "system", "content": f"{number:08} is the number of this request.\n{system['content']}"}, user]


WAYS: dict[str, Callable[[Messages, int], list[Message]]] = {
    "ours": ours,
    "static last": static_last,
    "unique first": unique_first,
}


def bench(quick: bool, say: Say) -> Result:
    """Rounds of each way."""
    result = Result("prefix_cache")
    if why_not := vllm.missing():
        result.why_not = why_not
        return result
    with (
        tempfile.TemporaryDirectory(prefix="careloom-bench-", ignore_cleanup_errors=True) as folder,
        Stack(Path(folder) / "state", model="vllm", overrides={"locale": "en"}, say=say) as stack,
    ):
        stack.start(["model"])
        asyncio.run(_measure(load(stack.config), quick, result, say))
    return result


async def _measure(config: Config, quick: bool, result: Result, say: Say) -> None:
    requests = [_request(case, config) for case in cases(24 if quick else CASES)]
    seen: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
        server = _Server(session, config)
        await server.warm_up(requests)
        block = await server.block_size()
        ideal = {way: shared(await server.tokens(way, requests), block) for way in WAYS}
        say(f"{len(requests)} prompts, blocks of {block} tokens; shared by construction: {ideal}")
        for n in range(1 if quick else ROUNDS):
            for way in (*WAYS, *reversed(WAYS)):
                seen[way].append(await server.round(way, requests, f"round-{n}-{way}-{len(seen[way])}"))
                last = seen[way][-1]
                say(f"{way}: {last['requests']:.2f} requests/s, {last['hits'] / last['queries']:.3f} hits")
    _tell(result, seen, ideal)


def _request(case: Case, config: Config) -> ChatRequest:
    """Exactly what the runner asks for this case."""
    scenario = Triage()
    asked = chat(scenario.prompt(case), case, config.runner.max_prompt_chars)
    return ChatRequest(
        messages=asked.messages,
        schema=schema_for(scenario.output_model, asked.tags),
        max_tokens=scenario.max_tokens,
        temperature=scenario.temperature,
        timeout=600,
        request_id="bench",
    )


class _Server:
    """vLLM, asked straight: no gate of ours stands between."""

    def __init__(self, session: aiohttp.ClientSession, config: Config) -> None:
        self._session = session
        self._name = config.model.name
        self._url = config.model.url.removesuffix("/v1")

    async def warm_up(self, requests: Sequence[ChatRequest]) -> None:
        """The first answers take longer: grammars are compiled."""
        await self.round("ours", requests[:IN_FLIGHT], "warm-up")

    async def block_size(self) -> int:
        """Tokens of a block."""
        found = _BLOCK_SIZE.search(await self._page())
        return int(found[1]) if found else BLOCK

    async def tokens(self, way: str, requests: Sequence[ChatRequest]) -> list[list[int]]:
        """The prompts as the model reads them, chat template and all."""
        found = []
        for n, request in enumerate(requests):
            asked = {"model": self._name, "messages": WAYS[way](request.messages, n)}
            answer = await self._post("/tokenize", orjson.dumps(asked))
            found.append(list(answer["tokens"]))
        return found

    async def round(self, way: str, requests: Sequence[ChatRequest], salt: str) -> dict[str, float]:
        """All of them once, with a cache that knows none of them."""
        bodies = [
            orjson.dumps(
                body(self._name, request)
                | {"messages": WAYS[way](request.messages, n), "cache_salt": salt, "priority": request.priority}
            )
            for n, request in enumerate(requests)
        ]
        before, began = await self._counters(), time.perf_counter()
        answers: list[Mapping[str, Any]] = []

        async def one(content: bytes) -> None:
            answers.append(await self._post("/v1/chat/completions", content))

        await side_by_side([partial(one, content) for content in bodies])
        seconds, after = time.perf_counter() - began, await self._counters()
        written = sum(answer["usage"]["completion_tokens"] for answer in answers)
        counted = {name: after[name] - before[name] for name in after}
        return {"seconds": seconds, "requests": len(bodies) / seconds, "tokens": written / seconds, **counted}

    async def _counters(self) -> dict[str, float]:
        return {name: float(value) for name, value in _COUNTER.findall(await self._page())}

    async def _page(self) -> str:
        async with self._session.get(f"{self._url}/metrics") as answer:
            return await answer.text()

    async def _post(self, path: str, content: bytes) -> Any:
        headers = {"content-type": "application/json"}
        async with self._session.post(f"{self._url}{path}", data=content, headers=headers) as answer:
            if answer.status != 200:
                raise RuntimeError(f"vLLM answered {answer.status} at {path}: {await answer.text()}")
            return orjson.loads(await answer.read())


def shared(prompts: Sequence[Sequence[int]], block: int) -> float:
    """Share of all tokens that stand in whole blocks which an earlier prompt began with.

    The last token of a prompt is always worked out anew, so a prompt's last whole block never counts in full.
    """
    served = 0
    for n, prompt in enumerate(prompts):
        longest = max((_common(prompt, earlier) for earlier in prompts[:n]), default=0)
        served += min(longest, len(prompt) - 1) // block * block
    return round(served / sum(map(len, prompts)), 3)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _tell(result: Result, seen: Mapping[str, Sequence[Mapping[str, float]]], ideal: Mapping[str, float]) -> None:
    middle: dict[str, float] = {}
    for way, rounds in seen.items():
        hits = sum(one["hits"] for one in rounds) / sum(one["queries"] for one in rounds)
        result.add(f"{way}: hits, of all tokens of prompts", hits, "")
        result.add(f"{way}: ideal, shared by construction", ideal[way], "")
        middle[way] = _spread(result, f"{way}: requests", [one["requests"] for one in rounds], "/s")
        _spread(result, f"{way}: tokens of answers", [one["tokens"] for one in rounds], "/s")
    for way in ("static last", "unique first"):
        result.add(f"ours against {way}, requests, median", middle["ours"] / middle[way], "x")
    result.details["rounds"] = seen


def _spread(result: Result, name: str, values: Iterable[float], unit: str) -> float:
    """Median, least and most."""
    known = sorted(values)
    result.add(f"{name}, median", statistics.median(known), unit)
    result.add(f"{name}, least", known[0], unit)
    result.add(f"{name}, most", known[-1], unit)
    return statistics.median(known)


if __name__ == "__main__":
    sys.exit(main("prefix_cache", bench))
