"""The fleet: one gate a model, plugins' backends beside careloom's own, and every way to fail told as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from pipelines.errors import ErrorClass, StepFailed
from pipelines.models.admission import Depth
from pipelines.models.fleet import BUILT_IN, Fleet
from pipelines.models.settings import PANEL, Model, Registry
from plugins.errors import ModelFailed
from plugins.model_backend import OWN_KINDS, ChatAnswer, ChatRequest
from tests.canary import CANARY


def request(**changes: Any) -> ChatRequest:
    values: dict[str, Any] = {
        "messages": [{"role": "user", "content": CANARY}],
        "schema": {"type": "object", "properties": {}},
        "max_tokens": 5,
        "temperature": 0.0,
        "timeout": 5.0,
        "request_id": "r",
    }
    return ChatRequest(**(values | changes))


def ask(model: Model, *requests: ChatRequest, kinds: Any = None, look: Any = None) -> list[Any]:
    async def silent(_: Model) -> Depth | None:
        return None

    async def run() -> list[Any]:
        fleet = Fleet(Registry(model, (), {}), kinds or {}, look or silent)
        try:
            return await asyncio.gather(*(fleet.ask(model, one) for one in requests), return_exceptions=True)
        finally:
            await fleet.close()

    return asyncio.run(run())


def test_no_more_than_max_in_flight_requests_are_at_the_server(model_server: Any) -> None:
    model_server.behaviours = [lambda _: 0.05]
    model = Model(url=model_server.url, name="fake-model", version="1", max_in_flight=3)
    answers = ask(model, *[request() for _ in range(12)])
    assert all(isinstance(answer, ChatAnswer) for answer in answers)
    assert model_server.most_in_flight == 3


def test_waiting_for_a_place_does_not_count_against_the_timeout(model_server: Any) -> None:
    model_server.behaviours = [lambda _: 0.2]
    model = Model(url=model_server.url, name="fake-model", version="1", max_in_flight=1)
    answers = ask(model, *[request(timeout=1.0) for _ in range(8)])
    assert all(isinstance(answer, ChatAnswer) for answer in answers)


def test_a_crowded_server_is_asked_one_at_a_time(model_server: Any) -> None:
    async def crowded(_: Model) -> Depth:
        return Depth(8, 50, 0.5)

    model_server.behaviours = [lambda _: 0.02]
    model = Model(url=model_server.url, name="fake-model", version="1", max_in_flight=8)
    ask(model, *[request() for _ in range(5)], look=crowded)
    assert (len(model_server.asked), model_server.most_in_flight) == (5, 1)


def test_a_server_knows_its_model_by_another_name_where_that_is_configured(model_server: Any) -> None:
    ask(Model(url=model_server.url, name="ours", served_as="theirs", version="1"), request())
    assert [body["model"] for body in model_server.asked] == ["theirs"]


def test_a_server_without_room_is_unavailable(model_server: Any) -> None:
    model_server.behaviours = [lambda _: PlainTextResponse("full", 503)]
    (failed,) = ask(Model(url=model_server.url, name="fake-model", version="1", attempts=1), request())
    assert failed.error_class is ErrorClass.MODEL_UNAVAILABLE


class Theirs:
    """A plugin's backend that does what a test wants."""

    does: Callable[[], ChatAnswer] = staticmethod(lambda: ChatAnswer("{}", "stop", 1, 2, 0.1, "theirs"))
    closed = 0

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        return type(self).does()

    async def close(self) -> None:
        Theirs.closed += 1


def raising(error: Exception) -> type[Theirs]:
    def does() -> ChatAnswer:
        raise error

    return type("Raising", (Theirs,), {"does": staticmethod(does)})


def test_a_plugins_kind_is_asked_with_its_options_and_closed() -> None:
    seen: list[Any] = []

    def make(settings: Any) -> Theirs:
        seen.append((settings.served_name, settings.options["temperature"], settings.secret))
        return Theirs(settings)

    closed = Theirs.closed
    model = Model(name="x", kind="theirs", version="1", options={"temperature": 3}, api_key="k")
    (answer,) = ask(model, request(), kinds={"theirs": make})
    assert answer.model == "theirs"
    assert seen == [("x", 3, "k")]
    assert Theirs.closed == closed + 1


@pytest.mark.parametrize(
    ("error", "error_class", "retry_after"),
    [
        (ModelFailed("asleep", retry_after=7.0), ErrorClass.MODEL_UNAVAILABLE, 7.0),
        (ModelFailed("slow", kind="timeout"), ErrorClass.MODEL_TIMEOUT, None),
        (ModelFailed("no such input", kind="rejected"), ErrorClass.MODEL_REJECTED, None),
        (ZeroDivisionError(CANARY), ErrorClass.MODEL_UNAVAILABLE, None),
    ],
)
def test_what_a_plugins_backend_raises_is_told_as_a_class_of_error_without_what_was_asked(
    error: Exception, error_class: ErrorClass, retry_after: float | None
) -> None:
    (failed,) = ask(Model(name="x", kind="theirs", version="1"), request(), kinds={"theirs": raising(error)})
    assert isinstance(failed, StepFailed)
    assert (failed.error_class, failed.retry_after) == (error_class, retry_after)
    assert CANARY not in str(failed)


def test_a_backend_that_cannot_be_made_lets_events_wait_and_says_why() -> None:
    (failed,) = ask(Model(name="night", kind="batch", version="1"), request())
    assert failed.error_class is ErrorClass.MODEL_UNAVAILABLE
    assert "options.command" in str(failed)


def test_a_kind_that_nobody_brings_lets_the_events_of_its_model_wait_and_says_what_to_do() -> None:
    (failed,) = ask(Model(name="x", kind="opneai", version="1"), request(), kinds={"theirs": Theirs})
    assert failed.error_class is ErrorClass.MODEL_UNAVAILABLE
    assert "no backend of kind 'opneai' is loaded (there are batch, kserve, openai, theirs)" in str(failed)


def test_the_kinds_that_plugins_may_not_take_are_those_that_there_are() -> None:
    assert {*BUILT_IN, PANEL} == OWN_KINDS


def test_a_batch_is_given_as_many_rows_as_it_takes() -> None:
    night = Model(name="night", kind="batch", version="1", max_in_flight=200, options={"command": ["x"]})
    fleet = Fleet(Registry(Model(name="day", version="1"), (night,), {"post_visit": "night"}))
    assert (fleet.concurrency("post_visit.a", 16), fleet.concurrency("in_visit.a", 16)) == (200, 16)
