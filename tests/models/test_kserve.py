"""The Open Inference Protocol: its published example on a fake, and one contract on the fake and on MLServer."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipelines.errors import ErrorClass, StepFailed
from pipelines.models.kserve import KServe, ModelMetadata, TensorMetadata
from pipelines.models.settings import Model
from plugins.model_backend import ChatAnswer, ChatRequest
from plugins.tensors import Tensor
from tests.canary import CANARY

MLSERVER = Path(__file__).parents[2] / ".careloom" / "venvs" / "kserve" / "bin" / "mlserver"

#: Answers like the fake below: the mean of the pixels, each of them, and what it thinks that it sees.
MODEL = """
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput

class Scan(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        (pixels,) = [list(i.data) for i in payload.inputs if i.name == "pixels"]
        outputs = [
            ResponseOutput(name="mean", shape=[1, 1], datatype="FP32", data=[sum(pixels) / len(pixels)]),
            ResponseOutput(name="scores", shape=[1, len(pixels)], datatype="FP32", data=pixels),
            ResponseOutput(name="label", shape=[1], datatype="BYTES", data=["nodule"]),
        ]
        wanted = [o.name for o in payload.outputs or []]
        return InferenceResponse(id=payload.id, model_name=self.name, model_version="3",
                                 outputs=[o for o in outputs if not wanted or o.name in wanted])
"""
SCHEMA = {
    "type": "object",
    "properties": {
        "mean": {"type": "number"},
        "scores": {"type": "array", "items": {"type": "number"}},
        "label": {"enum": ["nodule", "clear"]},
    },
}


def request(*tensors: Tensor, schema: Any = None, **changes: Any) -> ChatRequest:
    values: dict[str, Any] = {
        "messages": [{"role": "user", "content": CANARY}],
        "schema": schema or SCHEMA,
        "max_tokens": 1,
        "temperature": 0.0,
        "timeout": 10.0,
        "request_id": "careloom-7",
        "tensors": tensors or (Tensor("pixels", (1, 4), "FP32", (0.0, 0.5, 0.5, 1.0)),),
    }
    return ChatRequest(**(values | changes))


class FakeServer:
    """Answers as MLServer does with the model above, or as a test says; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answer: Callable[[dict[str, Any]], Response] = self.scan

    def scan(self, body: dict[str, Any]) -> Response:
        pixels = body["inputs"][0]["data"]
        outputs = {
            "mean": ([1, 1], "FP32", [sum(pixels) / len(pixels)]),
            "scores": ([1, len(pixels)], "FP32", pixels),
            "label": ([1], "BYTES", ["nodule"]),
        }
        given = [
            {"name": o["name"], "shape": outputs[o["name"]][0], "datatype": outputs[o["name"]][1],
             "data": outputs[o["name"]][2]}
            for o in body["outputs"]
        ]  # fmt: skip
        return JSONResponse({"id": body["id"], "model_name": "scan", "model_version": "3", "outputs": given})

    async def infer(self, request: Request) -> Response:
        self.paths.append(request.url.path)
        self.asked.append(json.loads(await request.body()))
        if "scan" not in request.url.path:
            return JSONResponse({"error": "no such model"}, 404)
        return self.answer(self.asked[-1])

    def app(self) -> Starlette:
        async def metadata(request: Request) -> Response:
            tensors = [{"name": "pixels", "datatype": "FP32", "shape": [-1, 4]}]
            return JSONResponse(
                {"name": "scan", "versions": ["3"], "platform": "fake", "inputs": tensors, "outputs": []}
            )

        async def ready(request: Request) -> Response:
            return JSONResponse({"name": "scan", "ready": True})

        return Starlette(
            routes=[
                Route("/v2/models/{name}/infer", self.infer, methods=["POST"]),
                Route("/v2/models/{name}/versions/{version}/infer", self.infer, methods=["POST"]),
                Route("/v2/models/scan", metadata),
                Route("/v2/models/scan/ready", ready),
            ]
        )


@pytest.fixture
def fake(serve: Callable[[Starlette], Any]) -> Iterator[tuple[FakeServer, str]]:
    server = FakeServer()
    with serve(server.app()) as url:
        yield server, url


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not MLSERVER.exists():
        pytest.skip("MLServer is not set up (.careloom/venvs/kserve); `make setup` sets it up")
    folder = tmp_path_factory.mktemp("mlserver") / "scan"
    folder.mkdir()
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        http, grpc = one.getsockname()[1], other.getsockname()[1]
    (folder / "scan_model.py").write_text(MODEL)
    metadata = {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 4]}], "platform": "python"}
    (folder / "model-settings.json").write_text(
        json.dumps({"name": "scan", "implementation": "scan_model.Scan", "parameters": {"version": "3"}, **metadata})
    )
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps({**settings, "metrics_endpoint": None, "debug": False}))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(MLSERVER), "start", "."], cwd=folder, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, "MLServer did not get ready"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/models/scan/ready", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{http}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(params=["fake", "mlserver"])
def any_server(request: pytest.FixtureRequest) -> str:
    """Base URL of each server that is held to the same contract."""
    found = request.getfixturevalue(request.param)
    return str(found if request.param == "mlserver" else found[1])


def with_backend(url: str, use: Callable[[KServe], Any], **config: Any) -> Any:
    async def run() -> Any:
        backend = KServe(Model(**({"url": url, "name": "scan", "kind": "kserve", "version": "3"} | config)))
        try:
            return await use(backend)
        finally:
            await backend.close()

    return asyncio.run(run())


def failure(url: str, asked: ChatRequest | None = None, **config: Any) -> StepFailed:
    with pytest.raises(StepFailed) as failed:
        with_backend(url, lambda backend: backend.chat(asked or request()), **config)
    assert CANARY not in str(failed.value)
    return failed.value


def test_tensors_go_in_and_the_asked_outputs_come_out_as_fields(any_server: str) -> None:
    answer = with_backend(any_server, lambda backend: backend.chat(request()))
    assert isinstance(answer, ChatAnswer)
    assert json.loads(answer.text) == {"mean": 0.5, "scores": [0.0, 0.5, 0.5, 1.0], "label": "nodule"}
    assert (answer.finish_reason, answer.model) == ("stop", "scan")
    assert answer.seconds > 0


def test_an_output_of_one_element_stays_a_list_where_the_scenario_takes_a_list(any_server: str) -> None:
    one = request(Tensor("pixels", (1, 1), "FP32", (0.5,)))
    answer = with_backend(any_server, lambda backend: backend.chat(one))
    assert json.loads(answer.text)["scores"] == [0.5]


def test_a_server_says_what_its_model_takes_and_whether_it_is_ready(any_server: str) -> None:
    metadata = with_backend(any_server, lambda backend: backend.metadata())
    assert isinstance(metadata, ModelMetadata)
    assert (metadata.name, metadata.inputs) == ("scan", (TensorMetadata("pixels", "FP32", (-1, 4)),))
    assert with_backend(any_server, lambda backend: backend.ready()) is True
    assert with_backend(any_server, lambda backend: backend.ready(), name="nobody") is False


def test_a_model_that_the_server_does_not_know_is_our_fault_so_the_events_wait(any_server: str) -> None:
    assert failure(any_server, name="nobody", attempts=1).error_class is ErrorClass.MODEL_UNAVAILABLE


def test_the_published_example_of_a_request_and_its_response(fake: tuple[FakeServer, str]) -> None:
    """Open Inference Protocol, inference_rest.md, "Inference Request Examples". The published second input has a shape
    of three and one element, and the response no model_name; the shape is ours to get right, the name we do without."""
    server, url = fake
    server.answer = lambda body: JSONResponse(
        {"id": body["id"], "outputs": [{"name": "output0", "shape": [3, 2], "datatype": "FP32",
                                        "data": [1.0, 1.1, 2.0, 2.1, 3.0, 3.1]}]}
    )  # fmt: skip
    tensors = Tensor("input0", (2, 2), "UINT32", (1, 2, 3, 4)), Tensor("input1", (1,), "BOOL", (True,))
    schema = {"type": "object", "properties": {"output0": {"type": "array"}}}
    answer = with_backend(url, lambda backend: backend.chat(request(*tensors, schema=schema)))
    assert server.asked == [
        {
            "id": "careloom-7-1",
            "inputs": [
                {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]},
                {"name": "input1", "shape": [1], "datatype": "BOOL", "data": [True]},
            ],
            "outputs": [{"name": "output0"}],
        }
    ]
    assert json.loads(answer.text) == {"output0": [1.0, 1.1, 2.0, 2.1, 3.0, 3.1]}
    assert CANARY not in json.dumps(server.asked)


def test_a_version_of_the_model_is_in_the_path_where_it_is_configured(fake: tuple[FakeServer, str]) -> None:
    server, url = fake
    with_backend(url, lambda backend: backend.chat(request()), options={"model_version": 3})
    assert server.paths == ["/v2/models/scan/versions/3/infer"]


def test_nested_data_is_the_same_tensor(fake: tuple[FakeServer, str]) -> None:
    server, url = fake
    output = {"name": "scores", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]}
    server.answer = lambda body: JSONResponse({"id": body["id"], "outputs": [output]})
    schema = {"type": "object", "properties": {"scores": {"type": "array"}}}
    answer = with_backend(url, lambda backend: backend.chat(request(schema=schema)))
    assert json.loads(answer.text) == {"scores": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    "response",
    [
        {"id": "careloom-6-1", "outputs": []},
        {"outputs": []},
        {"outputs": "none"},
        {"outputs": [{"name": "mean", "shape": [2], "datatype": "FP32", "data": [1.0]}]},
        {"outputs": [{"name": "mean", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}]},
        [],
    ],
)
def test_outputs_that_are_not_what_was_asked_for_are_no_answer(fake: tuple[FakeServer, str], response: Any) -> None:
    server, url = fake
    server.answer = lambda _: JSONResponse(response)
    assert failure(url).error_class is ErrorClass.MODEL_INVALID_OUTPUT


@pytest.mark.parametrize(
    ("status", "error_class"), [(400, ErrorClass.MODEL_REJECTED), (500, ErrorClass.MODEL_UNAVAILABLE)]
)
def test_errors_of_the_protocol_are_told_by_their_status_alone(
    fake: tuple[FakeServer, str], status: int, error_class: ErrorClass
) -> None:
    server, url = fake
    server.answer = lambda _: JSONResponse({"error": CANARY}, status)
    assert failure(url, attempts=1).error_class is error_class


def test_a_scenario_without_tensors_is_told_to_be_routed_elsewhere(fake: tuple[FakeServer, str]) -> None:
    server, url = fake
    failed = failure(url, ChatRequest([], SCHEMA, 1, 0.0, 5.0, "r"))
    assert failed.error_class is ErrorClass.MODEL_REJECTED
    assert "[routing]" in str(failed)
    assert server.asked == []


@pytest.mark.parametrize("tensor", [("x", (2, 2), "FP32", (1.0,)), ("x", (1,), "FLOAT", (1.0,))])
def test_a_tensor_that_does_not_fit_its_shape_or_the_protocol_is_refused(tensor: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="tensor 'x'"):
        Tensor(*tensor)
