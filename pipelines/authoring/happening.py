"""A golden case made to happen at the hospital: its record, then its event, put into the source's FHIR server.

The server tells the gateway as it tells it of everything, so a case that was tried on a file goes the whole way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from pipelines.config import Config
from pipelines.errors import CareloomError, ConfigError
from plugins.errors import PluginError
from plugins.golden import GoldenCase, read_case

_FHIR = {"content-type": "application/fhir+json", "accept": "application/fhir+json"}


def happen(config: Config, files: Sequence[Path], source: str, *, transport: httpx.BaseTransport | None = None) -> int:
    """Put each case's patient, record and event into the FHIR server of `source`; the number of resources put.

    Args:
        config: where the source's server is, and the token it wants.
        files: golden cases (`plugins/golden.py`).
        source: configured name of the hospital.
        transport: for tests.

    Raises:
        ConfigError: no such source, it has no FHIR server, or a file is no golden case; nothing was put then.
        CareloomError: the server did not take a resource; says of what type, and nothing of what it held.
    """
    settings = config.source(source)
    if not settings.base_url:
        raise ConfigError(f"--case: the source {source} has no base_url; a case happens at a FHIR server")
    cases = [_read(file) for file in files]
    token = settings.server_token
    headers = _FHIR | ({"authorization": f"Bearer {token.get_secret_value()}"} if token else {})
    base = f"{str(settings.base_url).rstrip('/')}/"
    put = 0
    with httpx.Client(base_url=base, headers=headers, timeout=60, transport=transport) as server:
        for resource in (resource for case in cases for resource in _in_order(case)):
            _put(server, resource)
            put += 1
    return put


def _read(file: Path) -> GoldenCase:
    try:
        return read_case(file)
    except (OSError, ValueError, KeyError, TypeError, PluginError) as error:
        raise ConfigError(
            f"--case: {file}: no golden case that can be read ({type(error).__name__}); give one of tests/golden"
        ) from None


def _in_order(case: GoldenCase) -> Iterator[dict[str, Any]]:
    """The patient before what refers to it, the event last."""
    record = [resource for found in case.case.resources.values() for resource in found]
    patient = [case.case.patient] if case.case.patient else []
    for resource in (*patient, *record, case.case.trigger):
        yield dict(resource)


def _put(server: httpx.Client, resource: dict[str, Any]) -> None:
    kind = resource.get("resourceType")
    try:
        answer = server.put(f"{kind}/{resource.get('id')}", json=resource)
    except httpx.HTTPError as error:
        raise CareloomError(f"the hospital's FHIR server does not answer: {type(error).__name__}") from None
    if not answer.is_success:
        raise CareloomError(f"the hospital's FHIR server answers {answer.status_code} to a {kind} of the case")
