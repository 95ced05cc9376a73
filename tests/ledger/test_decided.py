"""Decisions in a real ledger: each once, of the right work, and counted exactly when their work is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from fhir_adapters.decision import Verdict
from monitoring import metrics
from monitoring.ledger_collector import LedgerCollector, Objective
from pipelines.ledger import Decision, Incoming, Inference, Ledger, Match, Position, Written
from pipelines.ledger.decided import decisions_on
from pipelines.ledger.fold import canonical, fold_all
from pipelines.ledger.fold_decisions import fold_decisions
from pipelines.ledger.replaying import Wanted
from pipelines.ledger.snapshot import snapshot
from tests.ledger.conftest import START, Make

NOTE = "in_visit.note"
WANG = "Practitioner/wang"
Decide = Callable[..., Incoming]


@pytest.fixture
def decide(make: Make) -> Decide:
    """Makes the event of a Task that a person has moved on: `decide(offset, "identity")`."""

    def decide_(
        offset: int,
        identity: str | None,
        verdict: Verdict = Verdict.ACCEPTED,
        *,
        who: str | None = WANG,
        at: datetime = START,
        source: str = "hospital",
        partition: int = 0,
    ) -> Incoming:
        told = make(offset, resource=f"task{offset}", scenarios=(), partition=partition)
        assert told.event is not None
        event = replace(told.event, resource_type="Task", source=source)
        return replace(told, event=event, decision=Decision(identity, verdict, who, at))

    return decide_


def written(ledger: Ledger, *, model: str | None = "m", approval: str | None = "Task/1", created: int = 1) -> None:
    """What waits is inferred and written."""
    run = ledger.take_run(NOTE, 10)
    assert run is not None
    for item in ledger.claim(run.run_id, 60):
        inferred = ledger.inferred(item, Inference({"drafts": []}, {}, model=model, model_version=model and "v7"))
        ledger.written(inferred, Written(("Flag/1",), created, 1 - created, approval))


def fold(engine: Engine) -> None:
    fold_all(engine)
    fold_decisions(engine)


def samples(engine: Engine, metric: metrics.Metric) -> dict[str, float]:
    part = "_sum" if metric.kind == "histogram" else ""
    return {canonical(s.labels): s.value for s in snapshot(engine).samples if s.name == f"{metric.name}{part}"}


def counted(engine: Engine) -> dict[str, float]:
    """Verdict -> decisions, where all are of one scenario and model."""
    found = [s for s in snapshot(engine).samples if s.name == metrics.DECISIONS.name]
    return {s.labels["verdict"]: s.value for s in found}


def waiting(engine: Engine) -> dict[str, float]:
    return samples(engine, metrics.DECISIONS_WAITING)


def not_taken(engine: Engine) -> dict[str, float]:
    return samples(engine, metrics.DECISIONS_NOT_TAKEN)


def rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM decisions ORDER BY id")))


def written_at(engine: Engine) -> datetime:
    with engine.connect() as connection:
        found: datetime = connection.execute(text("SELECT max(written_at) FROM work")).scalar_one()
        return found


def test_a_decision_is_kept_with_who_and_when_and_counted_with_the_wait_and_the_weights(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    ledger.record([make(0, event_id="e")])
    written(ledger)
    fold(ledger_engine)
    assert waiting(ledger_engine) == {canonical({"scenario": NOTE}): 1}
    decided_at = written_at(ledger_engine) + timedelta(seconds=600)
    ledger.record([decide(1, f"e:{NOTE}:1", Verdict.EDITED, at=decided_at)])
    [row] = rows(ledger_engine)
    assert (row.verdict, row.who, row.decided_at, row.received_at, row.folded) == (
        "edited", WANG, decided_at, START, False)  # fmt: skip
    fold(ledger_engine)
    fold(ledger_engine)
    labels = {"scenario": NOTE, "model": "m", "model_version": "v7", "verdict": "edited"}
    assert samples(ledger_engine, metrics.DECISIONS) == {canonical(labels): 1}
    assert samples(ledger_engine, metrics.DRAFT_TO_DECISION)[canonical({"scenario": NOTE})] == pytest.approx(600)
    assert waiting(ledger_engine) == {canonical({"scenario": NOTE}): 0}
    assert not_taken(ledger_engine) == {}
    assert ledger.account().unaccounted == 0


def test_a_redelivery_of_a_decision_is_nothing_by_whatever_record_it_comes(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    ledger.record([make(0, event_id="e")])
    written(ledger)
    told = decide(1, f"e:{NOTE}:1")
    ledger.record([told])
    ledger.record([told])
    ledger.record([decide(2, f"e:{NOTE}:1"), decide(3, f"e:{NOTE}:1", partition=1)])  # newer versions of the Task
    fold(ledger_engine)
    assert counted(ledger_engine) == {"accepted": 1}
    assert not_taken(ledger_engine) == {}


def test_the_first_verdict_counts_and_another_is_told_of(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    ledger.record([make(0, event_id="e")])
    written(ledger)
    identity = f"e:{NOTE}:1"
    ledger.record([decide(1, identity, Verdict.REJECTED), decide(2, identity)])
    ledger.record([decide(3, identity, Verdict.WITHDRAWN, who=None)])
    fold(ledger_engine)
    assert counted(ledger_engine) == {"rejected": 1}
    assert not_taken(ledger_engine) == {canonical({"reason": "decided_before"}): 2}
    assert waiting(ledger_engine) == {canonical({"scenario": NOTE}): 0}


def test_a_decision_without_a_person_or_of_unknown_work_is_not_taken_and_counted(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    ledger.record([make(0, event_id="e")])
    written(ledger)
    strangers = (None, "e", f"x:{NOTE}:1", f"e:{NOTE}:2", "e:in_visit.watch:1")
    ledger.record([decide(n, identity) for n, identity in enumerate(strangers, 1)])
    ledger.record([decide(10, f"e:{NOTE}:1", who=None)])
    ledger.record([decide(11, f"e:{NOTE}:1", source="another")])
    assert rows(ledger_engine) == []
    assert not_taken(ledger_engine) == {canonical({"reason": "unknown"}): 6, canonical({"reason": "unnamed"}): 1}
    ledger.record([decide(12, f"e:{NOTE}:1")])  # with a name it counts
    assert [row.verdict for row in rows(ledger_engine)] == ["accepted"]


def test_who_withdraws_need_not_be_named_and_nobody_waits_any_more_without_a_verdict(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    ledger.record([make(0, event_id="e")])
    written(ledger)
    ledger.record([decide(1, f"e:{NOTE}:1", Verdict.WITHDRAWN, who=None)])
    fold(ledger_engine)
    assert counted(ledger_engine) == {}
    assert samples(ledger_engine, metrics.DRAFT_TO_DECISION) == {}
    assert waiting(ledger_engine) == {canonical({"scenario": NOTE}): 0}


def test_a_decision_that_is_faster_than_the_ledger_is_counted_with_its_work(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    ledger.record([make(0, event_id="e"), decide(1, f"e:{NOTE}:1")])
    fold(ledger_engine)
    assert counted(ledger_engine) == waiting(ledger_engine) == {}
    written(ledger)
    fold_decisions(ledger_engine)
    assert counted(ledger_engine) == {}
    fold(ledger_engine)
    assert counted(ledger_engine) == {"accepted": 1}
    assert waiting(ledger_engine) == {canonical({"scenario": NOTE}): 0}
    assert samples(ledger_engine, metrics.DRAFT_TO_DECISION) == {canonical({"scenario": NOTE}): 0}


@pytest.mark.parametrize("recognised", [True, False])
def test_a_replay_asks_nobody_twice_and_the_wait_is_that_of_the_drafts(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide, recognised: bool
) -> None:
    """Recognised by Provenance it knows of no Task; by conditional creates it is told of the one that is there."""
    ledger.record([make(0, event_id="e")])
    written(ledger)
    first = written_at(ledger_engine)
    number = ledger.begin_replay(by="wu", why="a drill", chosen={})
    ledger.add_replays(number, [Wanted("e", Match(NOTE, "1", "in_visit"))])
    if recognised:
        written(ledger, model=None, approval=None, created=0)
    else:
        written(ledger, model="other", created=0)
    fold(ledger_engine)
    assert waiting(ledger_engine) == {canonical({"scenario": NOTE}): 1}
    ledger.record([decide(1, f"e:{NOTE}:1", at=first + timedelta(seconds=60))])
    fold(ledger_engine)
    assert waiting(ledger_engine) == {canonical({"scenario": NOTE}): 0}
    [(labels, value)] = samples(ledger_engine, metrics.DECISIONS).items()
    assert ('"model":"m"' in labels, value) == (True, 1)
    assert samples(ledger_engine, metrics.DRAFT_TO_DECISION)[canonical({"scenario": NOTE})] == pytest.approx(60)


def test_of_a_replay_that_wrote_anew_the_last_counts(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    ledger.record([make(0, event_id="e")])
    written(ledger)
    number = ledger.begin_replay(by="wu", why="the server lost it", chosen={})
    ledger.add_replays(number, [Wanted("e", Match(NOTE, "1", "in_visit"))])
    written(ledger, model="newer", approval="Task/2")
    ledger.record([decide(1, f"e:{NOTE}:1")])
    fold(ledger_engine)
    [labels] = samples(ledger_engine, metrics.DECISIONS)
    assert '"model":"newer"' in labels
    assert waiting(ledger_engine) == {canonical({"scenario": NOTE}): 0}


def test_a_replay_that_finds_the_task_of_discarded_work_decided_on_waits_for_nobody(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    """Its answer was lost, so that the ledger never heard of the Task."""
    ledger.record([make(0, event_id="e")])
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE work SET state = 'discarded', finished_at = now()"))
    ledger.record([decide(1, f"e:{NOTE}:1")])
    fold(ledger_engine)
    number = ledger.begin_replay(by="wu", why="it was there after all", chosen={})
    ledger.add_replays(number, [Wanted("e", Match(NOTE, "1", "in_visit"))], discarded_too=True)
    written(ledger, created=0)
    fold(ledger_engine)
    assert waiting(ledger_engine) == {}


def test_drafts_on_which_nobody_was_asked_wait_for_nobody(ledger: Ledger, ledger_engine: Engine, make: Make) -> None:
    ledger.record([make(0)])
    written(ledger, approval=None)
    fold(ledger_engine)
    assert waiting(ledger_engine) == {}


def test_of_two_dispatchers_that_bring_different_verdicts_at_once_one_is_taken(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    ledger.record([make(n, event_id=f"e{n}", patient=f"p{n}") for n in range(20)])
    barrier = threading.Barrier(2)

    def dispatcher(partition: int, verdict: Verdict) -> None:
        barrier.wait()
        for n in range(20):
            ledger.record([decide(100 + n, f"e{n}:{NOTE}:1", verdict, partition=partition)])

    threads = [
        threading.Thread(target=dispatcher, args=each) for each in ((1, Verdict.ACCEPTED), (2, Verdict.REJECTED))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows(ledger_engine)) == 20
    assert not_taken(ledger_engine) == {canonical({"reason": "decided_before"}): 20}


def test_poison_that_turns_out_to_be_a_decision_is_one(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    ledger.record([make(0, event_id="e"), Incoming(Position("events", 0, 1), None)])
    [row] = ledger.poison()
    told = decide(1, f"e:{NOTE}:1")
    assert told.event is not None
    ledger.poison_recorded(row.id, told.event, (), by="wu", why="mended", decision=told.decision)
    assert [one.verdict for one in rows(ledger_engine)] == ["accepted"]
    assert ledger.account().unaccounted == 0


def test_many_decisions_are_folded_in_several_transactions_each_once(
    ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide
) -> None:
    ledger.record([make(n, event_id=f"e{n}", patient=f"p{n}") for n in range(9)])
    written(ledger)
    ledger.record([decide(10 + n, f"e{n}:{NOTE}:1") for n in range(9)])
    fold_all(ledger_engine)
    assert fold_decisions(ledger_engine, 4) == 9
    assert fold_decisions(ledger_engine, 4) == 0
    assert counted(ledger_engine) == {"accepted": 9}


def test_everything_about_decisions_stands_at_zero_from_the_start(ledger_engine: Engine) -> None:
    collector = LedgerCollector(
        lambda: snapshot(ledger_engine), [Objective(NOTE, "in_visit", "1", 60.0)], models={"m": "v7"}
    )
    shown = {family.name: family.samples for family in collector.collect()}
    by = {"scenario": NOTE, "model": "m", "model_version": "v7"}
    assert {tuple(sorted(s.labels.items())): s.value for s in shown["careloom_decisions"]} == {
        tuple(sorted({**by, "verdict": verdict}.items())): 0.0 for verdict in ("accepted", "edited", "rejected")
    }
    assert [(s.labels, s.value) for s in shown["careloom_decisions_waiting_items"]] == [({"scenario": NOTE}, 0.0)]
    assert {s.labels["reason"]: s.value for s in shown["careloom_decisions_not_taken"]} == {
        "unnamed": 0.0, "unknown": 0.0, "decided_before": 0.0}  # fmt: skip
    assert {s.value for s in shown["careloom_draft_to_decision_seconds"]} == {0.0}


def test_what_was_decided_is_told_by_event(ledger: Ledger, ledger_engine: Engine, make: Make, decide: Decide) -> None:
    ledger.record([make(0, event_id="e"), decide(1, f"e:{NOTE}:1"), make(2, event_id="f")])
    assert [(row.event_id, row.scenario, row.verdict) for row in decisions_on(ledger_engine, ["e", "f"])] == [
        ("e", NOTE, "accepted")
    ]
