"""The OpenAI-compatible backend: what it sends, what it bears, and what it makes of each way to fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from fhir_adapters import trace_context
from pipelines.config import Model
from pipelines.errors import ErrorClass, StepFailed
from pipelines.failures.policy import POLICIES, Action, Pace
from pipelines.models.openai_chat import OpenAIChat
from plugins.model_backend import PRIORITIES, ChatAnswer, ChatRequest
from plugins.scenario import Stage
from tests.canary import CANARY

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


def request(**changes: Any) -> ChatRequest:
    values: dict[str, Any] = {
        "messages": [{"role": "system", "content": "Answer."}, {"role": "user", "content": f"R1 {CANARY}"}],
        "schema": SCHEMA,
        "max_tokens": 50,
        "temperature": 0.0,
        "timeout": 5.0,
        "request_id": "careloom-7-abc",
    }
    return ChatRequest(**(values | changes))


def ask(url: str, *requests: ChatRequest, name: str = "fake-model", **config: Any) -> list[ChatAnswer | BaseException]:
    """Send the requests side by side through one backend."""

    async def run() -> list[ChatAnswer | BaseException]:
        backend = OpenAIChat(Model(url=url, name=name, version="1", **config), Pace(0.01, 5.0))
        try:
            return await asyncio.gather(*(backend.chat(r) for r in requests), return_exceptions=True)
        finally:
            await backend.close()

    return asyncio.run(run())


def failure(url: str, asked: ChatRequest | None = None, **config: Any) -> StepFailed:
    (outcome,) = ask(url, asked or request(), **config)
    assert isinstance(outcome, StepFailed)
    assert CANARY not in str(outcome)
    return outcome


def always(response: Any) -> list[Callable[[dict[str, Any]], Any]]:
    return [lambda _: response]


def test_every_server_of_the_contract_answers_with_text_that_fits_the_schema_and_counts_tokens(
    any_model_server: tuple[str, str],
) -> None:
    url, name = any_model_server
    (answer,) = ask(url, request(), name=name)
    assert isinstance(answer, ChatAnswer)
    assert json.loads(answer.text).keys() == {"ok"}
    assert answer.finish_reason == "stop"
    assert answer.model == name
    assert answer.prompt_tokens > 0
    assert answer.completion_tokens > 0
    assert answer.seconds > 0


def test_every_server_of_the_contract_bears_a_priority(any_model_server: tuple[str, str]) -> None:
    url, name = any_model_server
    (answer,) = ask(url, request(priority=10), name=name)
    assert isinstance(answer, ChatAnswer)


def test_the_request_carries_schema_and_an_id_and_no_seed_which_kills_vllm_on_a_cpu(model_server: Any) -> None:
    ask(model_server.url, request(priority=20), api_key="sesame")
    (body,) = model_server.asked
    assert body["model"] == "fake-model"
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (body["max_tokens"], body["temperature"], body["priority"]) == (50, 0.0, 20)
    assert "seed" not in body
    assert model_server.headers[0]["x-request-id"] == "careloom-7-abc-1"
    assert model_server.headers[0]["authorization"] == "Bearer sesame"


def test_the_request_carries_the_trace_context_of_what_is_worked_on_and_none_without(model_server: Any) -> None:
    ask(model_server.url, request())
    token = trace_context.current.set(trace_context.derived("ab" * 32))
    try:
        ask(model_server.url, request())
    finally:
        trace_context.current.reset(token)
    assert [headers.get("traceparent") for headers in model_server.headers] == [
        None,
        f"00-{'ab' * 16}-{'ab' * 8}-00",
    ]


def test_in_visit_goes_before_pre_visit_before_post_visit() -> None:
    assert PRIORITIES[Stage.IN_VISIT] < PRIORITIES[Stage.PRE_VISIT] < PRIORITIES[Stage.POST_VISIT]


def test_a_server_that_refuses_priorities_is_asked_without_one_and_never_again_with_one(model_server: Any) -> None:
    def refuse(body: dict[str, Any]) -> JSONResponse | None:
        return JSONResponse({"error": "priority scheduling is off"}, 400) if "priority" in body else None

    model_server.behaviours = [refuse]

    async def run() -> None:
        backend = OpenAIChat(Model(url=model_server.url, name="fake-model", version="1"))
        for _ in range(2):
            assert (await backend.chat(request(priority=10))).finish_reason == "stop"
        await backend.close()

    asyncio.run(run())
    assert ["priority" in body for body in model_server.asked] == [True, False, False]


def test_a_500_is_retried_and_then_answered(model_server: Any) -> None:
    model_server.behaviours = [lambda _: PlainTextResponse("oops", 500), lambda _: None]
    (answer,) = ask(model_server.url, request())
    assert isinstance(answer, ChatAnswer)
    assert [h["x-request-id"] for h in model_server.headers] == ["careloom-7-abc-1", "careloom-7-abc-2"]


def test_a_500_that_lasts_is_given_up_after_the_configured_attempts(model_server: Any) -> None:
    model_server.behaviours = always(PlainTextResponse(CANARY, 500))
    assert failure(model_server.url, attempts=3).error_class is ErrorClass.MODEL_UNAVAILABLE
    assert len(model_server.asked) == 3


def test_a_503_with_a_long_retry_after_is_not_waited_for_but_handed_to_the_ledger(model_server: Any) -> None:
    model_server.behaviours = always(PlainTextResponse("full", 503, headers={"Retry-After": "30"}))
    failed = failure(model_server.url)
    assert failed.error_class is ErrorClass.MODEL_UNAVAILABLE
    assert failed.retry_after == 30
    assert len(model_server.asked) == 1


def test_a_short_retry_after_is_obeyed(model_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr("pipelines.models.server.asyncio.sleep", noted)
    model_server.behaviours = [lambda _: PlainTextResponse("", 429, headers={"Retry-After": "2"}), lambda _: None]
    (answer,) = ask(model_server.url, request())
    assert isinstance(answer, ChatAnswer)
    assert [wait for wait in waits if wait > 1] == [2.0]


@pytest.mark.parametrize("status", [400, 422])
def test_a_request_that_the_server_does_not_take_is_rejected_without_a_retry(model_server: Any, status: int) -> None:
    model_server.behaviours = always(JSONResponse({"error": {"message": CANARY}}, status))
    failed = failure(model_server.url)
    assert failed.error_class is ErrorClass.MODEL_REJECTED
    assert len(model_server.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_name_is_our_fault_so_the_events_wait(model_server: Any, status: int) -> None:
    model_server.behaviours = always(JSONResponse({}, status))
    failed = failure(model_server.url, attempts=1)
    assert POLICIES[failed.error_class].action is Action.WAIT
    assert "model.name (fake-model)" in str(failed)


def test_an_answer_that_does_not_come_in_time_is_a_timeout_and_frees_the_slot_at_the_server(model_server: Any) -> None:
    model_server.behaviours = always(30.0)

    async def run() -> None:
        backend = OpenAIChat(Model(url=model_server.url, name="fake-model", version="1", max_in_flight=1))
        with pytest.raises(StepFailed) as caught:
            await backend.chat(request(timeout=0.3))
        assert caught.value.error_class is ErrorClass.MODEL_TIMEOUT
        model_server.behaviours = [lambda _: None]
        assert (await backend.chat(request())).finish_reason == "stop"
        for _ in range(200):
            if model_server.cancelled:
                break
            await asyncio.sleep(0.02)
        await backend.close()

    asyncio.run(run())
    assert model_server.cancelled == 1


def test_a_cancelled_call_gives_its_slot_back(model_server: Any) -> None:
    model_server.behaviours = [lambda _: 30.0, lambda _: None]

    async def run() -> None:
        backend = OpenAIChat(Model(url=model_server.url, name="fake-model", version="1", max_in_flight=1))
        task = asyncio.create_task(backend.chat(request()))
        while not model_server.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await backend.chat(request())).finish_reason == "stop"
        await backend.close()

    asyncio.run(run())


def test_a_server_that_is_not_there_is_unavailable() -> None:
    assert failure("http://127.0.0.1:9/v1", attempts=2).error_class is ErrorClass.MODEL_UNAVAILABLE


@pytest.mark.parametrize("body", ["<html>proxy</html>", '{"choices": []}', '{"choices": [{"message"', "[]", "null"])
def test_a_200_that_is_no_chat_completion_counts_as_no_answer(model_server: Any, body: str) -> None:
    model_server.behaviours = always(PlainTextResponse(body))
    assert failure(model_server.url, attempts=1).error_class is ErrorClass.MODEL_UNAVAILABLE


def test_an_answer_that_is_cut_off_says_so(model_server: Any, make_completion: Callable[..., JSONResponse]) -> None:
    model_server.behaviours = always(make_completion("fake-model", '{"ok":', "length"))
    (answer,) = ask(model_server.url, request())
    assert isinstance(answer, ChatAnswer)
    assert answer.finish_reason == "length"
