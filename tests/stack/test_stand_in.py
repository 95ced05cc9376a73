"""The stand-in speaks the protocol that careloom's model client speaks, and calls itself one in every answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from pipelines.stack.stand_in import NAME, create_app

SCHEMA = {
    "type": "object",
    "properties": {"level": {"enum": ["urgent", "routine"]}, "why": {"type": "string", "maxLength": 200}},
    "required": ["level", "why"],
    "additionalProperties": False,
}
ASKED = {
    "model": NAME,
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How urgent?"}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
}


class Client:
    """Asks the app without a network."""

    def __init__(self) -> None:
        self._transport = httpx.ASGITransport(app=create_app())

    def get(self, path: str) -> httpx.Response:
        return self._send("GET", path)

    def post(self, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._send("POST", "/v1/chat/completions", content=content, headers=headers)

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        import asyncio

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://stand-in") as client:
                return await client.request(method, path, **more)

        return asyncio.run(send())


@pytest.fixture
def client() -> Client:
    return Client()


def test_an_answer_conforms_to_the_schema_and_says_what_it_is(client: Client) -> None:
    answer = client.post(ASKED).json()
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"level": "urgent", "why": "stand-in"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert (answer["model"], answer["system_fingerprint"]) == ("stand-in", "stand-in")
    usage = answer["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def test_text_without_a_schema_says_that_no_model_answers(client: Client) -> None:
    answer = client.post({**ASKED, "response_format": None}).json()
    assert answer["choices"][0]["message"]["content"] == "stand-in: no model answers here"


def test_an_answer_longer_than_its_limit_is_cut_and_says_so(client: Client) -> None:
    choice = client.post({**ASKED, "max_tokens": 2}).json()["choices"][0]
    assert (choice["finish_reason"], len(choice["message"]["content"])) == ("length", 8)


def test_structured_outputs_as_vllm_has_them_are_known(client: Client) -> None:
    body = {**ASKED, "response_format": None, "structured_outputs": {"choice": ["yes", "no"]}}
    assert client.post(body).json()["choices"][0]["message"]["content"] == "yes"


def test_the_request_id_comes_back(client: Client) -> None:
    assert client.post(ASKED, **{"X-Request-Id": "abc"}).headers["x-request-id"] == "abc"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        [],
        {},
        {**ASKED, "messages": []},
        {**ASKED, "model": "gpt"},
        {**ASKED, "stream": True},
        {**ASKED, "response_format": {"type": "json_schema"}},
        {
            **ASKED,
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "x"}}},
        },
    ],
)
def test_what_a_real_server_would_refuse_is_refused_without_an_echo(client: Client, body: Any) -> None:
    answer = client.post(body)
    assert answer.status_code == 400
    assert "How urgent" not in answer.text


def test_it_is_listed_healthy_and_counted_under_its_own_name(client: Client) -> None:
    client.post(ASKED)
    client.post({})
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["stand-in"]
    assert client.get("/health").status_code == 200
    assert client.get("/metrics").text.splitlines()[1:] == [
        'stand_in_requests_total{outcome="answered"} 1',
        'stand_in_requests_total{outcome="refused"} 1',
    ]
