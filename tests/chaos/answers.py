"""A model server and a FHIR server that answer badly: refusals, delays, lost answers, and what is no answer at all."""

from __future__ import annotations

import contextlib
import random
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from account import Outcome
from cases import Case, word_of
from hospital_fake import Ask, Refusal
from house import House
from model_fake import Fault
from options import Options
from servers import until
from trial import Trial, trial

#: Share of requests that a passing fault meets.
_SHARE = 0.5


def model_faults(house: House, options: Options) -> Iterator[Outcome]:
    """Every way in which a model server fails."""
    chance = random.Random(options.seed)
    passing: dict[str, tuple[Fault, ...]] = {
        "model answers 500": ("500",),
        "model answers slower than its timeout": ("slow",),
        "model's answer cut off in the middle": ("cut",),
        "model answers 200 with a page": ("garbage",),
    }
    if options.quick:
        passing = {"model answers 500, slowly, cut off, with a page": tuple(f for fs in passing.values() for f in fs)}
    for name, faults in passing.items():
        with trial(house, options, name) as told:
            house.model.fault = lambda word, fs=faults: chance.choice(fs) if chance.random() < _SHARE else ""
            _for_a_while(told, options, lambda: house.model.spoilt, _well(house))
        yield told.outcome
    yield _model_down(house, options)
    with trial(house, options, "model names another patient") as told:
        house.model.fault = lambda word: "another"
        _for_a_while(told, options, lambda: house.model.spoilt, _well(house))
    yield told.outcome
    with trial(house, options, "model keeps to no schema, for one patient in eight") as told:
        spoilt = _Chosen(told, "model_invalid_output", lambda case: word_of(case.resource_id))
        house.model.fault = lambda word: "schema" if spoilt.meets(word) else ""
        spoilt.until_parked(options, lambda: house.model.spoilt)
        _well(house)()
    yield told.outcome


def fhir_passing(house: House, options: Options) -> Iterator[Outcome]:
    """A FHIR server refuses for now, or does what it was asked and does not say so."""
    chance = random.Random(options.seed)
    passing: dict[str, tuple[_Passing, ...]] = {
        "FHIR server answers 503": (_Passing(Refusal(503), reads=True),),
        "FHIR server answers 429 with Retry-After": (_Passing(Refusal(429, retry_after=1)),),
        "FHIR server answers 409": (_Passing(Refusal(409)),),
        "FHIR server commits and loses the answer": (_Passing(Refusal(0, after=True)),),
        "FHIR server cuts its answers off": (_Passing(Refusal(0), reads=True),),
    }
    if options.quick:
        passing = {"FHIR server 503, 429, 409, answers lost": tuple(p for ps in passing.values() for p in ps)}
    for name, faults in passing.items():
        with trial(house, options, name) as told:
            early = house.hospital.asked_early

            def fault(ask: Ask, faults: tuple[_Passing, ...] = faults) -> Refusal | None:
                if chance.random() >= _SHARE:
                    return None
                passed = chance.choice(faults)
                return passed.refusal if ask.kind == "write" or passed.reads else None

            house.hospital.fault = fault
            _for_a_while(told, options, lambda: house.hospital.refused, _healed(house))
            told.outcome.expect("tries before Retry-After was over", house.hospital.asked_early - early, 0)
        yield told.outcome


def fhir_faults(house: House, options: Options) -> Iterator[Outcome]:
    """A FHIR server is away, or refuses some events for good."""
    yield _hospital_down(house, options)
    for status in (400,) if options.quick else (400, 412, 422):
        with trial(house, options, f"FHIR server answers {status}, for one event in eight") as told:
            refused = _Chosen(told, "fhir_rejected", lambda case: case.event_id)
            house.hospital.fault = lambda ask, s=status, r=refused: (
                Refusal(s) if ask.kind == "write" and r.meets(ask.event_id) else None
            )
            refused.until_parked(options, lambda: house.hospital.refused)
            _healed(house)()
        yield told.outcome


@dataclass(frozen=True)
class _Passing:
    """A refusal that passes; of reads too, or of transactions alone."""

    refusal: Refusal
    reads: bool = False


class _Chosen:
    """One event in eight meets a fault that never passes, until it is parked; all others go on, before and after.

    Args:
        told: the trial, with its stream of events.
        error_class: what the chosen ones are parked for.
        name: an event's name, as the server that fails knows it.
    """

    def __init__(self, told: Trial, error_class: str, name: Callable[[Case], str]) -> None:
        self._told = told
        self._error_class = error_class
        self._name = name
        self._names: frozenset[str] | None = None
        # the stream goes on since a moment: what it has sent by now may be written before the fault begins
        self._earlier = frozenset(name(case) for case in list(told.flow.cases)) if told.flow else frozenset()

    def meets(self, name: str) -> bool:
        """Whether who is named so is one of them. None is chosen any more once it is enough."""
        if self._names is not None:
            return name in self._names
        return bool(name) and name not in self._earlier and zlib.crc32(name.encode()) % 8 == 0

    def until_parked(self, options: Options, count: Callable[[], int]) -> None:
        """Let the fault be met often enough, choose no more, and wait until the chosen ones are parked."""
        before, told, flow = count(), self._told, self._told.flow
        assert flow is not None
        _while(options, lambda: count() - before)
        chosen = [case for case in list(flow.cases) if self.meets(self._name(case))]
        self._names = frozenset(self._name(case) for case in chosen)
        told.parked_for.update({case.event_id: self._error_class for case in chosen})

        def parked() -> bool:
            states = told.house.states(list(told.parked_for))
            return bool(states) and all(state == "parked" for rows in states.values() for _, state, _ in rows)

        with contextlib.suppress(AssertionError):  # the account tells who is not
            until(parked, "parked", 120, every=0.1)
        told.ended(count() - before)


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
    before = count()
    _while(options, lambda: count() - before)
    end()
    told.ended(count() - before)


def _while(options: Options, met: Callable[[], int]) -> None:
    """At least for the time of a fault, and until it was met often enough."""
    began = time.monotonic()
    while time.monotonic() - began < options.fault or met() < options.least:
        assert time.monotonic() - began < 120, "the fault was hardly ever met"
        time.sleep(0.05)


def _well(house: House) -> Callable[[], None]:
    def end() -> None:
        house.model.fault = lambda word: ""

    return end


def _healed(house: House) -> Callable[[], None]:
    def end() -> None:
        house.hospital.fault = lambda ask: None

    return end
