"""From the outbox to the FHIR server: one transaction for each part of a result, recognised when it is sent again."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from fhir_adapters.approval import APPROVE
from fhir_adapters.drafts import Transaction, build_transaction, parse_transaction_response
from fhir_adapters.errors import FhirConflict, FhirNotFound, FhirServerError, FhirUnavailable
from fhir_adapters.provenance import Author, Origin
from pipelines.errors import ErrorClass, StepFailed
from pipelines.fail_points import fail_point
from pipelines.failures.policy import ELSEWHERE, Trouble, pace_of
from pipelines.ledger.on_wire import Sending
from pipelines.ledger.rows import Written
from pipelines.runner.fencing import Server, fence_off
from pipelines.runner.leave import Leave
from pipelines.telemetry.steps import Step, timed
from plugins.fhir_text import DEVICE
from plugins.scenario import Draft

Part = Literal["rules", "model"]

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_PRECONDITION_FAILED = 412
_REQUEST_TIMEOUT = 408
_SERVER_ERRORS = 500
_OURS_TO_MEND = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is to be written for one piece of work, in one transaction.

    Attributes:
        drafts: the scenario's; may be none.
        author: what made them.
        origin: what they come of.
        recorded: when they were made (timezone-aware).
        part: "rules" for what was written before the model was asked, else "model".
        earlier: name -> "Type/id" of drafts that the other part has written.
        approval: what a person is asked about them (`pipelines.runner.approval`); None where nobody is.
    """

    drafts: Sequence[Draft]
    author: Author
    origin: Origin
    recorded: datetime
    part: Part = "model"
    earlier: Mapping[str, str] | None = None
    approval: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What the server said.

    Attributes:
        written: for the ledger.
        references: name -> "Type/id" of each draft.
    """

    written: Written
    references: Mapping[str, str]


def pack(outgoing: Outgoing) -> dict[str, Any]:
    """As JSON for the ledger's outbox.

    Raises:
        StepFailed: SCENARIO_ERROR: a draft is not what JSON, PostgreSQL and FHIR can hold.
    """
    try:
        packed = orjson.dumps(
            {
                "drafts": [{"name": d.name, "resource": d.resource, "sources": d.sources} for d in outgoing.drafts],
                "author": _author(outgoing.author),
                "origin": asdict(outgoing.origin),
                "recorded": outgoing.recorded.isoformat(),
                "part": outgoing.part,
                "earlier": dict(outgoing.earlier or {}),
                "approval": outgoing.approval,
            },
            default=_plain,
        )
    except orjson.JSONEncodeError:
        raise _not_writable("a draft holds a value that JSON does not know, or a lone surrogate") from None
    if _NUL.search(packed):
        raise _not_writable("a draft holds the character U+0000")
    whole: dict[str, Any] = orjson.loads(packed)
    return whole


def _author(author: Author) -> dict[str, Any]:
    """What is not said of it is left out: a worker of a release before this one reads the rest."""
    later = ("intended_use", "limits", "card")
    return {name: value for name, value in asdict(author).items() if value or name not in later}


def unpack(packed: Mapping[str, Any]) -> Outgoing:
    """What `pack` made, also in a release before there were approvals: nobody was asked then."""
    origin: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in packed["origin"].items()}
    return Outgoing(
        drafts=[Draft(d["name"], d["resource"], tuple(d["sources"])) for d in packed["drafts"]],
        author=Author(**packed["author"]),
        origin=Origin(**origin),
        recorded=datetime.fromisoformat(packed["recorded"]),
        part=packed["part"],
        earlier=packed["earlier"],
        approval=packed.get("approval"),
    )


async def send(server: Server, identity: str, outgoing: Outgoing, *, leave: Leave) -> Sent:
    """Write it; what an earlier try has written is recognised, and a lost answer does no harm.

    Args:
        server: the source's FHIR server.
        identity: of the piece of work.
        outgoing: what is to be written.
        leave: asked right before each transaction goes out; what it raises stops it. Older versions' transactions that
            may be on their way are fenced off first.

    Raises:
        StepFailed: of a class FHIR_*, or SCENARIO_ERROR for drafts that can never be written.
    """
    if not outgoing.drafts:
        return Sent(Written((), 0, 0), {})
    transaction = _transaction(identity, outgoing)
    try:
        with timed(Step.WRITE, outgoing.part, "client", careloom__fhir__part=outgoing.part):
            answer = await _past_conflicts(server, identity, transaction.bundle, _sending(outgoing), leave)
        answered = parse_transaction_response(transaction, answer)
    except FhirServerError as error:
        raise failure(error, writing=True) from None
    written = [draft for draft in answered if draft.name != APPROVE]
    approval = next((task.reference for task in answered if task.name == APPROVE), None)
    created = sum(draft.created for draft in written)
    return Sent(
        Written(tuple(draft.reference for draft in written), created, len(written) - created, approval),
        {draft.name: draft.reference for draft in written},
    )


def failure(error: FhirServerError, *, writing: bool = False) -> StepFailed:
    """What a FHIR server's refusal means for a piece of work. A wrong token of ours is no fault of the event.

    Args:
        error: what the server, or the lack of one, said.
        writing: whether something was to be written.
    """
    if isinstance(error, FhirUnavailable) or error.status in _OURS_TO_MEND:
        return StepFailed(ErrorClass.FHIR_UNAVAILABLE, str(error), retry_after=error.retry_after, writing=writing)
    if isinstance(error, FhirConflict) and error.status != _PRECONDITION_FAILED:
        return StepFailed(ErrorClass.FHIR_CONFLICT, str(error), retry_after=error.retry_after, writing=writing)
    remedy = ""
    if isinstance(error, FhirConflict):
        remedy = "; several resources carry the identity of one draft: remove the copies"
    elif isinstance(error, FhirNotFound):
        remedy = "; check the source's base_url"
    return StepFailed(ErrorClass.FHIR_REJECTED, f"{error}{remedy}", writing=writing)


def referred(drafts: Sequence[Draft]) -> set[str]:
    """Names of the drafts that these refer to and that are not among them."""
    found: set[str] = set()
    pending: list[Any] = [draft.resource for draft in drafts]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            reference = node.get("reference")
            if isinstance(reference, str) and reference.startswith("urn:careloom:draft:"):
                found.add(reference.removeprefix("urn:careloom:draft:"))
            pending.extend(node.values())
        elif isinstance(node, list | tuple):
            pending.extend(node)
    return found - {draft.name for draft in drafts}


async def _past_conflicts(
    server: Server, identity: str, bundle: Mapping[str, Any], sending: Sending, leave: Leave
) -> dict[str, Any]:
    """A transaction that got in the way is past in a moment: `Trouble.WRITE_RACE` says how often that is hoped for."""
    race = ELSEWHERE[Trouble.WRITE_RACE]
    for attempt in itertools.count(1):
        while unsettled := await leave.confirm(sending):
            for one in unsettled:
                await leave.fenced(one, await fence_off(server, one, overtaken_by=identity))
        fail_point("runner.leaving")
        try:
            answer = await server.transaction(bundle)
        except FhirServerError as error:
            if _is_an_answer(error):
                leave.answered(sending)
            race_lost = isinstance(error, FhirConflict) and error.status != _PRECONDITION_FAILED
            if attempt == race.attempts or not race_lost:
                raise
        else:
            leave.answered(sending)
            return answer
        await asyncio.sleep(pace_of(Trouble.WRITE_RACE).wait(attempt - 1))
    raise AssertionError("itertools.count does not end")


def _is_an_answer(error: FhirServerError) -> bool:
    """Whether the server itself refused: a proxy's 5xx, or none, leave open what becomes of the transaction."""
    return error.status is not None and error.status < _SERVER_ERRORS and error.status != _REQUEST_TIMEOUT


def _sending(outgoing: Outgoing) -> Sending:
    first = outgoing.drafts[0]
    return Sending(outgoing.part, str(first.resource["resourceType"]), first.name)


def _transaction(identity: str, outgoing: Outgoing) -> Transaction:
    try:
        transaction = build_transaction(
            outgoing.drafts,
            identity=identity,
            author=outgoing.author,
            origin=outgoing.origin,
            recorded=outgoing.recorded,
            part=outgoing.part,
            earlier=outgoing.earlier,
            approval=outgoing.approval,
        )
    except ValueError as error:
        raise _not_writable(str(error)) from None
    _name_device(transaction.bundle, transaction.bundle["entry"][0]["fullUrl"])
    return transaction


def _name_device(node: Any, url: str) -> None:
    """Put the transaction's own Device where a draft says `urn:careloom:device`, in place."""
    if isinstance(node, list):
        for item in node:
            _name_device(item, url)
    elif isinstance(node, dict):
        if node.get("reference") == DEVICE:
            node["reference"] = url
        for child in node.values():
            _name_device(child, url)


def _not_writable(why: str) -> StepFailed:
    return StepFailed(ErrorClass.SCENARIO_ERROR, f"the scenario's drafts cannot be written: {why}")


def _plain(value: object) -> Any:
    """What orjson does not take as it is: a decimal that prints as written, and read-only mappings and sequences."""
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError
