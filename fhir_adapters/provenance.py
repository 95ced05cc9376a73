"""Who made a draft and of what, as FHIR R4: the model or the rules as a Device, and the Provenance that names it.

HAPI drops the version from `Provenance.entity.what.reference`, so it is also in the `display`. Scenario, prompt
version, rules and guards stand as URIs in `Provenance.policy`: the plan that the activity followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from fhir_adapters.references import literal

DEVICE_SYSTEM = "urn:careloom:device"
REGISTRATION_SYSTEM = "urn:careloom:model-registration"
PASSAGE_SYSTEM = "urn:careloom:passage"


@dataclass(frozen=True, slots=True)
class Author:
    """What made the drafts.

    Attributes:
        kind: a language model, or the scenario's own rules.
        name: of the model, or of the rules.
        version: of it.
        registration_number: the model's registration (备案号), or None.
        stand_in: true where a stand-in answered and no model did.
        intended_use, limits, card: what the maker says that it is for and not for, and where its model card is.
    """

    kind: Literal["model", "rules"]
    name: str
    version: str
    registration_number: str | None = None
    stand_in: bool = False
    intended_use: str = ""
    limits: str = ""
    card: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the drafts come of.

    Attributes:
        scenario: id, for example "pre_visit.triage".
        scenario_version: of it.
        prompt_version: of its prompt; None where no prompt was used.
        trigger: "Type/id", with "/_history/<version>" where known, of the event's resource.
        rules: codes of the rules that found something.
        guards: "<id>:<version>" of those that have looked at the answer.
    """

    scenario: str
    scenario_version: str
    prompt_version: str | None
    trigger: str
    rules: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()


def device_id(author: Author) -> str:
    """The value of the Device's identifier: the same for the same author, what is said of it included.

    An author of whom no more is said than before there was more to say keeps the Device that it had.
    """
    said = (author.kind, author.name, author.version, author.registration_number or "", str(author.stand_in))
    described = (author.intended_use, author.limits, author.card)
    said = (*said, *described) if any(described) else said  # type: ignore[assignment]
    return f"{author.kind}-{hashlib.sha256(chr(31).join(said).encode()).hexdigest()[:32]}"


def device(author: Author) -> dict[str, Any]:
    """The Device that an author is; a stand-in says in its name, type and note that it is none.

    Its limits are `safety`, R4's element for what its users must know; intended use and model card have no element of
    their own (`url` is where a device is reached), and are notes.
    """
    identifiers = [{"system": DEVICE_SYSTEM, "value": device_id(author)}]
    if author.registration_number:
        identifiers.append({"system": REGISTRATION_SYSTEM, "value": author.registration_number})
    device: dict[str, Any] = {
        "resourceType": "Device",
        "identifier": identifiers,
        "status": "active",
        "deviceName": [{"name": author.name, "type": "model-name"}],
        "type": {"text": "Rules engine" if author.kind == "rules" else "Language model"},
        "version": [{"value": author.version}],
    }
    if author.stand_in:
        device["deviceName"] = [{"name": f"STAND-IN, not a model: {author.name}", "type": "model-name"}]
        device["type"] = {"text": "Stand-in for a language model"}
    if notes := list(_notes(author)):
        device["note"] = [{"text": note} for note in notes]
    if author.limits:
        device["safety"] = [{"text": author.limits}]
    return device


def _notes(author: Author) -> Iterator[str]:
    if author.stand_in:
        yield "A stand-in answered in place of a language model. Its drafts have no medical value."
    if author.intended_use:
        yield f"Intended use: {author.intended_use}"
    if author.card:
        yield f"Model card: {author.card}"


def provenance(
    *,
    targets: Sequence[Mapping[str, Any]],
    agent: str,
    origin: Origin,
    sources: Iterable[str],
    tag: Mapping[str, str],
    recorded: datetime,
) -> dict[str, Any]:
    """The Provenance of the resources at `targets`, all made by the Device at `agent`.

    Args:
        targets: References to what was made.
        agent: reference to the Device.
        origin: what they come of.
        sources: "Type/id" of what they rest on, beside the trigger.
        tag: Coding by which this Provenance is found again.
        recorded: when (timezone-aware).
    """
    trigger = literal(origin.trigger)
    rest = dict.fromkeys(source for source in sources if trigger is None or source != trigger.relative)
    return {
        "resourceType": "Provenance",
        "meta": {"tag": [dict(tag)]},
        "target": [dict(target) for target in targets],
        "recorded": recorded.isoformat(timespec="milliseconds"),
        "policy": _policies(origin),
        "activity": _concept("http://terminology.hl7.org/CodeSystem/v3-DataOperation", "CREATE", "create"),
        "agent": [
            {
                "type": _concept(
                    "http://terminology.hl7.org/CodeSystem/provenance-participant-type", "assembler", "Assembler"
                ),
                "who": {"reference": agent},
            }
        ],
        "entity": [{"role": "source", "what": _what(reference)} for reference in (origin.trigger, *rest)],
    }


def _concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _policies(origin: Origin) -> list[str]:
    """What the drafts were made by, as URIs (Provenance.policy)."""
    policies = [f"urn:careloom:scenario:{quote(origin.scenario)}:{quote(origin.scenario_version)}"]
    if origin.prompt_version is not None:
        policies.append(f"urn:careloom:prompt:{quote(origin.scenario)}:{quote(origin.prompt_version)}")
    policies += [f"urn:careloom:rule:{quote(origin.scenario)}:{quote(rule)}" for rule in origin.rules]
    return policies + [f"urn:careloom:guard:{quote(guard, safe=':')}" for guard in origin.guards]


def _what(reference: str) -> dict[str, Any]:
    if reference.startswith(f"{PASSAGE_SYSTEM}:"):  # no resource: HAPI refuses a reference to what is not there
        return {"identifier": {"system": PASSAGE_SYSTEM, "value": reference.removeprefix(f"{PASSAGE_SYSTEM}:")}}
    found = literal(reference)
    if found is None or found.version is None:
        return {"reference": reference}
    return {"reference": reference, "display": f"{found.relative}, version {found.version}"}
