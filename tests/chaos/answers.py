"""A model server and a FHIR server that answer badly: refusals, delays, lost answers, and what is no answer at all."""

from __future__ import annotations

import random
import re
import time
import zlib
from collections.abc import Callable, Iterator

from account import Outcome
from cases import word_of
from hospital_fake import Ask, Refusal
from house import House
from model_fake import Fault
from options import Options
from trial import Trial, trial

#: Share of requests that a passing fault meets.
_SHARE = 0.5


def model_faults(house: House, options: Options) -> Iterator[Outcome]:
    """Every way in which a model server fails."""
    chance = random.Random(options.seed)
    passing: tuple[tuple[Fault, str], ...] = (
        ("500", "model answers 500"),
        ("slow", "model answers slower than its timeout"),
        ("cut", "model's answer cut off in the middle"),
        ("garbage", "model answers 200 with a page"),
    )
    for fault, name in passing:
        with trial(house, options, name) as told:
            house.model.fault = lambda word, fault=fault: fault if chance.random() < _SHARE else ""
            _for_a_while(told, options, lambda: house.model.spoilt, _well(house))
        yield told.outcome
    yield _model_down(house, options)
    with trial(house, options, "model names another patient") as told:
        house.model.fault = lambda word: "another"
        _for_a_while(told, options, lambda: house.model.spoilt, _well(house))
    yield told.outcome
    with trial(house, options, "model keeps to no schema, for one patient in eight") as told:
        house.model.fault = lambda word: "schema" if _chosen(word) else ""
        _for_a_while(told, options, lambda: house.model.spoilt, lambda: None)
        told.flow.stop()
        told.parked_for.update(
            {c.event_id: "model_invalid_output" for c in told.flow.cases if _chosen(word_of(c.resource_id))}
        )
        _until_parked(told)
        _well(house)()
    yield told.outcome


def fhir_faults(house: House, options: Options) -> Iterator[Outcome]:
    """Every way in which a FHIR server refuses, delays, or does what it was asked and does not say so."""
    chance = random.Random(options.seed)
    passing = (
        ("FHIR server answers 503", Refusal(503), ("read", "write")),
        ("FHIR server answers 429 with Retry-After", Refusal(429, retry_after=1), ("write",)),
        ("FHIR server answers 409", Refusal(409), ("write",)),
        ("FHIR server commits and loses the answer", Refusal(0, after=True), ("write",)),
        ("FHIR server cuts its answers off", Refusal(0), ("read", "write")),
    )
    for name, refusal, kinds in passing:
        with trial(house, options, name) as told:
            early = house.hospital.asked_early

            def fault(ask: Ask, refusal: Refusal = refusal, kinds: tuple[str, ...] = kinds) -> Refusal | None:
                return refusal if ask.kind in kinds and chance.random() < _SHARE else None

            house.hospital.fault = fault
            _for_a_while(told, options, lambda: house.hospital.refused, _healed(house))
            told.outcome.expect("tries before Retry-After was over", house.hospital.asked_early - early, 0)
        yield told.outcome
    yield _hospital_down(house, options)
    for status in (400,) if options.quick else (400, 412, 422):
        with trial(house, options, f"FHIR server answers {status}, for one event in eight") as told:
            house.hospital.fault = lambda ask, s=status: Refusal(s) if _refused_for_good(ask) else None
            _for_a_while(told, options, lambda: house.hospital.refused, lambda: None)
            told.flow.stop()
            told.parked_for.update({c.event_id: "fhir_rejected" for c in told.flow.cases if _chosen(c.event_id)})
            _until_parked(told)
            _healed(house)()
        yield told.outcome


def _model_down(house: House, options: Options) -> Outcome:
    with trial(house, options, "model server away") as told:
        house.model.server.down()
        time.sleep(options.outage)
        house.model.server.up()
        told.ended()
    return told.outcome


def _hospital_down(house: House, options: Options) -> Outcome:
    with trial(house, options, "FHIR server away") as told:
        house.hospital.server.down()
        time.sleep(options.outage)
        house.hospital.server.up()
        told.ended()
    return told.outcome


def _for_a_while(told: Trial, options: Options, count: Callable[[], int], end: Callable[[], None]) -> None:
    """At least for its time, and until it was met often enough."""
    before, began = count(), time.monotonic()
    while time.monotonic() - began < options.fault or count() - before < options.least:
        assert time.monotonic() - began < 120, "the fault was hardly ever met"
        time.sleep(0.05)
    end()
    told.ended(count() - before)


def _until_parked(told: Trial) -> None:
    """A fault that never passes is kept until it has parked whom it is meant for."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        states = told.house.states(list(told.parked_for))
        if states and all(state == "parked" for rows in states.values() for _, state, _ in rows):
            return
        time.sleep(0.1)


def _well(house: House) -> Callable[[], None]:
    def end() -> None:
        house.model.fault = lambda word: ""

    return end


def _healed(house: House) -> Callable[[], None]:
    def end() -> None:
        house.hospital.fault = lambda ask: None

    return end


def _chosen(text: str) -> bool:
    """One in eight, always the same ones."""
    return bool(text) and zlib.crc32(text.encode()) % 8 == 0


def _refused_for_good(ask: Ask) -> bool:
    """Transactions of the chosen events."""
    return ask.kind == "write" and re.fullmatch(r"[0-9a-f]{64}", ask.event_id) is not None and _chosen(ask.event_id)
