"""What a person has decided on a draft, read from the Task that asked for it (docs/review.md is the contract).

No text of the Task is taken: neither `statusReason` nor a note, in which a patient may be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from fhir_adapters.approval import APPROVE, asks_for_approval
from fhir_adapters.drafts import AI_LABEL, DRAFT_SYSTEM
from fhir_adapters.references import literal

_PERSONS = frozenset({"Practitioner", "PractitionerRole"})
_LONGEST_REFERENCE = 255
_KEY = re.compile(rf"[A-Za-z0-9._:@-]{{1,200}}:{APPROVE}")
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


class Verdict(StrEnum):
    """What was decided; `WITHDRAWN` is no verdict on the draft, but nobody is asked any more."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


#: Task.status -> what it says; of `completed` the outputs say which. Every other status is none yet.
_DECIDED = {
    "completed": Verdict.ACCEPTED,
    "rejected": Verdict.REJECTED,
    "failed": Verdict.WITHDRAWN,
    "cancelled": Verdict.WITHDRAWN,
    "entered-in-error": Verdict.WITHDRAWN,
}


@dataclass(frozen=True, slots=True)
class Said:
    """What a Task says.

    Attributes:
        identity: of (event, scenario, version) whose drafts were decided on; None where the Task names none.
        who: reference to the Practitioner or PractitionerRole who decided, without a version; None where none is named.
        decided_at: timezone-aware; None where the Task does not say when it was last modified.
    """

    identity: str | None
    verdict: Verdict
    who: str | None
    decided_at: datetime | None


def is_ours(resource: Mapping[str, Any]) -> bool:
    """Whether this is a Task by which careloom asks for approval: it has our label, or what names our draft.

    Either will do: who puts a Task back may have left out its `meta`, and it must start nothing all the same.
    """
    return asks_for_approval(resource) and (_labelled(resource) or identity_of(resource) is not None)


def decision_of(resource: Mapping[str, Any]) -> Said | None:
    """What such a Task says; None for one that is not decided on yet, or is none of ours."""
    verdict = _DECIDED.get(str(resource.get("status")))
    if verdict is None or not is_ours(resource):
        return None
    if verdict is Verdict.ACCEPTED and any(
        isinstance(o.get("valueReference"), dict) for o in _listed(resource, "output")
    ):
        verdict = Verdict.EDITED
    return Said(identity_of(resource), verdict, _person(resource), _modified(resource))


def _labelled(resource: Mapping[str, Any]) -> bool:
    return any(
        label.get("system") == AI_LABEL["system"] and label.get("code") == AI_LABEL["code"]
        for label in _listed(resource.get("meta"), "security")
    )


def identity_of(resource: Mapping[str, Any]) -> str | None:
    """The identity before `:approve` in our tag, else in our identifier; a token as `drafts` makes them."""
    tags = [(one.get("system"), one.get("code")) for one in _listed(resource.get("meta"), "tag")]
    identifiers = [(one.get("system"), one.get("value")) for one in _listed(resource, "identifier")]
    for system, key in (*tags, *identifiers):
        if system == DRAFT_SYSTEM and isinstance(key, str) and _KEY.fullmatch(key):
            return key.removesuffix(f":{APPROVE}")
    return None


def _person(resource: Mapping[str, Any]) -> str | None:
    owner = resource.get("owner")
    found = literal(owner.get("reference")) if isinstance(owner, dict) else None
    if found is None or found.type not in _PERSONS:
        return None
    whole = f"{found.base}/{found.relative}" if found.base else found.relative
    return whole if len(whole) <= _LONGEST_REFERENCE and whole.isprintable() else found.relative


def _modified(resource: Mapping[str, Any]) -> datetime | None:
    """`lastModified`, a FHIR dateTime; one without a time of day says too little, one of another century is none."""
    text = resource.get("lastModified")
    if not isinstance(text, str) or "T" not in text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    known = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
    return known if _EARLIEST <= known < _LATEST else None


def _listed(node: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """The objects in a list of a node; nothing where it is none."""
    found = node.get(name) if isinstance(node, dict) else None
    yield from (one for one in found if isinstance(one, dict)) if isinstance(found, list) else ()
