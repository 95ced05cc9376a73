"""sekmet-fhir as the hospital: a FHIR R4 server with Subscriptions, on loopback, behind a bearer token."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept, write_private
from pipelines.stack.supervisor import Program


class Hospital:
    """The FHIR server that stands for the hospital."""

    name = "fhir"
    needs: tuple[str, ...] = ()

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._folder = kept.folder("fhir")
        self._settings = self._folder / "settings.yaml"

    @property
    def base_url(self) -> str:
        """FHIR base."""
        return self._kept.url("fhir", "/fhir")

    def source(self) -> Mapping[str, Any]:
        """Its `[[sources]]` table."""
        return {
            "name": "hospital",
            "fhir_version": "R4",
            "base_url": self.base_url,
            "token": self._kept.secrets["hospital-token"],
            "server_token": self._kept.secrets["hospital-server-token"],
            "subscription": "backport",
        }

    def prepare(self) -> None:
        """Write its settings."""
        settings = {
            "base_url": self.base_url,
            "host": "127.0.0.1",  # its default is every interface
            "port": self._kept.ports["fhir"],
            "data_dir": str(self._folder),
            "db_path": str(self._folder / "hospital.db"),
            "facility_name": "careloom development hospital",
            # a request without the token is refused, as any hospital's server would
            "server_auth": {"types": ["bearer"], "tokens": [self._kept.secrets["hospital-server-token"]]},
            # broken resources are refused as by a careful server; what is merely doubtful is taken
            "validation": {"inbound": "strict"},
            # its own make-believe laboratory would answer our drafts
            "simulator": {"enabled": False},
            "subscriptions": {"retries": 5},
            # bodies of requests are patient data
            "log_inbound": False,
        }
        write_private(self._settings, yaml.safe_dump(settings, sort_keys=False))

    def programs(self) -> Sequence[Program]:
        """The server under uvicorn without an access log: a query may name a patient."""
        uvicorn = ("uvicorn", "sekmet.main:app_factory", "--factory", "--no-access-log", "--log-level", "warning")
        where = ("--host", "127.0.0.1", "--port", str(self._kept.ports["fhir"]))
        return (
            Program(
                name="fhir",
                argv=(sys.executable, "-m", *uvicorn, *where),
                env={"SEKMET_CONFIG": str(self._settings)},
                probe=Probe("http", f"{self.base_url}/metadata"),
                cwd=self._folder,
            ),
        )

    def addresses(self) -> Mapping[str, str]:
        """The FHIR base and the console."""
        return {"FHIR server (hospital)": self.base_url, "FHIR server's console": self._kept.url("fhir", "/ui")}


def other_hospital(base_url: str, kept: Kept) -> Mapping[str, Any]:
    """The `[[sources]]` table of a FHIR R4 server that somebody else runs; its bearer token is CARELOOM_FHIR_TOKEN.

    Classic rest-hooks are what nearly every R4 server knows; with `overrides` it can be told otherwise.
    """
    return {
        "name": "hospital",
        "fhir_version": "R4",
        "base_url": base_url,
        "token": kept.secrets["hospital-token"],
        "server_token": os.environ.get("CARELOOM_FHIR_TOKEN"),
        "subscription": "rest-hook",
    }
