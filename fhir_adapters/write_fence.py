"""A fence against a transaction that may still be on its way: once it stands, that one can only fail, as a whole.

Each of our transactions creates its drafts and its Provenance on conditions that no other transaction has. Where
several resources match a condition a server answers 412 (FHIR R4, http.html#ccreate: "Multiple matches: The server
returns a 412 Precondition Failed error"), and takes nothing of the transaction (http.html#trules). A fence is one
transaction:

- two more Provenances under the tag of the other's: whoever looks from now on finds several, and is refused;
- one resource in place of its first draft, entered in error and of no patient, created on that draft's own condition:
  whoever has looked before, and is still at it, wants to create the same. A server that keeps conditional creates apart
  (HAPI by a unique index) lets one of the two wait for the other, or refuses one with 409.

Neither does for both: no conditional create makes two matches (HAPI-0542), and plain ones make nobody wait.
`build_probe` asks for what the fenced transaction would ask for: only 412 shows that the fence holds.

Seen on sekmet 0.1.1 and HAPI 8.8.0: tests/fhir_adapters/test_write_fence.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_adapters.drafts import AI_LABEL, DRAFT_SYSTEM, IDENTITY_TAG, condition, identify, urn
from fhir_adapters.errors import FhirRejected
from fhir_adapters.withdrawn import withdrawn

FENCE_TAG = "urn:careloom:fence"


@dataclass(frozen=True, slots=True)
class Fenced:
    """The transaction that must not be taken any more, as `drafts.build_transaction` had it.

    Attributes:
        identity: of (event, scenario, scenario version).
        part: of it.
        resource_type, name: of its first draft.
    """

    identity: str
    part: str
    resource_type: str
    name: str

    @property
    def key(self) -> str:
        """What its Provenance is found by."""
        return f"{self.identity}:{self.part}"


def build_fence(fenced: Fenced, *, overtaken_by: str, recorded: datetime) -> dict[str, Any]:
    """The transaction that fences another one off.

    Args:
        fenced: the other.
        overtaken_by: identity of the work on the newer version, for whom it is fenced off.
        recorded: when (timezone-aware).

    Raises:
        ValueError: the draft's type is none of FHIR R4 with an identifier; no draft is of such a type.
    """
    draft_key = f"{fenced.identity}:{fenced.name}"
    place = withdrawn(fenced.resource_type, recorded)
    if place is None:
        raise ValueError(f"{fenced.resource_type} is no type of FHIR R4")
    place["meta"] = _meta(DRAFT_SYSTEM, draft_key, overtaken_by)
    identify(place, draft_key, fenced.name)
    provenance = _provenance(fenced, overtaken_by, recorded)
    entries = [_entry(fenced, "place", place, condition(DRAFT_SYSTEM, draft_key))]
    entries += [_entry(fenced, number, provenance) for number in ("first", "second")]
    return _transaction(entries)


def build_probe(fenced: Fenced, *, overtaken_by: str, recorded: datetime) -> dict[str, Any]:
    """A transaction that a server refuses with 412 where the fence holds."""
    asked = condition(IDENTITY_TAG, fenced.key)
    return _transaction([_entry(fenced, "probe", _provenance(fenced, overtaken_by, recorded), asked)])


def is_fence(resource: Mapping[str, Any]) -> bool:
    """Whether a resource only stands where a draft, or its Provenance, must not come any more."""
    meta = resource.get("meta")
    tags = meta.get("tag") if isinstance(meta, dict) else None
    return isinstance(tags, list) and any(isinstance(tag, dict) and tag.get("system") == FENCE_TAG for tag in tags)


def came_first(response: Mapping[str, Any]) -> bool:
    """Whether the fenced transaction had been taken before its fence (or another fence had been), by the answer.

    Raises:
        FhirRejected: the answer does not tell.
    """
    answered = response.get("entry")
    if isinstance(answered, list) and len(answered) == 3 and isinstance(answered[0], dict):
        outcome = answered[0].get("response")
        status = str(outcome.get("status", ""))[:3] if isinstance(outcome, dict) else ""
        if status in ("200", "201"):
            return status == "200"
    raise FhirRejected("transaction: the server does not say whether it wrote the fence")


def _provenance(fenced: Fenced, overtaken_by: str, recorded: datetime) -> dict[str, Any]:
    return {
        "resourceType": "Provenance",
        "meta": _meta(IDENTITY_TAG, fenced.key, overtaken_by),
        "target": [
            {"identifier": {"system": IDENTITY_TAG, "value": fenced.key}, "display": "nothing: it was overtaken"}
        ],
        "recorded": recorded.isoformat(timespec="milliseconds"),
        "reason": [{"text": "Write fence: drafts of an older version must not be written after those of a newer one."}],
        "activity": {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/v3-DataOperation",
                    "code": "NULLIFY",
                    "display": "nullify",
                }
            ]
        },
        "agent": [{"who": {"display": "careloom"}}],
    }


def _meta(system: str, code: str, overtaken_by: str) -> dict[str, Any]:
    """Found as what it stands for, marked as a fence, and labelled as ours: a notification of it starts nothing."""
    tags = [{"system": system, "code": code}, {"system": FENCE_TAG, "code": overtaken_by}]
    return {"security": [dict(AI_LABEL)], "tag": tags}


def _entry(fenced: Fenced, name: str, resource: dict[str, Any], if_none_exist: str = "") -> dict[str, Any]:
    request = {"method": "POST", "url": resource["resourceType"]}
    if if_none_exist:
        request["ifNoneExist"] = if_none_exist
    return {"fullUrl": urn(fenced.key, "fence", name), "resource": resource, "request": request}


def _transaction(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}
