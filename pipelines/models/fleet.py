"""The models of the registry, ready to be asked: a backend and a gate for each, opened when it is first asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pipelines.errors import ErrorClass, StepFailed
from pipelines.models.admission import Depth, Follower, Gate, look_from_here
from pipelines.models.batch import VllmBatch
from pipelines.models.kserve import KServe
from pipelines.models.openai_chat import OpenAIChat
from pipelines.models.settings import Model, Registry
from pipelines.places import place
from plugins.errors import FAULTS, ModelFailed
from plugins.model_backend import BackendFactory, ChatAnswer, ChatRequest, ModelBackend

#: Kinds of model servers that careloom speaks to by itself.
BUILT_IN: Mapping[str, BackendFactory] = MappingProxyType(
    {"openai": OpenAIChat, "kserve": KServe, "batch": VllmBatch},
)

_CLASSES = {
    "unavailable": ErrorClass.MODEL_UNAVAILABLE,
    "timeout": ErrorClass.MODEL_TIMEOUT,
    "rejected": ErrorClass.MODEL_REJECTED,
}


@dataclass(frozen=True, slots=True)
class _Opened:
    backend: ModelBackend
    gate: Gate
    follower: Follower


class Fleet:
    """Asks models. One instance serves one event loop; close it.

    Args:
        registry: the models, and who is asked for which scenario.
        kinds: of plugins: kind -> what makes a backend.
        look: reads a server's queue; for tests.

    A model of a kind that nobody brings, since its plugin is gone or broken, cannot be asked, and all others can.
    """

    def __init__(
        self,
        registry: Registry,
        kinds: Mapping[str, BackendFactory] = MappingProxyType({}),
        look: Callable[[Model], Awaitable[Depth | None]] = look_from_here,
    ) -> None:
        self._kinds = {**kinds, **BUILT_IN}
        self.registry = registry
        self._look = look
        self._opened: dict[str, _Opened] = {}

    async def ask(self, model: Model, request: ChatRequest) -> ChatAnswer:
        """A model's answer; waiting for a place does not count against the request's timeout.

        Raises:
            StepFailed: of a class MODEL_*; whatever a plugin's backend raises is one of them, too.
        """
        opened = self._open(model)
        await opened.follower.started()
        async with opened.gate.inside(request.priority):
            try:
                return await opened.backend.chat(request)
            except StepFailed as failure:
                if failure.error_class is ErrorClass.MODEL_UNAVAILABLE:
                    opened.follower.overloaded()
                raise
            except ModelFailed as failure:
                raise StepFailed(_CLASSES[failure.kind], str(failure), retry_after=failure.retry_after) from None
            except FAULTS as error:  # a plugin's code: its message may hold what was asked
                raise StepFailed(
                    ErrorClass.MODEL_UNAVAILABLE,
                    f"the backend {model.kind!r} of model {model.name} broke: {type(error).__name__} at {place(error)}",
                ) from None

    def concurrency(self, scenario: str, usual: int) -> int:
        """Rows to work on at the same time: as many as a batch takes, where the model gathers them; else the usual."""
        gathered = [model.max_in_flight for model in self.registry.route(scenario) if model.kind == "batch"]
        return max([usual, *gathered])

    async def close(self) -> None:
        """Give back all connections."""
        for opened in self._opened.values():
            await opened.follower.close()
            await opened.backend.close()

    def _open(self, model: Model) -> _Opened:
        if model.name not in self._opened:
            gate = Gate(model.max_in_flight)

            async def look() -> Depth | None:
                return await self._look(model)

            self._opened[model.name] = _Opened(self._made(model), gate, Follower(gate, model.max_in_flight, look))
        return self._opened[model.name]

    def _made(self, model: Model) -> ModelBackend:
        if model.kind not in self._kinds:
            known = ", ".join(sorted(self._kinds))
            raise StepFailed(
                ErrorClass.MODEL_UNAVAILABLE,
                f"model {model.name}: no backend of kind {model.kind!r} is loaded (there are {known}); correct it,"
                " or enable the plugin that brings it",
            )
        try:
            made: Any = self._kinds[model.kind](model)
        except FAULTS as error:  # a plugin's code, or our own refusal of its options
            raise StepFailed(
                ErrorClass.MODEL_UNAVAILABLE, f"model {model.name} cannot be opened: {type(error).__name__}: {error}"
            ) from None
        backend: ModelBackend = made
        return backend
