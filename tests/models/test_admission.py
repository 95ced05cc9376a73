"""Admission: the most urgent first, no more than the server bears, and room for runs told to the dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pipelines.models.admission import Depth, Follower, Gate, Room, depth, look_at, metrics_url, next_limit
from pipelines.models.settings import Model, Registry

IDLE, BUSY, CROWDED = Depth(0, 0, 0.0), Depth(8, 1, 0.5), Depth(8, 9, 0.9)

#: As vLLM 0.32 writes them, two engines.
PAGE = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="1",model_name="m"} 5.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 70.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
"""


def test_the_queue_is_read_over_all_engines() -> None:
    assert depth(PAGE) == Depth(4.0, 7.0, 0.75)


@pytest.mark.parametrize("page", ["", "<html>", "vllm:num_requests_running 1", "vllm:num_requests_waiting x"])
def test_a_page_that_does_not_say_is_no_queue_of_length_zero(page: str) -> None:
    assert depth(page) is None


def test_metrics_stand_beside_the_api_or_where_the_options_say() -> None:
    assert metrics_url(Model(name="m", version="1", url="http://gpu:8000/v1/")) == "http://gpu:8000/metrics"
    routed = Model(name="m", version="1", options={"metrics": "http://gpu:9000/m"})
    assert metrics_url(routed) == "http://gpu:9000/m"


def test_the_limit_halves_where_a_queue_stands_and_grows_by_one_where_none_does() -> None:
    seen: Sequence[Depth] = (CROWDED, CROWDED, CROWDED, BUSY, BUSY, IDLE)
    limit, limits = 8, []
    for one in seen:
        limit = next_limit(limit, 3, one) if one is IDLE else next_limit(limit, 16, one)
        limits.append(limit)
    assert limits == [4, 2, 1, 2, 3, 3]


def test_a_full_cache_is_a_queue_also_while_nobody_waits() -> None:
    assert Depth(8, 0, 0.96).crowded
    assert not Depth(8, 2, 0.5).crowded


def test_who_is_more_urgent_goes_first_and_the_limit_holds() -> None:
    order: list[str] = []
    most = 0

    async def run() -> None:
        nonlocal most
        gate, inside = Gate(1), 0

        async def one(name: str, priority: int) -> None:
            nonlocal most, inside
            async with gate.inside(priority):
                inside += 1
                most = max(most, inside)
                order.append(name)
                await asyncio.sleep(0.01)
                inside -= 1

        first = asyncio.create_task(one("first", 20))
        await asyncio.sleep(0)
        rest = [asyncio.create_task(one(name, priority)) for name, priority in
                (("post", 20), ("pre", 10), ("in", 0), ("in too", 0))]  # fmt: skip
        await asyncio.gather(first, *rest)

    asyncio.run(run())
    assert order == ["first", "in", "in too", "pre", "post"]
    assert most == 1


def test_who_gives_up_waiting_takes_no_place_and_who_gives_up_inside_gives_it_back() -> None:
    async def run() -> list[str]:
        gate, came = Gate(1), []

        async def one(name: str, seconds: float) -> None:
            async with gate.inside(0):
                came.append(name)
                await asyncio.sleep(seconds)

        inside = asyncio.create_task(one("inside", 60))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(one("waiting", 60))
        last = asyncio.create_task(one("last", 0))
        await asyncio.sleep(0)
        waiting.cancel()
        inside.cancel()
        await last
        await asyncio.gather(inside, waiting, return_exceptions=True)
        async with asyncio.timeout(5), gate.inside(0):
            return came

    assert asyncio.run(run()) == ["inside", "last"]


def test_a_raised_limit_lets_in_who_waits_and_a_lowered_one_throws_nobody_out() -> None:
    async def run() -> list[int]:
        gate, inside, seen = Gate(1), [], []
        release = asyncio.Event()

        async def one() -> None:
            async with gate.inside(0):
                inside.append(1)
                await release.wait()

        tasks = [asyncio.create_task(one()) for _ in range(3)]
        for limit in (1, 3, 1):
            gate.limit = limit
            await asyncio.sleep(0.01)
            seen.append(len(inside))
        release.set()
        await asyncio.gather(*tasks)
        return seen

    assert asyncio.run(run()) == [1, 3, 3]


@pytest.mark.parametrize(("first", "limit"), [(None, 8), (IDLE, 4), (CROWDED, 1)])
def test_a_newcomer_takes_half_of_what_it_might_or_one_where_a_queue_stands(first: Depth | None, limit: int) -> None:
    async def run() -> int:
        gate = Gate(8)

        async def look() -> Depth | None:
            return first

        follower = Follower(gate, 8, look, every=60)
        await follower.started()
        await follower.close()
        return gate.limit

    assert asyncio.run(run()) == limit


def test_a_refusal_for_want_of_room_halves_the_limit_and_looks_raise_it_again() -> None:
    async def run() -> tuple[int, int]:
        gate = Gate(8)

        async def look() -> Depth | None:
            return IDLE

        follower = Follower(gate, 8, look, every=0.001)
        gate.limit = 8
        follower.overloaded()
        halved = gate.limit
        await follower.started()
        async with asyncio.timeout(5):
            while gate.limit < 8:
                await asyncio.sleep(0.001)
        await follower.close()
        return halved, gate.limit

    assert asyncio.run(run()) == (4, 8)


def test_what_a_refusal_took_comes_back_where_the_server_never_says_its_queue() -> None:
    """And where it did say and now does not, as a vLLM too busy for its /metrics, the limit stays."""

    async def limits(patience: float, *seen: Depth | None) -> list[int]:
        looks = iter(seen)
        gate = Gate(8)

        async def look() -> Depth | None:
            return next(looks, None)

        follower = Follower(gate, 8, look, every=0.001)
        await follower.started()
        gate.limit = 8
        follower.overloaded()
        refused = gate.limit
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while gate.limit < 8:
                    await asyncio.sleep(0.001)
        await follower.close()
        return [refused, gate.limit]

    assert asyncio.run(limits(5)) == [4, 8]
    assert asyncio.run(limits(0.1, IDLE)) == [4, 4]


def room(seen: Depth | None, **routing: str) -> Room:
    registry = Registry(Model(name="m", version="1", max_in_flight=8), (Model(name="free", version="1"),), routing)
    deadlines = {"in_visit.a": 60.0, "pre_visit.a": 600.0, "post_visit.a": 3600.0}
    return Room(registry, deadlines, lambda model: IDLE if model.name == "free" else seen)


@pytest.mark.parametrize(("waiting", "held"), [(1, []), (3, ["post_visit.a"]), (9, ["pre_visit.a", "post_visit.a"])])
def test_post_visit_yields_first_then_pre_visit_and_in_visit_never(waiting: float, held: list[str]) -> None:
    asked = room(Depth(8, waiting, 0.5))
    assert [s for s in ("in_visit.a", "pre_visit.a", "post_visit.a") if asked.lacks(s, 1.0)] == held


def test_work_that_has_waited_half_its_deadline_goes_all_the_same() -> None:
    asked = room(CROWDED)
    assert "9 requests wait at model m" in asked.lacks("post_visit.a", 1799.0)
    assert asked.lacks("post_visit.a", 1801.0) == ""


def test_a_scenario_that_is_routed_to_another_model_does_not_wait_for_this_one() -> None:
    assert room(CROWDED, post_visit="free").lacks("post_visit.a", 1.0) == ""


def test_a_server_that_does_not_say_holds_nothing_back() -> None:
    assert room(None).lacks("post_visit.a", 1.0) == ""


def test_one_look_serves_many_questions() -> None:
    looks: list[str] = []

    def look(model: Model) -> Depth:
        looks.append(model.name)
        return IDLE

    asked = Room(Registry(Model(name="m", version="1"), (), {}), {"post_visit.a": 3600.0}, look, keep=60)
    for _ in range(5):
        asked.lacks("post_visit.a", 1.0)
    assert looks == ["m"]


def test_a_real_page_is_looked_at_and_what_is_not_there_is_not_a_queue(serve: Callable[[Starlette], Any]) -> None:
    async def metrics(request: Request) -> PlainTextResponse:
        return PlainTextResponse(PAGE)

    with serve(Starlette(routes=[Route("/metrics", metrics)])) as url:
        assert look_at(Model(name="m", version="1", url=f"{url}/v1")) == Depth(4.0, 7.0, 0.75)
        assert look_at(Model(name="m", version="1", url=f"{url}/elsewhere/v1")) is None
        assert look_at(Model(name="m", version="1", kind="kserve", url=url)) is None
    assert look_at(Model(name="m", version="1", url="http://127.0.0.1:9/v1")) is None
