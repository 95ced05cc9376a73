"""The demo's clinician, made up: decides on most of the drafts as an EHR would have a person do (docs/review.md)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from fhir_adapters.decision import Verdict, decision_of, identity_of
from pipelines.demo.hospital import HospitalServer
from pipelines.errors import CareloomError
from pipelines.ledger.decided import decisions_on

CLINICIAN: Mapping[str, Any] = {
    "resourceType": "Practitioner",
    "id": "demo-clinician",
    "active": True,
    "name": [{"text": "Demo clinician, made up by `careloom demo`"}],
}
#: What is decided on the drafts in turn, in the order of their identities; None leaves them waiting.
_TURNS = (
    Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.EDITED, Verdict.ACCEPTED, Verdict.REJECTED,
    Verdict.ACCEPTED, None, Verdict.EDITED, Verdict.ACCEPTED, None,
)  # fmt: skip
#: Marks the draft that an edit has gone through: the demo changes no word of it.
_EDITED_TAG = {"system": "urn:careloom:demo", "code": "edited"}
#: Seconds that decisions may take from the FHIR server to the ledger.
PATIENCE = 120.0
_LOOK_EVERY = 0.5


def decide(server: HospitalServer, event_ids: Collection[str]) -> dict[str, int]:
    """Decide on what waits, by PUT; returns verdict -> how many. A second time nothing is left to do.

    Args:
        server: the hospital's.
        event_ids: on whose drafts.

    Raises:
        CareloomError: the server does not do what is asked.
    """
    put = Counter({verdict.value: 0 for verdict in Verdict if verdict is not Verdict.WITHDRAWN})
    server.put(CLINICIAN)
    for n, task in enumerate(_approvals(server, event_ids)):
        verdict = _TURNS[n % len(_TURNS)]
        if verdict is None or task["status"] != "requested":
            continue
        if verdict is Verdict.EDITED:
            task = {**task, "output": [{"type": {"text": "edited"}, "valueReference": _edited(server, task)}]}
        status = "rejected" if verdict is Verdict.REJECTED else "completed"
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        owner = {"reference": f"Practitioner/{CLINICIAN['id']}"}
        server.put({**task, "status": status, "owner": owner, "lastModified": now})
        put[verdict.value] += 1
    return dict(put)


def await_decisions(engine: Engine, server: HospitalServer, event_ids: Sequence[str]) -> dict[str, int]:
    """Wait until every decision at the server, this run's and earlier ones', is in the ledger; verdict -> how many.

    Raises:
        CareloomError: they did not come within `PATIENCE`, or say something else there.
    """
    said = (decision_of(task) for task in _approvals(server, event_ids))
    wanted = Counter(one.verdict.value for one in said if one is not None)
    give_up = time.monotonic() + PATIENCE
    while (found := Counter(row.verdict for row in decisions_on(engine, event_ids))) != wanted:
        if time.monotonic() > give_up:
            raise CareloomError(
                f"decisions at the FHIR server: {dict(wanted)}, in the ledger: {dict(found)}; see `careloom status`,"
                " the logs, and careloom_decisions_not_taken_total"
            )
        time.sleep(_LOOK_EVERY)
    return dict(sorted(found.items()))


def _approvals(server: HospitalServer, event_ids: Collection[str]) -> list[dict[str, Any]]:
    """The Tasks that ask for a decision on these events' drafts, in the order of their identities."""
    found = {
        identity: task
        for task in server.approvals()
        if (identity := identity_of(task)) is not None and identity.partition(":")[0] in event_ids
    }
    return [found[identity] for identity in sorted(found)]


def _edited(server: HospitalServer, task: Mapping[str, Any]) -> dict[str, str]:
    """Edit the first draft in its place; returns the reference to it."""
    reference = {"reference": task["focus"]["reference"]}
    draft = server.get(reference["reference"])
    draft["meta"].setdefault("tag", []).append(_EDITED_TAG)
    server.put(draft)
    return reference
