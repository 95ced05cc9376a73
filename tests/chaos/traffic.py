"""Faults that lie in the events themselves: sent thrice, out of order, poison among them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from account import Outcome
from cases import SOURCE
from flow import Flow
from house import House
from options import Options
from trial import trial

from fhir_adapters.event import ClinicalEvent
from pipelines.kafka.envelope import pack


def thrice(house: House, options: Options) -> Iterator[Outcome]:
    """Each event is sent three times at once, and all of them once more at the end."""
    before = house.ledger.account().duplicates
    with trial(house, options, "each event sent three times, and once more", copies=3) as told:
        time.sleep(options.fault)
        told.flow.stop()
        house.sender.send(told.flow.cases)
        told.ended(3 * len(told.flow.cases))
    again = sum(len(house.sender.told[case.event_id].acknowledged) - 1 for case in told.cases)
    told.outcome.expect("copies recognised", house.ledger.account().duplicates - before, again)
    yield told.outcome


def reordered(house: House, options: Options) -> Iterator[Outcome]:
    """Six versions of one resource arrive in any order, some in one moment and some late."""
    with trial(house, options, "versions of a resource out of order", streaming=False) as told:
        chance = random.Random(options.seed)
        patients = [house.cases.versions(6) for _ in range(options.events // 6)]
        told.cases = [case for versions in patients for case in versions]
        queues = [chance.sample(versions, len(versions)) for versions in patients]
        while queues:
            batch = [queue.pop() for queue in queues if queue and chance.random() < 0.5]
            house.sender.send(batch, side_by_side=4)
            queues = [queue for queue in queues if queue]
            time.sleep(chance.choice((0.0, 0.0, 0.4)))
        told.ended(len(told.cases))
    newest = [versions[-1].event_id for versions in patients]
    states = [state for rows in house.states(newest).values() for _, state, _ in rows]
    told.outcome.expect("newest versions written", states.count("written"), len(newest))
    yield told.outcome


def poison(house: House, options: Options) -> Iterator[Outcome]:
    """One record in a hundred on the topic itself (in ten where it is to be quick) is none of ours."""
    before = house.ledger.account().poison
    share, count = (10, options.events) if options.quick else (100, 3 * options.events)
    with trial(house, options, f"{100 // share} % poison on the topic", streaming=False) as told:
        chance = random.Random(options.seed)
        written = 0
        flow = Flow(house, at_once=options.at_once, cases=house.cases.make(count, seed=options.seed))
        told.flow = flow
        while len(flow.cases) < count:
            while written * share < len(flow.cases):
                house.poison([_poison(chance, written)])
                written += 1
            time.sleep(0.02)
        told.ended(written)
    told.outcome.expect("poison counted", house.ledger.account().poison - before, written)
    yield told.outcome


def _poison(chance: random.Random, number: int) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """A record that is no event, in one of the ways that one can be."""
    event = ClinicalEvent(SOURCE, "R4", "Encounter", f"poison-{number}", "1", None, f"Patient/x{number}", b"{}")
    good = pack(event, salt="salt", received_at=datetime.now(UTC))
    without_id = [header for header in good.headers if header[0] != "ce_id"]
    other_type = [(name, b"com.example.order" if name == "ce_type" else value) for name, value in good.headers]
    nul = [(name, b"a\0b" if name == "ce_id" else value) for name, value in good.headers]
    return chance.choice(
        [
            (good.key, b"<not json>", good.headers),
            (good.key, b"[1, 2]", good.headers),
            (good.key, None, []),
            (None, b"hello", []),
            (None, good.value, good.headers),
            (good.key, good.value, without_id),
            (good.key, good.value, other_type),
            (good.key, good.value, nul),
            (good.key, b"\xff\xfe\x00", [("ce_id", b"\xff\xfe")]),
        ]
    )
