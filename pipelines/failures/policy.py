"""What each failure means: the one table that retries, waits, parking and breakers read. No other file decides it.

`POLICIES` is about pieces of work, one row an `ErrorClass`; `ELSEWHERE` is about everything else that fails on the way.
`docs/failures.md` is written from both by `python -m pipelines.failures.reference`.

There is one layer of retries: the ledger's. Two blips are tried again on the spot, as another run would cost more than
they do (`Trouble.MODEL_BLIP`, `Trouble.WRITE_RACE`); both are bounded by their row here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from pipelines.errors import ErrorClass

#: Seconds of a Retry-After that are obeyed at most: whoever asks for more is asked again after these.
LONGEST_RETRY_AFTER = 3600.0
#: Failures in a row, of several pieces of work, after which a dependency counts as down.
BREAKS_AFTER = 5


class Action(StrEnum):
    """What becomes of what failed."""

    RETRY = "retry"  # tried again; parked after the last attempt
    WAIT = "wait"  # the dependency is waited for
    PARK = "park"  # never tried again by itself: a person decides
    DEAD_LETTER = "dead-letter"  # set aside with its position, and passed over
    REFUSE = "refuse"  # the sender is told no, and why


class Counts(StrEnum):
    """When a failure counts as an attempt of the event's own.

    ALONE spares the first failure: only when the dependency has served somebody else since is it known that the event
    fails alone. UNLESS_ALL_FAIL counts from the first, as the event is the likelier cause, and stops when the breaker
    opens: it takes failures of several events in a row, with no success between them.
    """

    ALWAYS = "always"
    UNLESS_ALL_FAIL = "unless all fail"
    ALONE = "when it fails alone"
    NEVER = "never"


class Feeds(StrEnum):
    """Which dependency's breaker a failure feeds; `pipelines.failures.dependencies` names the dependency itself."""

    MODEL = "model"
    FHIR = "fhir"
    KAFKA = "kafka"
    AIRFLOW = "airflow"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait before the n-th try after a failure: full jitter (Brooker, "Exponential Backoff And Jitter",
    2015) up to `first * 2^n`, and never more than `cap`.

    Attributes:
        first, cap: seconds.
    """

    first: float
    cap: float

    def wait(self, nth: int, retry_after: float | None = None) -> float:
        """Seconds; never before the server's Retry-After.

        Args:
            nth: how many waits there were before this one.
            retry_after: seconds that the server asked for.
        """
        jittered = random.uniform(0, min(self.cap, self.first * 2.0 ** min(nth, 32)))  # noqa: S311 not a secret
        return max(jittered, min(retry_after or 0.0, LONGEST_RETRY_AFTER))

    def scaled(self, factor: float) -> Pace:
        """The same shape, slower or faster."""
        return Pace(self.first * factor, self.cap * factor)


#: As `dispatcher.backoff` and `dispatcher.backoff_cap` are set by default; rows say how much slower or faster they are.
USUAL = Pace(1.0, 60.0)


@dataclass(frozen=True, slots=True)
class Policy:
    """One row of the table.

    Attributes:
        action: what becomes of it.
        counts: when it counts as an attempt.
        why: one line: what it means.
        remedy: what an operator does.
        feeds: the breaker that it feeds.
        slower: waits are so many times the configured backoff and its cap.
        pace: waits that no configuration changes; then `slower` means nothing.
        attempts: counted attempts after which a person has to decide; None for `dispatcher.max_attempts`.
        time_limit: how long it may go on failing, counted or not, before a person has to decide; None for no limit.
        hops: of the way, in which it may happen (`monitoring.metrics.HOPS`), the likeliest first; of pieces of work.
    """

    action: Action
    counts: Counts
    why: str
    remedy: str
    feeds: Feeds | None = None
    slower: float = 1.0
    pace: Pace | None = None
    attempts: int | None = None
    time_limit: timedelta | None = None
    hops: tuple[str, ...] = ()

    def hop(self, seen: str | None) -> str:
        """Where a failure is counted: in the hop that it was `seen` in, if it may happen there."""
        return seen if seen in self.hops else self.hops[0]

    def counted(self, *, down: bool, served_others: bool) -> bool:
        """Whether a failure is an attempt of the event's own.

        Args:
            down: the dependency's breaker is not closed.
            served_others: the dependency has served somebody since the event's last failure.
        """
        if self.counts is Counts.ALONE:
            return served_others and not down
        return self.counts is Counts.ALWAYS or (self.counts is Counts.UNLESS_ALL_FAIL and not down)


POLICIES: Mapping[ErrorClass, Policy] = {
    ErrorClass.MODEL_UNAVAILABLE: Policy(
        Action.WAIT, Counts.ALONE, feeds=Feeds.MODEL, hops=("answered",),
        why="The model server gave no answer, 429 or 5xx, or does not take our key or the model's name.",
        remedy="Start the model server, or correct model.url, name or api_key; what waits goes on by itself.",
    ),
    ErrorClass.MODEL_TIMEOUT: Policy(
        Action.RETRY, Counts.UNLESS_ALL_FAIL, feeds=Feeds.MODEL, hops=("answered",),
        why="The model server took the request and did not answer in model.timeout seconds.",
        remedy="For one event: look at the length of its prompt, retry or discard. For many: the server hangs or is "
        "overloaded.",
    ),
    ErrorClass.MODEL_REJECTED: Policy(
        Action.RETRY, Counts.UNLESS_ALL_FAIL, feeds=Feeds.MODEL, attempts=2, hops=("answered",),
        why="The model server does not take the request (4xx): too long for its context, or a schema it does not know.",
        remedy="Lower runner.max_prompt_chars, or serve the model with a longer context; then retry.",
    ),
    ErrorClass.MODEL_INVALID_OUTPUT: Policy(
        Action.RETRY, Counts.UNLESS_ALL_FAIL, feeds=Feeds.MODEL, hops=("guarded", "answered"),
        why="The model answered, and the answer is not what the scenario may be told.",
        remedy="For one event: retry or discard. For many: the wrong model is served, or without structured output.",
    ),
    ErrorClass.FHIR_UNAVAILABLE: Policy(
        Action.WAIT, Counts.ALONE, feeds=Feeds.FHIR, hops=("context", "written"),
        why="The hospital's FHIR server gave no answer, 429 or 5xx, or does not take our token (401, 403).",
        remedy="See to the server, or renew sources.server_token; what waits goes on by itself.",
    ),
    ErrorClass.FHIR_REJECTED: Policy(
        Action.RETRY, Counts.UNLESS_ALL_FAIL, feeds=Feeds.FHIR, hops=("context", "written"),
        why="The FHIR server refuses this read or these drafts (4xx), or the source has no server.",
        remedy="The message names the request: correct base_url, the server's rules or the scenario; then retry.",
    ),
    ErrorClass.FHIR_CONFLICT: Policy(
        Action.WAIT, Counts.ALONE, feeds=Feeds.FHIR, slower=0.1, hops=("written",),
        why="Another transaction got in the way (409), also after the tries on the spot.",
        remedy="None as a rule. If it stays: look in the server's log for what locks the resources.",
    ),
    ErrorClass.KAFKA_UNAVAILABLE: Policy(
        Action.WAIT, Counts.ALONE, feeds=Feeds.KAFKA, hops=("context",),
        why="Kafka did not give the event's bytes.",
        remedy="See to the broker; what waits goes on by itself.",
    ),
    ErrorClass.PAYLOAD_GONE: Policy(
        Action.RETRY, Counts.ALWAYS, attempts=2, hops=("context",),
        why="Kafka no longer has the event's bytes: retention took them, or the topic was made anew.",
        remedy="`careloom replay --event EVENT` has them from the FHIR server again; then retry; where that has "
        "them no more, discard.",
    ),
    ErrorClass.PAYLOAD_INVALID: Policy(
        Action.PARK, Counts.ALWAYS, attempts=1, hops=("context",),
        why="The event's bytes are not the resource that it says it is; they will never be.",
        remedy="Have the source send the resource again; discard.",
    ),
    ErrorClass.SCENARIO_ERROR: Policy(
        Action.RETRY, Counts.ALWAYS, hops=("answered", "context", "guarded", "written"),
        why="The scenario's own code failed, or made drafts that cannot be written.",
        remedy="The message names file and line: mend the plugin, then retry.",
    ),
    ErrorClass.SCENARIO_MISSING: Policy(
        Action.WAIT, Counts.NEVER, slower=10.0, time_limit=timedelta(days=1), hops=("context",),
        why="The scenario is not installed where Airflow's tasks run.",
        remedy="Install and enable its plugin there; what waits goes on by itself.",
    ),
    ErrorClass.DEADLINE: Policy(
        Action.RETRY, Counts.ALWAYS, hops=("answered",),
        why="The work took longer than it may.",
        remedy="Look for what was slow in the latency of its hops; retry or discard.",
    ),
    ErrorClass.WORKER_LOST: Policy(
        Action.RETRY, Counts.ALWAYS, hops=("started", "written"),
        why="The worker ended while it worked on this: killed, out of memory, or its host is gone.",
        remedy="If it is parked: this event kills workers. Look at the task's log and its memory; retry or discard.",
    ),
    ErrorClass.INTERNAL: Policy(
        Action.RETRY, Counts.ALWAYS, hops=("context", "answered", "guarded", "written"),
        why="A fault of careloom's own.",
        remedy="Report it with the file and line of the message; retry after the mend.",
    ),
}  # fmt: skip


class Trouble(StrEnum):
    """What fails beside pieces of work."""

    MODEL_BLIP = "model_blip"
    WRITE_RACE = "write_race"
    AIRFLOW_UNAVAILABLE = "airflow_unavailable"
    AIRFLOW_REFUSED = "airflow_refused"
    RUN_CAME_TO_NOTHING = "run_came_to_nothing"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    BROKER_UNAVAILABLE = "broker_unavailable"
    POISON_RECORD = "poison_record"
    REFUSED_REQUEST = "refused_request"
    BROKER_TAKES_NOTHING = "broker_takes_nothing"


ELSEWHERE: Mapping[Trouble, Policy] = {
    Trouble.MODEL_BLIP: Policy(
        Action.RETRY, Counts.NEVER, pace=Pace(0.25, 5.0), attempts=3,
        why="One request to the model server met no answer, 408, 429 or 5xx.",
        remedy="None: it is tried on the spot within model.timeout, then it is `model_unavailable`.",
    ),
    Trouble.WRITE_RACE: Policy(
        Action.RETRY, Counts.NEVER, pace=Pace(0.2, 3.2), attempts=5,
        why="Two transactions met at the FHIR server (HAPI answers 409 to all but one).",
        remedy="None: it is tried on the spot, then it is `fhir_conflict`.",
    ),
    Trouble.AIRFLOW_UNAVAILABLE: Policy(
        Action.WAIT, Counts.NEVER, feeds=Feeds.AIRFLOW, pace=Pace(0.25, 5.0),
        why="Airflow's API gave no answer, 429 or 5xx: no run is decided on, rows wait in the ledger.",
        remedy="See to Airflow's api-server; what waits goes on by itself.",
    ),
    Trouble.AIRFLOW_REFUSED: Policy(
        Action.WAIT, Counts.NEVER,
        why="Airflow refuses a run (4xx): its DAG is gone or cannot be imported. The scenario is held, no other is.",
        remedy="Read the DAG's import error in Airflow; what waits goes on by itself.",
    ),
    Trouble.RUN_CAME_TO_NOTHING: Policy(
        Action.WAIT, Counts.NEVER,
        why="A run ended in Airflow with rows unfinished. They are given back, and the scenario is held for a moment.",
        remedy="If it goes on: the task's log in Airflow says what ended it.",
    ),
    Trouble.LEDGER_UNAVAILABLE: Policy(
        Action.WAIT, Counts.NEVER, pace=Pace(0.25, 5.0),
        why="The ledger's database does not answer. Nothing works without it, so nothing but waiting is done.",
        remedy="See to PostgreSQL; everything goes on by itself.",
    ),
    Trouble.BROKER_UNAVAILABLE: Policy(
        Action.WAIT, Counts.NEVER, feeds=Feeds.KAFKA, pace=Pace(0.25, 5.0),
        why="The dispatcher cannot read Kafka.",
        remedy="See to the broker; reading goes on by itself, where the ledger is.",
    ),
    Trouble.POISON_RECORD: Policy(
        Action.DEAD_LETTER, Counts.NEVER,
        why="A record on the topic is no event of ours: no envelope, not JSON, nothing that the ledger can keep.",
        remedy="`careloom dead-letters` names its position and reason.",
    ),
    Trouble.REFUSED_REQUEST: Policy(
        Action.REFUSE, Counts.NEVER,
        why="What a sender posted is not FHIR, too large, or from nobody that is known: 4xx with an OperationOutcome.",
        remedy="The answer names what is wrong; the sender mends it.",
    ),
    Trouble.BROKER_TAKES_NOTHING: Policy(
        Action.REFUSE, Counts.NEVER,
        why="Kafka does not acknowledge an event: the sender gets 503 with Retry-After, and keeps it.",
        remedy="See to the broker; senders deliver again, and the reconciling search finds what they gave up.",
    ),
}  # fmt: skip


def pace_of(trouble: Trouble, usual: Pace = USUAL) -> Pace:
    """How long to wait after trouble beside pieces of work.

    Args:
        trouble: what failed.
        usual: the configured backoff, for rows that follow it.
    """
    policy = ELSEWHERE[trouble]
    return policy.pace or usual.scaled(policy.slower)
