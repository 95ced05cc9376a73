"""The FHIR servers of the configured sources, connected when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.config import Config, Source
from pipelines.errors import ConfigError, ErrorClass, StepFailed
from pipelines.runner.context import Context, Records
from pipelines.runner.fencing import Server


class Client(Records, Server, Protocol):
    """What is asked of a FHIR client here: `fhir_adapters.fhir_client.FhirClient`, and a fake in tests."""

    async def aclose(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Connected:
    """One source's server.

    Attributes:
        client: speaks to it.
        context: reads records from it.
    """

    client: Client
    context: Context


class Sources:
    """Source name -> its server. Close it.

    Args:
        config: its sources and locale.
        connect: makes the client of a source; for tests.
    """

    def __init__(self, config: Config, connect: Callable[[Source], Client] | None = None) -> None:
        self._config = config
        self._connect = connect or _connect
        self._connected: dict[str, Connected] = {}

    def of(self, name: str) -> Connected:
        """The server of a source.

        Raises:
            StepFailed: FHIR_REJECTED: the source is not configured, or has no server to read from and write to.
        """
        if name not in self._connected:
            try:
                source = self._config.source(name)
            except ConfigError as error:
                raise StepFailed(ErrorClass.FHIR_REJECTED, str(error)) from None
            if source.base_url is None:
                raise StepFailed(
                    ErrorClass.FHIR_REJECTED,
                    f"source {name} has no base_url to read the record from and write to; set sources.base_url",
                )
            client = self._connect(source)
            self._connected[name] = Connected(client, Context(client, locale=self._config.locale))
        return self._connected[name]

    def forget(self) -> None:
        """Keep nothing of the patients that were read so far; the connections stay."""
        for connected in self._connected.values():
            connected.context.forget()

    async def aclose(self) -> None:
        """Close all connections."""
        for connected in self._connected.values():
            await connected.client.aclose()


def _connect(source: Source) -> Any:
    from fhir_adapters.fhir_client import FhirClient

    token = source.server_token.get_secret_value() if source.server_token else None
    return FhirClient(str(source.base_url), token=token)
