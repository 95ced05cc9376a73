"""Writes docs/failures.md from the policy: `python -m pipelines.failures.reference > docs/failures.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

from pipelines.failures.policy import (
    BREAKS_AFTER,
    ELSEWHERE,
    LONGEST_RETRY_AFTER,
    POLICIES,
    USUAL,
    Counts,
    Policy,
)

_Failure = TypeVar("_Failure", bound=StrEnum)

_HEAD = f"""\
# What each failure means

Written from `pipelines/failures/policy.py` by `python -m pipelines.failures.reference`; a test holds both together. It
is the only place that decides on retries: the ledger, the dispatcher, the writer and the model client read it.

**Waits** grow from the first to the cap, doubling, with full jitter, and are never shorter than a Retry-After (of which
{LONGEST_RETRY_AFTER:g} s are obeyed at most). Those given as a multiple follow `dispatcher.backoff` and
`dispatcher.backoff_cap` ({USUAL.first:g} s and {USUAL.cap:g} s by default).

**Attempts.** A failure that counts brings the event nearer to being parked (`dispatcher.max_attempts`, unless the table
says a number). *When it fails alone*: the dependency has served somebody else since the event's last failure there.
*Unless all fail*: from the first failure on, until the breaker opens. So an outage costs no event its attempts, and an
event that fails while others pass is parked in the end. What was reached counts: drafts that are computed start
anew with their own attempts to be written.

**Breakers.** {BREAKS_AFTER} failures in a row at one dependency, of at least two events and with no success between
them, open its breaker: what needs it waits in the ledger and is given to no run. After a growing wait one row may try
(half-open); its success closes the breaker, its failure opens it again. One event alone never opens a breaker. State:
`careloom status`, `careloom_dependency_down`. Dependencies are `model:<name>`, `fhir:<source>` (reading),
`fhir-write:<source>`, `kafka` and `airflow`; without the ledger nothing works, so it has none.

**Rules do not wait.** Red-flag rules run before the model is asked: a row is given to a run once whatever the model's
breaker says, its rules run and red flags are written, and only then does it wait. A row behind another of its patient
that waits, is parked or in a backoff gets such a run for its rules alone.
"""


def reference() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    parts += ["## Pieces of work\n", *_table(POLICIES)]
    parts += ["## Everything else\n", *_table(ELSEWHERE)]
    return "\n".join(parts)


def _table(policies: Mapping[_Failure, Policy]) -> Iterable[str]:
    yield "| failure | action | counts | attempts | waits | time limit | feeds | hop | meaning | remedy |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for failure, policy in policies.items():
        cells = (
            f"`{failure}`",
            policy.action,
            policy.counts,
            _attempts(policy),
            _waits(policy),
            f"{policy.time_limit.total_seconds() / 3600:g} h" if policy.time_limit else "-",
            policy.feeds or "-",
            ", ".join(f"`{hop}`" for hop in policy.hops) or "-",
            policy.why,
            policy.remedy,
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


def _attempts(policy: Policy) -> str:
    if policy.attempts is not None:
        return str(policy.attempts)
    return "no limit" if policy.counts is Counts.NEVER else "configured"


def _waits(policy: Policy) -> str:
    if policy.action.value in ("dead-letter", "refuse", "park"):
        return "-"
    if policy.pace is not None:
        return f"{policy.pace.first:g} to {policy.pace.cap:g} s"
    return "configured" if policy.slower == 1.0 else f"{policy.slower:g} x configured"


if __name__ == "__main__":
    sys.stdout.write(reference())
