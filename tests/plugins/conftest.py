"""Synthetic patients as records that a scenario's queries can be asked of, and the field's reference validator."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from plugins.fhir_text import codes, listed, moment
from plugins.scenario import RecordQuery

SHARED = Path(__file__).parents[3] / "shared"
DATES = (
    "effectiveDateTime",
    "performedDateTime",
    "authoredOn",
    "recordedDate",
    "issued",
    "onsetDateTime",
    "whenHandedOver",
    "sent",
)


class Record:
    """All resources of one patient, searched as a FHIR server would for the parameters that the scenarios use."""

    def __init__(self, bundle: Mapping[str, Any]) -> None:
        names = {e["fullUrl"]: f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in bundle["entry"]}
        text = re.sub(r"urn:uuid:[0-9a-f-]+", lambda m: names.get(m[0], m[0]), json.dumps(bundle))
        self.resources: list[dict[str, Any]] = [entry["resource"] for entry in json.loads(text)["entry"]]
        self.patient = self.of("Patient")[0]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [r for r in self.resources if r["resourceType"] == kind]

    def search(self, query: RecordQuery, now: datetime, encounter: str | None) -> list[dict[str, Any]]:
        found = [r for r in self.of(query.resource_type) if self._meets(r, query, encounter)]
        found.sort(key=_when, reverse=True)
        if query.window is not None:
            found = [r for r in found if (at := moment(_when(r))) and now - query.window <= at <= now]
        return found[: query.cap]

    def _meets(self, resource: Mapping[str, Any], query: RecordQuery, encounter: str | None) -> bool:
        for parameter, value in query.params.items():
            if parameter == "encounter":
                if (resource.get("encounter") or {}).get("reference") != encounter:
                    return False
            elif parameter != "patient" and not _tokens(resource, parameter) & set(value.split(",")):
                return False
        return True


def _tokens(resource: Mapping[str, Any], parameter: str) -> frozenset[str]:
    element = re.sub("-(.)", lambda m: m[1].upper(), parameter)
    values = listed(resource, element)
    return frozenset(v for v in values if isinstance(v, str)).union(*(codes(v) for v in values))


def _when(resource: Mapping[str, Any]) -> str:
    return next((str(resource[name]) for name in DATES if resource.get(name)), "")


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """Every synthetic patient beside the project."""
    folders = [SHARED / "data" / name for name in ("synthea", "patients-synthea-like")]
    files = [file for folder in folders for file in sorted(folder.glob("patient-*.json.gz"))]
    if not files:
        pytest.skip("../shared/data holds no synthetic patients on this machine")
    return [Record(json.loads(gzip.decompress(file.read_bytes()))) for file in files]


@pytest.fixture(scope="session")
def reference_errors() -> Callable[[Iterable[Mapping[str, Any]]], list[str]]:
    """The errors that HAPI's validator (base R4 profiles) finds in resources, each as "n: place: message"."""
    jars = SHARED / "hapi" / "libs"
    java = shutil.which("java")
    if java is None or not jars.is_dir():
        pytest.skip("the reference validator (../shared/hapi) or java is not on this machine")
    command = [java, "-Xmx768m", "-XX:+UseSerialGC", "-cp", f"{jars}{os.sep}*", "fhirtest.Validate"]

    def errors(resources: Iterable[Mapping[str, Any]]) -> list[str]:
        lines = [json.dumps(resource, ensure_ascii=False) for resource in resources]
        done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False, timeout=240)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(found) == len(lines), done.stderr[-2000:]
        return [
            f"{n}: {issue['location']}: {issue['message']}"
            for n, result in enumerate(found)
            for issue in result["issues"]
            if issue["severity"] in ("error", "fatal")
        ]

    return errors
