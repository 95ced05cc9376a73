"""`kind = "kserve"`: servers of the Open Inference Protocol v2 over HTTP, for imaging, pathology and scores.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; spoken by KServe,
Triton, MLServer, TorchServe and OpenVINO Model Server. Its own example response lacks `model_name`, as servers do too.

Tensors in, JSON out: each output becomes a field of the scenario's output model, which holds it to its bounds. A field
that is a list takes the elements in row-major order; any other field takes the one element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import orjson

from pipelines.errors import ErrorClass, StepFailed
from pipelines.failures.policy import Pace
from pipelines.models.server import ModelServer, unavailable
from pipelines.models.settings import Model
from plugins.model_backend import ChatAnswer, ChatRequest
from plugins.tensors import Tensor


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """What a model says of one input or output; -1 stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a server says of a model."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class KServe:
    """A `ModelBackend` over `POST <url>/v2/models/<name>/infer`.

    Args:
        config: `options.model_version` asks for one version of the model, else the server chooses.
        pace: waits between tries of one request.
    """

    def __init__(self, config: Model, pace: Pace | None = None) -> None:
        version = config.options.get("model_version")
        root = f"{config.url.rstrip('/')}/v2/models/{config.served_name}"
        self._model = f"{root}/versions/{version}" if version is not None else root
        self._server = ModelServer(config, pace)

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """See `ModelBackend.chat`; the messages are not sent.

        Raises:
            StepFailed: also MODEL_INVALID_OUTPUT, for outputs that are not what was asked for.
        """
        if not request.tensors:
            raise StepFailed(
                ErrorClass.MODEL_REJECTED,
                "the scenario's prompt has no tensors, and this model reads nothing else; correct [routing]",
            )
        return await self._server.past_blips(lambda attempt: self._infer(request, attempt), request.timeout)

    async def ready(self) -> bool:
        """Whether the server says that the model can be asked."""
        try:
            await self._server.get(f"{self._model}/ready")
        except StepFailed:
            return False
        return True

    async def metadata(self) -> ModelMetadata:
        """What the server says of the model.

        Raises:
            StepFailed: it says nothing, or nothing that is metadata.
        """
        content = await self._server.get(self._model)
        try:
            said = orjson.loads(content)
            return ModelMetadata(
                name=str(said["name"]),
                versions=tuple(map(str, said.get("versions") or ())),
                platform=str(said.get("platform") or ""),
                inputs=_tensors_metadata(said.get("inputs")),
                outputs=_tensors_metadata(said.get("outputs")),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise unavailable("answered 200 with something that is no model metadata") from None

    async def close(self) -> None:
        """Give back the connections."""
        await self._server.close()

    async def _infer(self, request: ChatRequest, attempt: int) -> ChatAnswer:
        id_ = f"{request.request_id}-{attempt}"
        wanted: Mapping[str, Any] = request.schema.get("properties", {})
        sent = {
            "id": id_,
            "inputs": [_input(tensor) for tensor in request.tensors],
            "outputs": [{"name": name} for name in wanted],
        }
        content, seconds = await self._server.post(f"{self._model}/infer", orjson.dumps(sent), id_)
        try:
            said = orjson.loads(content)
            outputs = {str(output["name"]): _elements(output) for output in said["outputs"]}
            answered_id, model = said.get("id"), str(said.get("model_name") or "")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _invalid("answered 200 with something that is no inference response") from None
        if answered_id not in (None, "", id_):
            raise _invalid("answered another request than ours")
        fields = {name: _field(name, schema, outputs) for name, schema in wanted.items()}
        return ChatAnswer(orjson.dumps(fields).decode(), "stop", 0, 0, seconds, model)


def _input(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "datatype": tensor.datatype,
        "data": list(tensor.data),
    }


def _elements(output: Mapping[str, Any]) -> list[Any]:
    """An output's elements, flat; servers send them flat or nested, both are in row-major order.

    Raises:
        ValueError: there are not as many as its shape has.
    """
    elements = list(_flat(output["data"]))
    if len(elements) != prod(int(size) for size in output["shape"]):
        raise ValueError("an output does not fit its shape")
    return elements


def _flat(data: Any) -> Sequence[Any]:
    return [one for part in data for one in _flat(part)] if isinstance(data, list) else [data]


def _field(name: str, schema: Mapping[str, Any], outputs: Mapping[str, list[Any]]) -> Any:
    if name not in outputs:
        raise _invalid(f"gave no output {name}")
    if schema.get("type") == "array":
        return outputs[name]
    if len(outputs[name]) != 1:
        raise _invalid(f"gave {len(outputs[name])} elements as {name}, where the scenario takes one")
    return outputs[name][0]


def _tensors_metadata(listed: Any) -> tuple[TensorMetadata, ...]:
    return tuple(
        TensorMetadata(str(one["name"]), str(one["datatype"]), tuple(int(size) for size in one["shape"]))
        for one in listed or ()
    )


def _invalid(what: str) -> StepFailed:
    return StepFailed(ErrorClass.MODEL_INVALID_OUTPUT, f"the model server {what}")
