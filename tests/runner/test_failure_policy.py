"""The one table of what each failure means: complete, sensible, told to people, and read by whoever retries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitoring.metrics import HOPS
from pipelines.errors import ErrorClass
from pipelines.failures import policy as failure_policy
from pipelines.failures.policy import ELSEWHERE, LONGEST_RETRY_AFTER, POLICIES, Action, Counts, Pace, Policy, Trouble
from pipelines.failures.reference import reference

ROOT = Path(__file__).parents[2]
ALL = {**POLICIES, **ELSEWHERE}


def test_every_error_class_has_its_row() -> None:
    assert set(POLICIES) == set(ErrorClass), "give the new class its row in pipelines/failures/policy.py"


def test_every_trouble_beside_pieces_of_work_has_its_row() -> None:
    assert set(ELSEWHERE) == set(Trouble)


@pytest.mark.parametrize("policy", ALL.values(), ids=[str(name) for name in ALL])
def test_a_row_says_what_it_means_and_what_to_do_and_is_bounded(policy: Policy) -> None:
    assert policy.why.endswith(".")
    assert policy.remedy.endswith(".")
    assert "\n" not in policy.why + policy.remedy
    if policy.action is Action.PARK:
        assert policy.attempts == 1
    if policy.counts in (Counts.ALONE, Counts.UNLESS_ALL_FAIL):
        assert policy.feeds, "whether it fails alone is told by a breaker"
    if policy.action is Action.RETRY:
        assert policy.counts is not Counts.NEVER or policy.attempts, "a retry ends some day"
    if policy.action is Action.WAIT and policy.counts is Counts.NEVER and policy in POLICIES.values():
        assert policy.time_limit, "a wait of one event ends some day, or a breaker tells when"


@pytest.mark.parametrize("error_class", ErrorClass)
def test_a_failure_is_counted_in_a_hop_of_the_way_in_which_it_may_happen(error_class: ErrorClass) -> None:
    policy = POLICIES[error_class]
    assert policy.hops
    assert set(policy.hops) <= set(HOPS)
    assert {policy.hop(seen) for seen in (*HOPS, None)} == set(policy.hops)


def test_a_wait_is_drawn_from_all_of_its_range_and_never_beyond_its_cap() -> None:
    pace = Pace(1.0, 8.0)
    first = [pace.wait(0) for _ in range(200)]
    assert 0 <= min(first) < 0.2
    assert 0.8 < max(first) <= 1.0
    late = [pace.wait(50) for _ in range(200)]
    assert min(late) < 1.0
    assert 7.0 < max(late) <= 8.0


def test_a_retry_after_is_obeyed_beyond_the_cap_and_within_reason() -> None:
    pace = Pace(1.0, 8.0)
    assert pace.wait(0, 120.0) == 120.0
    assert pace.wait(0, 1e9) == LONGEST_RETRY_AFTER


@pytest.mark.parametrize(
    ("counts", "down", "served_others", "counted"),
    [
        (Counts.ALWAYS, True, False, True),
        (Counts.NEVER, False, True, False),
        (Counts.UNLESS_ALL_FAIL, False, False, True),
        (Counts.UNLESS_ALL_FAIL, True, True, False),
        (Counts.ALONE, False, False, False),
        (Counts.ALONE, False, True, True),
        (Counts.ALONE, True, True, False),
    ],
)
def test_when_a_failure_counts(counts: Counts, down: bool, served_others: bool, counted: bool) -> None:
    policy = Policy(Action.RETRY, counts, "w.", "r.")
    assert policy.counted(down=down, served_others=served_others) is counted


def test_docs_say_what_the_table_says() -> None:
    assert (ROOT / "docs/failures.md").read_text(encoding="utf-8") == reference(), (
        "run: python -m pipelines.failures.reference > docs/failures.md"
    )


def test_nobody_else_makes_backoffs_of_their_own() -> None:
    """They are drawn in one place; who needs a wait asks the table, or `Pace`."""
    own = Path(failure_policy.__file__)
    drawing = re.compile(r"random\.(uniform|random)\(.*\*\*")
    elsewhere = [
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "pipelines").rglob("*.py")
        if file != own and drawing.search(file.read_text(encoding="utf-8"))
    ]
    assert elsewhere == []
