"""The batch backend: one start of the engine for many requests, each with its own answer, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import ErrorClass, StepFailed
from pipelines.models.batch import VllmBatch
from pipelines.models.settings import Model
from plugins.model_backend import ChatAnswer, ChatRequest
from tests.canary import CANARY

#: Writes what vLLM 0.32's run_batch writes; how, says the first argument. It notes its own process id and the request.
ENGINE = """
import json, os, sys, time
notes, how, asked, answered = sys.argv[1], sys.argv[2], sys.argv[4], sys.argv[6]
lines = [json.loads(line) for line in open(asked)]
with open(notes, "a") as out:
    print(json.dumps({"pid": os.getpid(), "ids": [line["custom_id"] for line in lines],
                      "bodies": [line["body"] for line in lines],
                      "mode": oct(os.stat(os.path.dirname(asked)).st_mode & 0o777), "file": asked}), file=out)
if how == "hang":
    time.sleep(600)
if how == "fail":
    sys.exit(3)
with open(answered, "w") as out:
    for n, line in reversed(list(enumerate(lines))):
        if how == "forget" and n == 1:
            continue
        response = {"status_code": 200, "request_id": "x", "body": {"model": line["body"]["model"], "choices": [
            {"message": {"content": json.dumps({"n": n, "asked": line["body"]["messages"][0]["content"]})},
             "finish_reason": "stop"}], "usage": {"prompt_tokens": 10 + n, "completion_tokens": 2}}}
        one = {"id": "vllm-1", "custom_id": line["custom_id"], "response": response, "error": None}
        if how == "refuse" and n == 1:
            response |= {"status_code": 400, "body": None}
            one["error"] = {"message": line["body"]["messages"][0]["content"]}
        print("not json" if how == "garble" else json.dumps(one), file=out)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    """`engine(how, **config)` is a backend whose engine behaves so, and the file of its notes."""
    program, notes = tmp_path / "engine.py", tmp_path / "notes"
    program.write_text(ENGINE)

    def make(how: str = "answer", *, linger: float = 0.05, **config: Any) -> tuple[VllmBatch, Path]:
        options = {"command": [sys.executable, str(program), str(notes), how], "linger": linger}
        values = {"name": "night", "kind": "batch", "version": "1", "timeout": 30.0, "options": options} | config
        return VllmBatch(Model(**values)), notes

    return make


def request(n: int) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": f"{CANARY} {n}"}], {"type": "object"}, 5, 0.0, 5.0, f"r{n}", 20)


def ask(backend: VllmBatch, count: int) -> list[Any]:
    async def run() -> list[Any]:
        try:
            return await asyncio.gather(*(backend.chat(request(n)) for n in range(count)), return_exceptions=True)
        finally:
            await backend.close()

    return asyncio.run(run())


def noted(notes: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in notes.read_text().splitlines()]


def test_requests_side_by_side_are_one_start_of_the_engine_and_each_gets_its_own_answer(engine: Any) -> None:
    backend, notes = engine()
    answers = ask(backend, 5)
    assert [json.loads(answer.text)["asked"] for answer in answers] == [f"{CANARY} {n}" for n in range(5)]
    assert [answer.prompt_tokens for answer in answers] == [10, 11, 12, 13, 14]
    (batch,) = noted(notes)
    assert batch["ids"] == ["0", "1", "2", "3", "4"]
    assert batch["bodies"][0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_a_full_batch_goes_without_waiting_for_company(engine: Any) -> None:
    backend, notes = engine(linger=30.0, max_in_flight=3)
    assert all(isinstance(answer, ChatAnswer) for answer in ask(backend, 6))
    assert [len(batch["ids"]) for batch in noted(notes)] == [3, 3]


def test_the_files_stand_in_a_folder_of_our_own_without_a_name_and_are_gone_afterwards(engine: Any) -> None:
    backend, notes = engine()
    ask(backend, 2)
    (batch,) = noted(notes)
    assert batch["mode"] == "0o700"
    assert CANARY not in batch["file"]
    assert not Path(batch["file"]).parent.exists()


@pytest.mark.parametrize(
    ("how", "classes"),
    [
        ("fail", [ErrorClass.MODEL_UNAVAILABLE] * 3),
        ("garble", [ErrorClass.MODEL_UNAVAILABLE] * 3),
        ("forget", [None, ErrorClass.MODEL_UNAVAILABLE, None]),
        ("refuse", [None, ErrorClass.MODEL_REJECTED, None]),
    ],
)
def test_each_request_fails_for_itself_and_no_reason_repeats_what_was_asked(
    engine: Any, how: str, classes: list[ErrorClass | None]
) -> None:
    backend, _ = engine(how)
    outcomes = ask(backend, 3)
    assert [getattr(outcome, "error_class", None) for outcome in outcomes] == classes
    assert CANARY not in " ".join(str(outcome) for outcome in outcomes if isinstance(outcome, StepFailed))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int) -> bool:
    end = time.monotonic() + 20
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def test_an_engine_that_hangs_is_ended_and_the_requests_are_told(engine: Any) -> None:
    backend, notes = engine("hang", timeout=1.5)
    assert [outcome.error_class for outcome in ask(backend, 2)] == [ErrorClass.MODEL_TIMEOUT] * 2
    assert gone(noted(notes)[0]["pid"])


def test_closing_ends_the_engine(engine: Any) -> None:
    backend, notes = engine("hang", timeout=60)

    async def run() -> None:
        task = asyncio.create_task(backend.chat(request(0)))
        while not notes.exists() or not notes.read_text().endswith("\n"):
            await asyncio.sleep(0.02)
        await backend.close()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert gone(noted(notes)[0]["pid"])


def test_an_engine_does_not_outlive_a_worker_that_is_killed(engine: Any, tmp_path: Path) -> None:
    _, notes = engine()
    program = tmp_path / "engine.py"
    script = f"""
import asyncio
from pipelines.models.batch import VllmBatch
from pipelines.models.settings import Model
from plugins.model_backend import ChatRequest
options = {{"command": [{sys.executable!r}, {str(program)!r}, {str(notes)!r}, "hang"], "linger": 0.01}}
backend = VllmBatch(Model(name="night", kind="batch", version="1", timeout=60, options=options))
asyncio.run(backend.chat(ChatRequest([{{"role": "user", "content": "x"}}], {{}}, 5, 0.0, 5.0, "r")))
"""
    worker = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    end = time.monotonic() + 60
    while (not notes.exists() or not notes.read_text().endswith("\n")) and time.monotonic() < end:
        time.sleep(0.05)
    worker.kill()
    worker.wait()
    assert gone(noted(notes)[0]["pid"])


def test_without_a_command_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"options\.command"):
        VllmBatch(Model(name="night", kind="batch", version="1", options={"command": "vllm"}))


VLLM = Path(__file__).parents[2] / ".careloom" / "venvs" / "vllm"
WEIGHTS = Path(__file__).parents[2] / ".careloom" / "models" / "SmolLM2-135M-Instruct"


@pytest.mark.long
def test_vllms_own_engine_answers_by_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (WEIGHTS / "config.json").exists():
        pytest.skip("vLLM and its weights are not set up; `make setup` sets them up")
    from pipelines.stack.vllm import _env

    for name, value in _env().items():
        monkeypatch.setenv(name, value)
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    structured = json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})
    command = [
        str(VLLM / "bin" / "python"), "-m", "vllm.entrypoints.openai.run_batch", "--model", str(WEIGHTS),
        "--served-model-name", "night", "--dtype", "bfloat16", "--max-model-len", "1024", "--enforce-eager",
        "--distributed-executor-backend", "uni", "--structured-outputs-config", structured,
    ]  # fmt: skip
    schema = {
        "type": "object",
        "properties": {"level": {"enum": [1, 2, 3]}},
        "required": ["level"],
        "additionalProperties": False,
    }
    options = {"command": command, "linger": 0.1}
    backend = VllmBatch(Model(name="night", kind="batch", version="1", timeout=280, options=options))

    async def run() -> list[ChatAnswer]:
        messages = [{"role": "user", "content": "How urgent is a cold, 1 to 3?"}]
        asked = [ChatRequest(messages, schema, 20, 0.0, 5.0, f"r{n}") for n in range(12)]
        try:
            return await asyncio.gather(*map(backend.chat, asked))
        finally:
            await backend.close()

    answers = asyncio.run(run())
    assert all(json.loads(answer.text)["level"] in (1, 2, 3) for answer in answers)
    assert all(answer.prompt_tokens > 0 and answer.finish_reason == "stop" for answer in answers)
