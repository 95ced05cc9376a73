"""A panel, a KServe server and vLLM's batch engine behind the whole stack: from events to labelled FHIR drafts.

The scenarios are an outside plugin (three_kinds/), built and installed as anybody's would be. The panel is the stack's
own model (vLLM where it is set up) and two that this test answers for, so that they are sure to disagree; KServe is a
real MLServer; the batch engine is vLLM's own where it is set up, else a program that speaks its format.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipelines.config import load
from pipelines.stack import vllm
from pipelines.stack.environment import Stack

pytestmark = [pytest.mark.end_to_end, pytest.mark.long, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
MLSERVER = HERE.parents[1] / ".careloom" / "venvs" / "kserve" / "bin" / "mlserver"
EACH = 4
URGENCIES = ("routine", "soon", "today")
OPINIONS = {"second-llm": "routine", "third-llm": "today"}

#: Reads and writes what vLLM's run_batch does, for a machine without vLLM.
ENGINE = """
import json, sys
asked, answered = sys.argv[2], sys.argv[4]
with open(answered, "w") as out:
    for line in map(json.loads, open(asked)):
        message = {"content": json.dumps({"points": []})}
        body = {"model": line["body"]["model"], "choices": [{"message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        response = {"status_code": 200, "body": body}
        print(json.dumps({"custom_id": line["custom_id"], "response": response, "error": None}), file=out)
"""
SCAN = """
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput

class Scan(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        (pixels,) = [list(i.data) for i in payload.inputs if i.name == "pixels"]
        label = "irregular" if max(pixels) > 100 else "regular"
        outputs = [
            ResponseOutput(name="mean", shape=[1, 1], datatype="FP32", data=[sum(pixels) / len(pixels)]),
            ResponseOutput(name="label", shape=[1], datatype="BYTES", data=[label]),
        ]
        return InferenceResponse(id=payload.id, model_name=self.name, model_version="3", outputs=outputs)
"""


@contextmanager
def opinions() -> Iterator[str]:
    """An OpenAI-compatible server whose two models are sure to differ; its base URL."""

    async def chat(request: Request) -> Response:
        body = json.loads(await request.body())
        said = json.dumps({"urgency": OPINIONS[body["model"]], "points": []})
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return JSONResponse({"model": body["model"], "choices": [choice], "usage": usage})

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


@contextmanager
def mlserver(folder: Path) -> Iterator[str]:
    """A real MLServer with a model of its own; its base URL."""
    if not MLSERVER.exists():
        pytest.skip("MLServer is not set up (.careloom/venvs/kserve); `make setup` sets it up")
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        http, grpc = one.getsockname()[1], other.getsockname()[1]
    folder.mkdir()
    (folder / "scan_model.py").write_text(SCAN)
    model = {"name": "scan", "implementation": "scan_model.Scan", "parameters": {"version": "3"}}
    (folder / "model-settings.json").write_text(json.dumps(model))
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps({**settings, "metrics_endpoint": None, "debug": False}))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(MLSERVER), "start", "."], cwd=folder, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{http}"
        assert seen(lambda: answers(f"{url}/v2/models/scan/ready"), 90), (folder / "log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def engine(folder: Path) -> list[str]:
    """What starts the batch engine: vLLM's own, in its environment."""
    if vllm.missing() is not None:
        program = folder / "engine.py"
        program.write_text(ENGINE)
        return [sys.executable, str(program)]
    own = [f"{name}={value}" for name, value in vllm._env().items()]
    python = str(vllm.ENVIRONMENT / "bin" / "python")
    return [
        *("env", "-u", "PYTHONPATH", "-u", "VIRTUAL_ENV", *own),
        *(python, "-m", "vllm.entrypoints.openai.run_batch", "--model", str(vllm.WEIGHTS)),
        *("--served-model-name", "night", "--dtype", "bfloat16", "--max-model-len", "2048", "--enforce-eager"),
        *("--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})),
    ]


def installed(package: Path, into: Path) -> Path:
    """The package, built and installed into a folder, with its dist-info, as into any environment."""
    copied = into / "source"
    shutil.copytree(package, copied)
    target = into / "site"
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", target, copied]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="careloom-kinds-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        site = installed(HERE / "three_kinds", folder)
        with opinions() as second, mlserver(folder / "mlserver") as scan, pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))
            real = "stand-in" if vllm.missing() else "vllm"
            usual = vllm.NAME if real == "vllm" else "stand-in"
            models: list[dict[str, Any]] = [
                *({"name": name, "url": second, "version": "1"} for name in OPINIONS),
                {"name": "scan", "kind": "kserve", "url": scan, "version": "3", "registration_number": "REG-0042"},
                {"name": "night", "kind": "batch", "version": vllm.VERSION, "timeout": 400.0, "max_in_flight": EACH,
                 "options": {"command": engine(folder), "linger": 3.0}},
                {"name": "board", "kind": "panel", "members": [usual, *OPINIONS]},
            ]  # fmt: skip
            overrides = {
                "plugins": {"enabled": ["three_kinds"]},
                "models": models,
                "routing": {
                    "pre_visit.waiting_list": "board",
                    "in_visit.ecg_reading": "scan",
                    "post_visit.after_procedure": "night",
                },
            }
            with Stack(folder / "state", model=real, overrides=overrides) as stack:
                stack.start()
                yield stack


@pytest.fixture(scope="module")
def hospital(running: Stack) -> Iterator[httpx.Client]:
    (source,) = load(running.config).sources
    assert source.server_token is not None
    headers = {"authorization": f"Bearer {source.server_token.get_secret_value()}", "cache-control": "no-cache"}
    with httpx.Client(base_url=f"{source.base_url}/", headers=headers, timeout=30, trust_env=False) as client:
        client.put("Patient/kinds-1", json={"resourceType": "Patient", "id": "kinds-1"}).raise_for_status()
        yield client


def seen(what: Callable[[], Any], seconds: float = 300.0) -> Any:
    """The first thing that is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.5)
    return None


def drafts(hospital: httpx.Client, kind: str, names: str) -> Callable[[], Any]:
    """Drafts of a type that were written for the events whose ids begin so; None until there is one for each event."""

    def found() -> Any:
        entries = hospital.get(kind, params={"subject": "Patient/kinds-1", "_count": "100"}).json().get("entry", [])
        ours = [e["resource"] for e in entries if names in json.dumps(e["resource"])]
        return ours if len(ours) >= EACH else None

    return found


def counted(stack: Stack, scenario: str) -> float:
    page = httpx.get(stack.kept.url("exporter", "/metrics"), trust_env=False).text.splitlines()
    lines = [line for line in page if line.startswith("careloom_work_finished_total{") and scenario in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def provenance(hospital: httpx.Client, draft: dict[str, Any]) -> str:
    """Provenance of a draft and the Devices that stand at the hospital, as text."""
    target = f"{draft['resourceType']}/{draft['id']}"
    found = hospital.get("Provenance", params={"target": target}).json().get("entry", [])
    assert found, target
    return json.dumps([found, hospital.get("Device", params={"_count": "50"}).json()], ensure_ascii=False)


def test_a_panels_disagreement_stands_in_the_draft(running: Stack, hospital: httpx.Client) -> None:
    for n in range(EACH):
        actor = [{"actor": {"reference": "Patient/kinds-1"}, "status": "accepted"}]
        body = {"resourceType": "Appointment", "id": f"wait-{n}", "status": "waitlist", "participant": actor}
        hospital.put(f"Appointment/wait-{n}", json={**body, "description": "knee pain"}).raise_for_status()
    found = seen(drafts(hospital, "Communication", "Appointment/wait-"))
    assert found, running.log("dispatcher").read_text()[-3000:]
    for draft in found:
        said = [payload["contentString"] for payload in draft["payload"]]
        assert "second-llm: routine" in said
        assert "third-llm: today" in said
        usual = load(running.config).model.name
        assert sum(line in {f"{usual}: {urgency}" for urgency in URGENCIES} for line in said) == 1
        assert any("模型意见不一致" in line and "routine" in line and "today" in line for line in said)
        assert "AIAST" in json.dumps(draft["meta"])
    assert all(name in provenance(hospital, found[0]) for name in OPINIONS)
    assert seen(lambda: counted(running, "pre_visit.waiting_list") == EACH, 30)


def test_samples_go_to_a_kserve_server_and_come_back_as_a_report(running: Stack, hospital: httpx.Client) -> None:
    for n in range(EACH):
        body = {
            "resourceType": "Observation",
            "id": f"ecg-{n}",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "11524-6"}]},
            "subject": {"reference": "Patient/kinds-1"},
            "valueSampledData": {"origin": {"value": 0}, "period": 2, "dimensions": 1, "data": f"1 2 3 {n * 100}"},
        }
        hospital.put(f"Observation/ecg-{n}", json=body).raise_for_status()
    found = seen(drafts(hospital, "DiagnosticReport", "Observation/ecg-"))
    assert found, running.log("dispatcher").read_text()[-3000:]
    expected = {"regular; 1.5", "regular; 26.5", "irregular; 51.5", "irregular; 76.5"}
    assert {report["conclusion"] for report in found} == expected
    assert {report["status"] for report in found} == {"preliminary"}
    assert "REG-0042" in provenance(hospital, found[0])
    assert seen(lambda: counted(running, "in_visit.ecg_reading") == EACH, 30)


def test_work_that_can_wait_is_answered_by_the_batch_engine(running: Stack, hospital: httpx.Client) -> None:
    for n in range(EACH):
        body = {"resourceType": "Procedure", "id": f"done-{n}", "status": "completed"}
        code = {"code": {"text": "Appendectomy"}, "subject": {"reference": "Patient/kinds-1"}}
        hospital.put(f"Procedure/done-{n}", json={**body, **code}).raise_for_status()

    def written() -> Any:
        return counted(running, "post_visit.after_procedure") >= EACH

    assert seen(written, 500), running.log("dispatcher").read_text()[-3000:]
    entries = hospital.get("Communication", params={"subject": "Patient/kinds-1", "_count": "100"}).json()["entry"]
    ours = [e["resource"] for e in entries if "post_visit.after_procedure" in json.dumps(e["resource"])]
    assert len(ours) == EACH
    assert "night" in provenance(hospital, ours[0])
