"""Plays the journeys: stage by stage, every patient; waits until each stage's drafts are written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
from sqlalchemy import Engine

from pipelines.config import Config, Source
from pipelines.demo.added import added
from pipelines.demo.hospital import DemoPatient, HospitalServer
from pipelines.demo.journeys import identity, journey
from pipelines.errors import CareloomError
from pipelines.ledger.journal import Piece, pieces
from plugins.scenario import Stage

#: Seconds without any change after which the demo gives up.
PATIENCE = 120.0
_LOOK_EVERY = 0.5


@dataclass(slots=True)
class Played:
    """What was played: the events' identities, and how many of them were only delivered again."""

    event_ids: list[str] = field(default_factory=list)
    replayed: int = 0
    began: float = field(default_factory=time.monotonic)


Progress = Callable[[Stage, Sequence[Piece], int], None]
"""Told the stage, the work of its events so far, and the number of those events."""


def play(
    config: Config, engine: Engine, server: HospitalServer, people: Sequence[DemoPatient], progress: Progress
) -> Played:
    """Play all journeys.

    A step that happened in an earlier run does not happen again: its event is delivered again, as a sender would that
    did not get its answer.

    Raises:
        CareloomError: nothing moved for `PATIENCE` seconds; the message says what stands where.
    """
    source = config.sources[0]
    steps = [step for n, person in enumerate(people) for step in journey(person.id, person.problem, n, config.locale)]
    steps += added(people, config.locale, datetime.now(UTC))
    played = Played()
    with httpx.Client(timeout=30) as gateway:
        for stage in (Stage.PRE_VISIT, Stage.IN_VISIT, Stage.POST_VISIT):
            ids = []
            for step in (step for step in steps if step.stage is stage):
                version = server.happen(step)
                if version is None:
                    _deliver_again(gateway, config, source, server.version(step))
                    played.replayed += 1
                ids.append(identity(step, source.name, source.fhir_version, version or str(step.version)))
            _wait(engine, stage, ids, progress)
            played.event_ids += ids
    return played


def _deliver_again(gateway: httpx.Client, config: Config, source: Source, body: bytes) -> None:
    headers = {"authorization": f"Bearer {source.token.get_secret_value()}", "content-type": "application/fhir+json"}
    answer = gateway.post(f"{config.gateway.url}/fhir/{source.name}", content=body, headers=headers)
    if answer.is_error:
        raise CareloomError(f"the gateway answers {answer.status_code} to an event that it took before")


def _wait(engine: Engine, stage: Stage, ids: Sequence[str], progress: Progress) -> None:
    seen: object = None
    moved = time.monotonic()
    while True:
        work = pieces(engine, ids)
        progress(stage, work, len(ids))
        started = {piece.event_id for piece in work}
        if len(started) == len(ids) and not any(piece.unfinished for piece in work):
            return
        standing = Counter((piece.state, piece.error_class) for piece in work)
        if (len(started), standing) != seen:
            seen, moved = (len(started), standing), time.monotonic()
        if time.monotonic() - moved > PATIENCE:
            states = ", ".join(f"{n} {state}{f' ({error})' if error else ''}" for (state, error), n in standing.items())
            raise CareloomError(
                f"{stage}: nothing moved for {PATIENCE:.0f} s; {len(ids) - len(started)} of {len(ids)} events have not"
                f" come, the others are: {states or 'nowhere'}; see `careloom status` and the logs"
            )
        time.sleep(_LOOK_EVERY)
