"""`kind = "batch"`: vLLM's offline engine, for post-visit work that can wait: it is started once for many requests.

vLLM 0.32's server has no `/v1/batches`; its batch runner is a program of its own that reads and writes files of JSON
lines in OpenAI's batch format. Starting the engine takes a minute and more, so requests are gathered first. The files
hold patient data: they stand in memory where the system has a place for that, in a folder that only we can read, and
are gone when the engine ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from pipelines.errors import ErrorClass, StepFailed
from pipelines.models.openai_chat import answer_of, body
from pipelines.models.settings import Model
from plugins.model_backend import ChatAnswer, ChatRequest

#: Seconds without a new request after which the gathered ones go.
LINGER = 2.0
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 a folder of our own is made in it

_Waiting = tuple[ChatRequest, "asyncio.Future[ChatAnswer]"]


class VllmBatch:
    """A `ModelBackend` over vLLM's `run_batch`.

    Args:
        config: `options.command` starts the engine, without `-i` and `-o`: for example `[".../bin/python", "-m",
            "vllm.entrypoints.openai.run_batch", "--model", "..."]`; `options.linger` is in seconds. A batch has at most
            `max_in_flight` requests, and `timeout` is for the whole of it, the engine's start included.

    Raises:
        ValueError: there is no `options.command`.
    """

    def __init__(self, config: Model) -> None:
        command = config.options.get("command")
        if not (isinstance(command, list | tuple) and command and all(isinstance(part, str) for part in command)):
            raise ValueError(f"models: {config.name}: options.command must list the program and its arguments")
        self._command: Sequence[str] = tuple(command)
        self._config = config
        self._linger = float(config.options.get("linger", LINGER))
        self._gathered: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._one_engine = asyncio.Lock()
        self._batches: set[asyncio.Task[None]] = set()

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """See `ModelBackend.chat`; a request that is cancelled before its batch goes is left out of it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[ChatAnswer] = loop.create_future()
        self._gathered.append((request, answer))
        if self._timer is not None:
            self._timer.cancel()
        if len(self._gathered) >= self._config.max_in_flight:
            self._go()
        else:
            self._timer = loop.call_later(self._linger, self._go)
        return await answer

    async def close(self) -> None:
        """End the engine; who still waits is cancelled."""
        if self._timer is not None:
            self._timer.cancel()
        for batch in tuple(self._batches):
            batch.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)

    def _go(self) -> None:
        gathered, self._gathered = self._gathered, []
        batch = asyncio.create_task(self._batch(gathered))
        self._batches.add(batch)
        batch.add_done_callback(self._batches.discard)

    async def _batch(self, gathered: Sequence[_Waiting]) -> None:
        """Run one batch; every request gets an answer or a reason."""
        async with self._one_engine:
            open_ = [(request, answer) for request, answer in gathered if not answer.done()]
            failed = StepFailed(ErrorClass.MODEL_UNAVAILABLE, "the batch ended without an answer to this request")
            lines: Mapping[str, ChatAnswer | StepFailed] = {}
            try:
                lines = await self._run([request for request, _ in open_]) if open_ else {}
            except StepFailed as failure:
                failed = failure
            finally:
                for n, (_, answer) in enumerate(open_):
                    outcome = lines.get(str(n), failed)
                    if answer.done():
                        continue
                    if isinstance(outcome, StepFailed):
                        answer.set_exception(outcome)
                    else:
                        answer.set_result(outcome)

    async def _run(self, requests: Sequence[ChatRequest]) -> Mapping[str, ChatAnswer | StepFailed]:
        place = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="careloom-", dir=place) as folder:
            asked, answered = Path(folder) / "in", Path(folder) / "out"
            asked.write_bytes(b"".join(_line(n, self._config.served_name, one) for n, one in enumerate(requests)))
            started = time.monotonic()
            code = await self._engine("-i", str(asked), "-o", str(answered))
            seconds = (time.monotonic() - started) / len(requests)
            if code != 0 or not answered.exists():
                raise StepFailed(
                    ErrorClass.MODEL_UNAVAILABLE,
                    f"the batch engine ended with exit code {code}; run options.command by hand to see why",
                )
            return dict(_read(line, seconds) for line in answered.read_bytes().splitlines() if line.strip())

    async def _engine(self, *files: str) -> int:
        """Its exit code. What it prints may quote prompts and is not kept."""
        nothing = asyncio.subprocess.DEVNULL
        argv = (sys.executable, "-m", "pipelines.models.tethered", *self._command, *files)
        engine = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.PIPE, stdout=nothing, stderr=nothing
        )
        try:
            async with asyncio.timeout(self._config.timeout):
                return await engine.wait()
        except TimeoutError:
            raise StepFailed(
                ErrorClass.MODEL_TIMEOUT, f"the batch was not done within {self._config.timeout:g} s"
            ) from None
        finally:
            if engine.stdin is not None:
                engine.stdin.close()  # lets the tether go: nothing of the engine is left
            await engine.wait()


def _line(n: int, model: str, request: ChatRequest) -> bytes:
    one = {"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": body(model, request)}
    return orjson.dumps(one) + b"\n"


def _read(line: bytes, seconds: float) -> tuple[str, ChatAnswer | StepFailed]:
    """One line of the output: whose answer it is, and the answer or why there is none."""
    unreadable = StepFailed(ErrorClass.MODEL_UNAVAILABLE, "the batch engine wrote something that is no chat completion")
    try:
        said: dict[str, Any] = orjson.loads(line)
        response, whose = said.get("response") or {}, str(said["custom_id"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", unreadable
    status = response.get("status_code")
    if status == 200 and not said.get("error"):
        try:
            return whose, answer_of(response["body"], seconds)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return whose, unreadable
    refused = isinstance(status, int) and 400 <= status < 500
    class_ = ErrorClass.MODEL_REJECTED if refused else ErrorClass.MODEL_UNAVAILABLE
    return whose, StepFailed(class_, f"the batch engine answered {status} to this request")
