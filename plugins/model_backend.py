"""The model API: the one protocol that every model server stands behind, and what goes through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from plugins.scenario import Stage
from plugins.tensors import Tensor

#: Kinds that careloom has itself; a plugin's must be called otherwise.
OWN_KINDS = frozenset({"openai", "kserve", "batch", "panel"})
#: A lower value is served first (vLLM `--scheduling-policy priority`): a clinician waits for an in-visit answer.
PRIORITIES: Mapping[Stage, int] = {Stage.IN_VISIT: 0, Stage.PRE_VISIT: 10, Stage.POST_VISIT: 20}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a model.

    Attributes:
        messages: chat messages, each with `role` and `content`.
        schema: JSON schema that the answer's text must satisfy.
        max_tokens: cap of the answer.
        temperature: sampling temperature.
        timeout: seconds from the moment the request has a free slot to its answer, all tries included.
        request_id: for the server's log; unique among requests in flight; no patient data.
        priority: a lower value is served first, where the server schedules by priority.
        tensors: inputs of a model that takes numbers and not words (`kind = "kserve"`); such a model reads no messages.
    """

    messages: Sequence[Mapping[str, Any]]
    schema: Mapping[str, Any]
    max_tokens: int
    temperature: float
    timeout: float
    request_id: str
    priority: int = 0
    tensors: Sequence[Tensor] = ()


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What a model said.

    Attributes:
        text: the answer; meant to be JSON, and not yet looked at.
        finish_reason: "stop" when the model came to an end, "length" when it was cut off.
        prompt_tokens, completion_tokens: as counted by the server; 0 where it does not say.
        seconds: from sending the request that was answered to its answer.
        model: name that the server answered with.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    model: str


class ModelBackend(Protocol):
    """A model server. One instance serves one event loop; it is closed by whoever made it."""

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """The model's answer; cancelling the call frees its slot at the server.

        Raises:
            ModelFailed: it gave none (`plugins.errors`; a built-in backend raises careloom's own `StepFailed`). No
                message holds text of the request or of the server's answer.
        """
        ...

    async def close(self) -> None:
        """Give back the connections."""
        ...


class ModelSettings(Protocol):
    """One entry of `[[models]]` in the configuration, as a backend's factory is given it."""

    @property
    def name(self) -> str:
        """How careloom calls the model: in routes, metrics and switches."""

    @property
    def served_name(self) -> str:
        """How its server calls it."""

    @property
    def url(self) -> str:
        """Where its server is."""

    @property
    def secret(self) -> str | None:
        """What the server wants as a bearer token; never to be logged."""

    @property
    def max_in_flight(self) -> int:
        """Requests at a time at most; careloom keeps to it, the backend need not."""

    @property
    def attempts(self) -> int:
        """Tries at most for one answer."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What else stands in the entry's `options`, for this kind alone."""


BackendFactory = Callable[[Any], ModelBackend]
"""Makes a backend of a `ModelSettings`, without any I/O: connections are opened when the first request comes."""
