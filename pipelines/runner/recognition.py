"""What a replay need not do again: the drafts of this very (event, scenario, version) are at the FHIR server already.

They were written in one transaction with their Provenance, which carries the identity as a tag: where that is, all of
them were written. A model that is asked again may answer otherwise, with another number of drafts, and those would be
new; so it is not asked. What a person has removed since stays removed. Conditional creates guard the rest of the way,
as they always do: whatever this search does not find is written once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fhir_adapters.approval import APPROVE
from fhir_adapters.drafts import IDENTITY_TAG
from fhir_adapters.errors import FhirRejected
from pipelines.ledger.rows import Written
from pipelines.runner.context import Records

_KEY = "recognised"
#: Its own Provenance, and those of a fence or two (`fhir_adapters.write_fence`), which have no reference to a draft.
_CAP = 10


async def written_before(server: Records, identity: str) -> tuple[str, ...]:
    """References of the drafts that an earlier piece of work of this identity has written; empty where there are none.

    Args:
        server: the source's FHIR server.
        identity: of the piece of work (`WorkItem.identity`).

    Raises:
        FhirServerError: no answer. A server that cannot search so is as one that has none.
    """
    try:
        found = await server.search("Provenance", {"_tag": f"{IDENTITY_TAG}|{identity}:model"}, cap=_CAP)
    except FhirRejected:
        return ()
    return tuple(
        reference
        for reading in found.resources
        for target in reading.resource.get("target", ())
        if isinstance(target, dict)
        and isinstance(reference := target.get("reference"), str)
        and not _asks(target, identity)
    )


def _asks(target: Mapping[str, Any], identity: str) -> bool:
    """Whether a Provenance's target is the Task that asks for approval: it is no draft."""
    identifier = target.get("identifier")
    return isinstance(identifier, dict) and identifier.get("value") == f"{identity}:{APPROVE}"


def outbox(references: Sequence[str]) -> dict[str, Any]:
    """Outbox content that says: nothing is to be written, these are there."""
    return {_KEY: list(references)}


def recognised(drafts: Mapping[str, Any] | None) -> Written | None:
    """What `outbox` said; None for an outbox with drafts that are to be written."""
    if drafts is None or _KEY not in drafts:
        return None
    references = tuple(drafts[_KEY])
    return Written(references, created=0, recognised=len(references))
