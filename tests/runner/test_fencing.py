"""A worker that was thought dead and comes back: whatever it does then changes nothing, here or at the FHIR server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.errors import FhirConflict, FhirRejected
from pipelines.runner.batch import Outcome

ROOT = Path(__file__).parents[2]

#: A worker in a process of its own: it claims the run's rows, does what it is told to, and stops itself before the end.
WORKER = """
import json, os, signal, sys
from pipelines.errors import LeaseLost
from pipelines.ledger import Inference, Ledger, Written, engine
from pipelines.ledger.on_wire import Sending

url, run_id, step, drafts = sys.argv[1:]
ledger = Ledger(engine(url))
items = ledger.claim(run_id, 0.5)
if step == "write":
    items = [ledger.inferred(item, Inference(json.loads(drafts), {})) for item in items]
print("claimed", len(items), flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
said = []
for item in items:
    for write in (
        lambda: ledger.confirm(item, 0.5, Sending("model", "Flag", "zombie")),
        lambda: ledger.rules_written(item, Written(("Flag/zombie",), 1, 0)),
        lambda: ledger.inferred(item, Inference({"drafts": ["zombie"]}, {})),
        lambda: ledger.written(item, Written(("Task/zombie",), 1, 0)),
        lambda: ledger.give_back(item),
        lambda: ledger.stale(item),
    ):
        try:
            write()
            said.append("wrote")
        except LeaseLost:
            said.append("lease lost")
    said.append(f"renewed {len(ledger.renew([item], 60))}")
print(" ".join(said), flush=True)
"""


@contextmanager
def stopped_worker(house: Any, run_id: str, step: str, drafts: Any = None) -> Iterator[subprocess.Popen[str]]:
    """A worker that holds the run's rows and does not move, as on a paused host; its lease has run out."""
    url = house.config.ledger.url.get_secret_value()
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, run_id, step, json.dumps(drafts)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed 1\n"
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        time.sleep(0.6)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def woken(process: subprocess.Popen[str]) -> set[str]:
    """What it said after it came back: each different thing once."""
    process.send_signal(signal.SIGCONT)
    assert process.stdout is not None
    said = process.stdout.readline()
    assert process.wait(60) == 0
    return {*said.replace("lease lost", "lease-lost").replace("renewed ", "renewed-").split()}


@pytest.mark.parametrize("meanwhile", ["the next try claims", "the reaper gives the rows to another run"])
def test_stopped_for_longer_than_its_lease_an_inferring_worker_changes_nothing(house: Any, meanwhile: str) -> None:
    house.enter(140)
    run_id = house.run()
    with stopped_worker(house, run_id, "infer") as zombie:
        if meanwhile.startswith("the reaper"):
            house.ledger.release_run(run_id, "failed")
            house.wake()
            run_id = house.run()
        assert house.carry(run_id).outcomes == {Outcome.WRITTEN: 1}
        before = house.rows()
        assert woken(zombie) == {"lease-lost", "renewed-0"}
    assert house.rows() == before
    assert len(house.fhir.written("Flag")) == len(house.fhir.written("RiskAssessment")) == 1


def test_stopped_while_the_living_one_is_still_at_it_it_changes_nothing_either(house: Any) -> None:
    house.enter(80)
    run_id = house.run()
    with stopped_worker(house, run_id, "infer") as zombie:
        (living,) = house.ledger.claim(run_id, 60)
        before = house.rows()
        assert woken(zombie) == {"lease-lost", "renewed-0"}
    assert house.rows() == before
    assert house.ledger.renew([living], 60) == {living.id}


def test_stopped_for_longer_than_its_lease_a_writing_worker_changes_nothing(house: Any) -> None:
    house.enter(80)
    house.fhir.refusals = [FhirRejected("POST Bundle: 422", status=422)]
    house.carry()
    drafts = house.rows()[0].drafts
    house.enter(81, patient="p2")
    run_id = house.run()
    with stopped_worker(house, run_id, "write", drafts) as zombie:
        assert house.carry(run_id).outcomes == {Outcome.WRITTEN: 1}
        before = house.rows()
        assert woken(zombie) == {"lease-lost", "renewed-0"}
    assert house.rows() == before


# --- its transaction is on the way when it loses the row --------------------------------------------------------------


@pytest.fixture
def overtaken_while_writing(house: Any) -> Any:
    """While the first transaction is on its way another worker does all of the row; then the late one arrives."""

    def during(what: Any) -> None:
        def first_only() -> None:
            house.fhir.before_transaction = lambda: None
            what()

        house.fhir.before_transaction = first_only

    return during


def in_another_worker(call: Any) -> Any:
    """Run a step as another process would: on an event loop of its own."""
    import threading

    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(call()))
    thread.start()
    thread.join()
    return result[0]


def test_a_late_transaction_of_a_zombie_is_recognised_and_doubles_nothing(
    house: Any, overtaken_while_writing: Any
) -> None:
    house.enter(80)
    run_id = house.run()
    ends: list[Any] = []
    overtaken_while_writing(lambda: ends.append(in_another_worker(lambda: house.carry(run_id)).outcomes))
    assert house.carry(run_id).outcomes == {Outcome.LEASE_LOST: 1}
    assert ends == [{Outcome.WRITTEN: 1}]
    assert len(house.fhir.transactions) == 2
    for kind in ("RiskAssessment", "Provenance", "Device"):
        assert len(house.fhir.written(kind)) == 1
    (row,) = house.rows()
    assert (row.state, row.created, row.recognised) == ("written", 1, 0)


def test_a_late_transaction_of_a_zombie_overwrites_nothing_that_was_changed_since(
    house: Any, overtaken_while_writing: Any
) -> None:
    house.enter(80)
    run_id = house.run()

    def written_and_edited() -> None:
        in_another_worker(lambda: house.carry(run_id))
        (reference,) = [r for r in house.fhir.resources if r.startswith("RiskAssessment/new-")]
        house.fhir.resources[reference] |= {"status": "final", "note": [{"text": "as the doctor says"}]}

    overtaken_while_writing(written_and_edited)
    house.carry(run_id)
    (risk,) = house.fhir.written("RiskAssessment")
    assert (risk["status"], risk["note"]) == ("final", [{"text": "as the doctor says"}])


def test_a_late_red_flag_of_a_zombie_is_recognised(house: Any, overtaken_while_writing: Any) -> None:
    house.enter(140)
    run_id = house.run()
    overtaken_while_writing(lambda: in_another_worker(lambda: house.carry(run_id)))
    assert house.carry(run_id).outcomes == {Outcome.LEASE_LOST: 1}
    assert house.rows()[0].state == "written"
    assert len(house.fhir.written("Flag")) == 1


def test_a_worker_that_waits_for_another_s_transaction_to_pass_asks_again_whether_the_row_is_its_own(
    house: Any, overtaken_while_writing: Any
) -> None:
    house.enter(80)
    run_id = house.run()
    house.fhir.refusals = [FhirConflict("POST Bundle: 409", status=409)]
    overtaken_while_writing(lambda: house.ledger.claim(run_id, 60))
    assert house.carry(run_id).outcomes == {Outcome.LEASE_LOST: 1}
    assert house.fhir.transactions == []


# --- versions ---------------------------------------------------------------------------------------------------------


def test_a_newer_version_that_comes_right_before_the_writing_makes_the_draft_stale(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the row and its transaction, which the confirmation of the lease closes."""
    house.enter(80, id_="o1", version="1")
    from pipelines.runner import write_back

    unpack = write_back.unpack

    def newer_comes(packed: Any) -> Any:
        house.enter(90, id_="o1", version="2")
        return unpack(packed)

    monkeypatch.setattr(write_back, "unpack", newer_comes)
    assert house.carry().outcomes == {Outcome.STALE: 1}
    monkeypatch.undo()
    assert house.fhir.transactions == []
    house.carry()
    assert [row.state for row in house.rows()] == ["stale", "written"]


def test_a_newer_version_that_comes_right_before_a_red_flag_stops_it(house: Any) -> None:
    house.enter(140, id_="o1", version="1")
    rules = house.scenario.rules

    def newer_comes(case: Any) -> Any:
        if case.trigger["valueQuantity"]["value"] == 140:
            house.enter(80, id_="o1", version="2")
        return rules(case)

    house.scenario.rules = newer_comes
    assert house.carry().outcomes == {Outcome.STALE: 1}
    assert house.fhir.transactions == []


def test_after_the_newer_version_is_written_a_zombie_with_the_older_one_writes_nothing(house: Any) -> None:
    house.enter(80, id_="o1", version="1")
    older = house.run()
    (zombie,) = house.ledger.claim(older, 0.1)
    house.enter(90, id_="o1", version="2")
    house.carry(older)
    house.carry()
    assert [row.state for row in house.rows()] == ["stale", "written"]

    async def late() -> None:
        from pipelines.errors import LeaseLost
        from pipelines.ledger.on_wire import Sending
        from pipelines.runner.batch import Batch
        from pipelines.runner.breaker import Breakers

        batch = Batch(house.ledger, [zombie], lease=1, breakers=Breakers(house.ledger, older))
        with pytest.raises(LeaseLost):
            await batch.leave(zombie).confirm(Sending("model", "RiskAssessment", "risk"))

    asyncio.run(late())
    assert len(house.fhir.written("RiskAssessment")) == 1
