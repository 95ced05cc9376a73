"""Fences off an older version's transaction of unknown end, before the newer version's drafts are written."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from fhir_adapters.errors import FhirConflict, FhirNotFound, FhirRejected
from fhir_adapters.write_fence import Fenced, build_fence, build_probe, came_first
from monitoring.metrics import FenceOutcome
from pipelines.failures.policy import ELSEWHERE, Trouble, pace_of
from pipelines.ledger.on_wire import Unsettled

_log = logging.getLogger(__name__)
_SEVERAL = 412


class Server(Protocol):
    """The part of `FhirClient` that a fence needs."""

    async def transaction(self, bundle: Mapping[str, Any]) -> dict[str, Any]:
        """See `FhirClient.transaction`."""
        ...


async def fence_off(server: Server, unsettled: Unsettled, *, overtaken_by: str) -> FenceOutcome:
    """Make sure that a transaction which may still be on its way cannot be taken any more.

    A server that takes no fence, or takes what a fence should keep out, holds up no newer draft: that is said in the
    log and counted, and the older draft may still come after the newer one.

    Args:
        server: the FHIR server that it was sent to.
        unsettled: the transaction.
        overtaken_by: identity of the work on the newer version.

    Raises:
        FhirServerError: no answer, or the other transaction is still in the way: to be tried again later.
    """
    sending = unsettled.sending
    fenced = Fenced(unsettled.identity, sending.part, sending.resource_type, sending.name)
    now = datetime.now(UTC)
    try:
        answer = await _past_conflicts(server, build_fence(fenced, overtaken_by=overtaken_by, recorded=now))
        before = came_first(answer)
    except FhirConflict as conflict:
        if conflict.status == _SEVERAL:  # so is what would come: it asks for the same
            return FenceOutcome.HELD
        raise
    except (FhirRejected, FhirNotFound, ValueError) as error:
        _log.warning("work %d: the FHIR server takes no write fence (%s)", unsettled.work_id, error)
        return FenceOutcome.REFUSED
    try:
        await _past_conflicts(server, build_probe(fenced, overtaken_by=overtaken_by, recorded=now))
    except FhirConflict as conflict:
        if conflict.status == _SEVERAL:
            return FenceOutcome.WRITTEN_BEFORE if before else FenceOutcome.HELD
        raise
    except (FhirRejected, FhirNotFound):
        pass
    _log.warning("work %d: a write fence does not hold: conditions that match several are taken", unsettled.work_id)
    return FenceOutcome.NOT_HELD


async def _past_conflicts(server: Server, bundle: Mapping[str, Any]) -> dict[str, Any]:
    """409: the other transaction is being taken at this moment; it is past soon, one way or the other."""
    race = ELSEWHERE[Trouble.WRITE_RACE]
    for attempt in itertools.count(1):
        try:
            return await server.transaction(bundle)
        except FhirConflict as error:
            if attempt == race.attempts or error.status == _SEVERAL:
                raise
        await asyncio.sleep(pace_of(Trouble.WRITE_RACE).wait(attempt - 1))
    raise AssertionError("itertools.count does not end")
