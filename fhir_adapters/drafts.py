"""Drafts to one FHIR R4 transaction that can be repeated: the second time it creates nothing.

The transaction holds a Device (the model, or the rules), the drafts, where a person is to decide on them a Task that
asks for it (`fhir_adapters.approval`), and one Provenance that ties them together. Each entry is a conditional create:
the Device on its `identifier`, the others on `_tag`, a `meta.tag` that each of them carries. Not on `identifier`, which
the drafts carry as well, for people and other systems: R4's Provenance has none, and sekmet 0.1.1 cannot search
Composition by it (400), while `_tag` is a parameter of all types.

Seen on sekmet 0.1.1 and HAPI 8.8.0: both honour both conditions inside a transaction, point the new Provenance's
references at a draft that was already there, and answer 200 instead of 201 for it.

The Provenance names the Task as well: whatever carries our label has one, and the Task is recalled with its drafts.
That target has the Task's `identifier` beside its reference: who reads the drafts from it can leave the Task out.

Recall: every draft carries `meta.tag` `urn:careloom:scenario|<id>@<version>`, and the Device is Provenance.agent.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

from fhir_adapters.approval import APPROVE, approval_task
from fhir_adapters.errors import FhirRejected
from fhir_adapters.fhir_models import fields_of, model_of
from fhir_adapters.provenance import DEVICE_SYSTEM, Author, Origin, device, device_id, provenance
from fhir_adapters.references import literal, name_of

DRAFT_SYSTEM = "urn:careloom:draft"
IDENTITY_TAG = "urn:careloom:identity"
SCENARIO_TAG = "urn:careloom:scenario"

#: https://terminology.hl7.org/CodeSystem-v3-ObservationValue.html
AI_LABEL = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}

_TOKEN = re.compile(r"[A-Za-z0-9._:@-]{1,200}")
"""What may stand in an identifier or tag: nothing that a search would need to escape."""


class DraftLike(Protocol):
    """One draft: `plugins.scenario.Draft`, or anything of its shape."""

    @property
    def name(self) -> str:
        """Unique among the drafts of one event and scenario."""

    @property
    def resource(self) -> dict[str, Any]:
        """FHIR R4 JSON without id; its type has an `identifier`."""

    @property
    def sources(self) -> tuple[str, ...]:
        """ "Type/id" of what it rests on."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction and what its entries are.

    Attributes:
        bundle: to be sent.
        names: of each entry's draft, in order, `APPROVE` of the Task that asks for approval; None for the Device and
            the Provenance.
    """

    bundle: dict[str, Any]
    names: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one draft, or of the Task that asks for approval.

    Attributes:
        name: of the draft; `APPROVE` of the Task.
        reference: "Type/id".
        created: False where it was recognised: it had been written before.
    """

    name: str
    reference: str
    created: bool


def build_transaction(
    drafts: Sequence[DraftLike],
    *,
    identity: str,
    author: Author,
    origin: Origin,
    recorded: datetime,
    part: str = "model",
    earlier: Mapping[str, str] | None = None,
    approval: str | None = None,
) -> Transaction:
    """One transaction that writes all drafts, or recognises those that are there.

    Args:
        drafts: at least one. A reference `urn:careloom:draft:<name>` in one of them becomes that draft's.
        identity: of (event, scenario, scenario version); the same for every try.
        author: what made them.
        origin: what they come of.
        recorded: when (timezone-aware).
        part: tells several transactions of one identity apart ("rules" written at once, "model" later); each has its
            own Provenance.
        earlier: name -> "Type/id" of drafts that an earlier part has written, for references to them.
        approval: what a person is asked, in the house's language; None where nobody is to decide on the drafts.

    Raises:
        ValueError: a draft that cannot be written so: no identifier element, an id, two of one name, the name
            `APPROVE`, a reference to a draft that is not there; or an identity that is no plain token.
    """
    _check(drafts, identity, part)
    urls = {draft.name: urn(identity, "draft", draft.name) for draft in drafts}
    targets = {**(earlier or {}), **urls}
    device_url = urn(identity, part, "device")
    entries = [_entry(device_url, device(author), condition(DEVICE_SYSTEM, device_id(author), by="identifier"))]
    names = [draft.name for draft in drafts]
    labelled = {name: _labelled(draft, identity, origin, targets) for name, draft in zip(names, drafts, strict=True)}
    made: list[dict[str, Any]] = [{"reference": url} for url in urls.values()]
    if approval is not None:
        asked = [(urls[name], labelled[name]) for name in names]
        task = approval_task(asked, requester=device_url, description=approval, asked_at=recorded)
        labelled[APPROVE] = _label(task, APPROVE, identity, origin)
        urls[APPROVE] = urn(identity, "draft", APPROVE)
        made.append({"reference": urls[APPROVE], "identifier": dict(task["identifier"][0])})
    entries += [
        _entry(urls[name], resource, condition(DRAFT_SYSTEM, f"{identity}:{name}"))
        for name, resource in labelled.items()
    ]
    tag = {"system": IDENTITY_TAG, "code": f"{identity}:{part}"}
    why = provenance(
        targets=made,
        agent=device_url,
        origin=origin,
        sources=(source for draft in drafts for source in draft.sources),
        tag=tag,
        recorded=recorded,
    )
    entries.append(_entry(urn(identity, part, "provenance"), why, condition(IDENTITY_TAG, tag["code"])))
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    return Transaction(bundle, (None, *labelled, None))


def parse_transaction_response(transaction: Transaction, response: Mapping[str, Any]) -> tuple[Written, ...]:
    """What became of each draft, in their order, and last of the Task that asks for approval, where there is one.

    Raises:
        FhirRejected: the response is not that of this transaction, or an entry failed.
    """
    answered = response.get("entry")
    if not isinstance(answered, list) or len(answered) != len(transaction.names):
        raise FhirRejected("transaction: the server did not answer for every entry")
    return tuple(
        _written(name, entry) for name, entry in zip(transaction.names, answered, strict=True) if name is not None
    )


def _written(name: str, entry: Any) -> Written:
    response = entry.get("response") if isinstance(entry, dict) else None
    response = response if isinstance(response, dict) else {}
    status = str(response.get("status", ""))[:3]
    resource = entry.get("resource") if isinstance(entry, dict) else None
    where = literal(response.get("location")) or (name_of(resource) if isinstance(resource, dict) else None)
    if status not in ("200", "201") or where is None:
        raise FhirRejected(f"transaction: the server did not write the draft {name!r} or does not say where")
    return Written(name, where.relative, created=status == "201")


def _check(drafts: Sequence[DraftLike], identity: str, part: str) -> None:
    if not drafts:
        raise ValueError("a transaction needs at least one draft")
    names = [draft.name for draft in drafts]
    if len(set(names)) != len(names):
        raise ValueError("two drafts of one event and scenario have the same name")
    if APPROVE in names:
        raise ValueError(f"draft {APPROVE!r}: so is called the Task that asks for approval; choose another name")
    for token in (identity, part, *names):
        if not _TOKEN.fullmatch(token):
            raise ValueError("identity, part and draft names are letters, digits and . _ : @ -, at most 200 of them")
    for draft in drafts:
        if "id" in draft.resource:
            raise ValueError(f"draft {draft.name!r}: has an id; the server gives it one")


def condition(system: str, value: str, *, by: str = "_tag") -> str:
    """If-None-Exist of a resource that carries this token."""
    return f"{by}={quote(f'{system}|{value}', safe='')}"


def urn(*parts: str) -> str:
    """A fullUrl for what has these names: the same for the same."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ':'.join(('urn:careloom', *parts)))}"


def _entry(url: str, resource: dict[str, Any], condition: str) -> dict[str, Any]:
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": condition}
    return {"fullUrl": url, "resource": resource, "request": request}


def _labelled(draft: DraftLike, identity: str, origin: Origin, targets: Mapping[str, str]) -> dict[str, Any]:
    resource = _label(deepcopy(draft.resource), draft.name, identity, origin)
    _point(resource, targets, draft.name)
    return resource


def _label(resource: dict[str, Any], name: str, identity: str, origin: Origin) -> dict[str, Any]:
    """Put our label, tags and identifier on it, in place."""
    key = f"{identity}:{name}"
    meta = resource.setdefault("meta", {})
    labels = meta.setdefault("security", [])
    if not any(label.get("code") == AI_LABEL["code"] for label in labels):
        labels.append(dict(AI_LABEL))
    meta.setdefault("tag", []).extend(
        (
            {"system": DRAFT_SYSTEM, "code": key},
            {"system": SCENARIO_TAG, "code": f"{origin.scenario}@{origin.scenario_version}"},
        )
    )
    identify(resource, key, name)
    return resource


def identify(resource: dict[str, Any], key: str, name: str) -> None:
    """Give a draft its identifier, in place.

    Raises:
        ValueError: its type has none, or has one only and it is taken.
    """
    model = model_of(str(resource.get("resourceType")), "R4")
    field = fields_of(model).get("identifier") if model is not None else None
    if field is None:
        raise ValueError(f"draft {name!r}: its type is none of FHIR R4 that has an identifier; choose another")
    identifier = {"system": DRAFT_SYSTEM, "value": key}
    if field.many:
        resource.setdefault("identifier", []).append(identifier)
    elif "identifier" in resource:
        raise ValueError(f"draft {name!r}: its type has one identifier only, which write-back needs; leave it free")
    else:
        resource["identifier"] = identifier


def _point(node: Any, targets: Mapping[str, str], name: str) -> None:
    """Turn `urn:careloom:draft:<name>` into that draft's URL, in place."""
    if isinstance(node, list):
        for item in node:
            _point(item, targets, name)
        return
    if not isinstance(node, dict):
        return
    reference = node.get("reference")
    if isinstance(reference, str) and reference.startswith(f"{DRAFT_SYSTEM}:"):
        target = targets.get(reference.removeprefix(f"{DRAFT_SYSTEM}:"))
        if target is None:
            raise ValueError(
                f"draft {name!r}: refers to a draft that is neither in this transaction nor written before"
            )
        node["reference"] = target
    for child in node.values():
        _point(child, targets, name)
