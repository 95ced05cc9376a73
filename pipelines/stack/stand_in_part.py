"""The stand-in model server as a part of the stack, where no vLLM can be had."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept, ModelServer
from pipelines.stack.stand_in import NAME
from pipelines.stack.supervisor import Program


class StandIn:
    """What answers where no model does."""

    name = "model"
    needs: tuple[str, ...] = ()

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def server(self) -> ModelServer:
        """As `[model]` wants it."""
        return ModelServer(self._kept.url("model", "/v1"), NAME, "no model: a test stand-in", stand_in=True)

    def prepare(self) -> None:
        """Nothing."""

    def programs(self) -> Sequence[Program]:
        """The one process."""
        return (
            Program(
                name="stand-in",
                argv=(sys.executable, "-m", "pipelines.stack.stand_in", str(self._kept.ports["model"])),
                probe=Probe("http", self._kept.url("model", "/health")),
            ),
        )

    def addresses(self) -> Mapping[str, str]:
        """The OpenAI-compatible base."""
        return {"Model (STAND-IN: no model answers)": self._kept.url("model", "/v1")}
