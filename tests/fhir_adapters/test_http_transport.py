"""httpx over aiohttp's connections behaves as httpx does: what it sends, what it gives back, what it raises."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from fhir_adapters.http_transport import AiohttpTransport

CANARY = "canary-7731"
Answer = Callable[[bytes], Awaitable[bytes | None]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[str, list[bytes], list[object]]]:
    """A server that reads a request up to its end and answers with bytes; None breaks the connection off."""
    asked: list[bytes] = []
    callers: list[object] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
            )
            asked.append(head + await reader.readexactly(length))
            said = await answer(asked[-1])
            if said is None:
                break
            writer.write(said)
        writer.close()

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer.get_extra_info("peername"))
        try:
            await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(quietly, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", asked, callers
    finally:
        server.close()


def with_client(answer: Answer, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]], **options: float):
    async def run() -> tuple[httpx.Response, list[bytes]]:
        async with (
            serving(answer) as (base, asked, _),
            httpx.AsyncClient(transport=AiohttpTransport(), base_url=base, **options) as client,
        ):
            return await ask(client), asked

    return asyncio.run(run())


async def ok(_: bytes) -> bytes:
    return b'HTTP/1.1 201 Created\r\nETag: W/"7"\r\nX: 1\r\nX: 2\r\nContent-Length: 2\r\n\r\n{}'


def test_method_path_headers_and_body_go_out_as_httpx_has_them() -> None:
    answer, asked = with_client(
        ok, lambda c: c.post("/a%7Cb?q=x%7Cy&q=%2B", content=b"body", headers={"If-None-Exist": "i=1", "Accept": "x"})
    )
    head, _, body = asked[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /a%7Cb?q=x%7Cy&q=%2B HTTP/1.1"
    assert body == b"body"
    named = [line.split(b":")[0].lower() for line in lines[1:]]
    assert sorted(set(named)) == sorted(named)
    assert b"if-none-exist: i=1" in head.lower()
    assert b"accept: x" in head.lower()
    assert answer.status_code == 201
    assert answer.headers["etag"] == 'W/"7"'
    assert answer.headers.get_list("x") == ["1", "2"]
    assert answer.json() == {}


def test_connections_are_used_again() -> None:
    async def run() -> int:
        async with (
            serving(ok) as (base, asked, callers),
            httpx.AsyncClient(transport=AiohttpTransport(), base_url=base) as client,
        ):
            for _ in range(3):
                await client.get("/")
            assert len(asked) == 3
            return len(callers)

    assert asyncio.run(run()) == 1


def test_a_packed_answer_is_unpacked_once() -> None:
    packed = gzip.compress(b'{"a":1}')

    async def zipped(_: bytes) -> bytes:
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
        return head.encode() + packed

    answer, _ = with_client(zipped, lambda client: client.get("/"))
    assert answer.json() == {"a": 1}


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async def elsewhere(_: bytes) -> bytes:
        return b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"

    answer, asked = with_client(elsewhere, lambda client: client.get("/"))
    assert (answer.status_code, len(asked)) == (302, 1)


def test_no_server_is_a_connect_error() -> None:
    async def ask() -> None:
        async with httpx.AsyncClient(transport=AiohttpTransport()) as client:
            await client.get(f"http://127.0.0.1:9/{CANARY}")

    with pytest.raises(httpx.ConnectError) as caught:
        asyncio.run(ask())
    assert CANARY not in str(caught.value)


def test_a_connection_that_breaks_off_is_a_transport_error() -> None:
    async def gone(_: bytes) -> None:
        return None

    with pytest.raises(httpx.TransportError) as caught:
        with_client(gone, lambda client: client.get(f"/{CANARY}"))
    assert CANARY not in str(caught.value)


def test_an_answer_that_does_not_come_is_a_read_timeout() -> None:
    async def never(_: bytes) -> bytes:
        await asyncio.sleep(60)
        return b""

    with pytest.raises(httpx.ReadTimeout):
        with_client(never, lambda client: client.get("/"), timeout=0.2)
