"""HAPI FHIR as a second hospital: what many run, and what answers, retries, drops and reorders differently.

Its jars with the launcher `fhirtest.ServerMain` are looked for in HAPI_HOME, then in ../shared/hapi.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import StackError
from pipelines.stack import java
from pipelines.stack.part import PROJECT
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept
from pipelines.stack.supervisor import Program


def find_jars() -> Path | None:
    """The folder with HAPI's jars, or None."""
    home = os.environ.get("HAPI_HOME")
    return java.jars(Path(home) if home else PROJECT.parent / "shared" / "hapi")


def missing() -> str | None:
    """Why HAPI FHIR cannot be run here and what to do, or None when it can."""
    if why := java.missing():
        return why
    return None if find_jars() else "no HAPI FHIR jars: set HAPI_HOME to a folder that holds them and their launcher"


class Hapi:
    """The HAPI FHIR R4 server."""

    name = "hapi"
    needs: tuple[str, ...] = ()

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._folder = kept.folder("hapi")

    @property
    def base_url(self) -> str:
        """FHIR base."""
        return self._kept.url("hapi", "/fhir")

    def source(self) -> Mapping[str, Any]:
        """Its `[[sources]]` table: classic rest-hooks, no login."""
        return {
            "name": "hapi",
            "fhir_version": "R4",
            "base_url": self.base_url,
            "token": self._kept.secrets["hapi-token"],
            "subscription": "rest-hook",
        }

    def prepare(self) -> None:
        """See that it can be run."""
        if why := missing():
            raise StackError(why)

    def programs(self) -> Sequence[Program]:
        """The server; deliveries are polled for every 250 ms instead of every 5 s."""
        libraries = find_jars()
        heap = ("-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        options = {"host": "127.0.0.1", "port": self._kept.ports["hapi"], "data": self._folder / "data"}
        delivery = {"subscription-poll-ms": 250}
        arguments = [text for name, value in (options | delivery).items() for text in (f"--{name}", str(value))]
        return (
            Program(
                name="hapi",
                argv=(java.find() or "java", *heap, "-cp", f"{libraries}/*", "fhirtest.ServerMain", *arguments),
                probe=Probe("http", f"{self.base_url}/metadata"),
                patience=120,
            ),
        )

    def addresses(self) -> Mapping[str, str]:
        """The FHIR base."""
        return {"FHIR server (HAPI)": self.base_url}
