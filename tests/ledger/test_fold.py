"""Folding is exact: no row twice, none forgotten, whoever folds at the same time and whoever is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from monitoring import metrics
from pipelines.ledger import Ledger, State
from pipelines.ledger.fold import canonical, fold, fold_all
from pipelines.ledger.snapshot import snapshot

Fill = Callable[..., None]

FOLD_ONCE_AND_HANG = """
import sys, time
from pipelines.ledger import engine
from pipelines.ledger.fold import fold
with engine(sys.argv[1]).begin() as connection:
    print(fold(connection, 50), flush=True)
    time.sleep(600)
"""

FOLD_WITHOUT_END = """
import sys
from pipelines.ledger import engine
from pipelines.ledger.fold import fold_all
ledger = engine(sys.argv[1])
print("going", flush=True)
while True:
    fold_all(ledger, 7)
"""


@pytest.fixture
def start() -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    """Starts a folder in a process of its own; whatever still lives afterwards is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(script: str, url: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def samples(engine: Engine, name: str) -> dict[str, float]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT labels, value FROM samples WHERE name = :name"), {"name": name})
        return {row.labels: row.value for row in rows}


def scalar(engine: Engine, query: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(query)).scalar_one()


def assert_samples_equal_the_rows(engine: Engine) -> None:
    """Every folded number, recomputed by SQL from the rows themselves."""
    with engine.connect() as connection:
        finished = connection.execute(
            text(
                "SELECT scenario, stage, state, coalesce(model, 'none') AS model, count(*) AS n"
                " FROM work GROUP BY 1, 2, 3, 4"
            )
        ).all()
    assert samples(engine, "careloom_work_finished_total") == {
        canonical({k: v for k, v in row._mapping.items() if k != "n"}): row.n for row in finished
    }
    written = "FROM work WHERE state = 'written'"
    for query, name, part in (
        (f"SELECT count(*) {written}", "careloom_event_to_draft_seconds_bucket", ""),
        (f"SELECT count(*) * 8 {written}", "careloom_hop_duration_seconds_bucket", ""),
        (
            f"SELECT sum(extract(epoch FROM written_at - received_at)) {written}",
            "careloom_event_to_draft_seconds_sum",
            "",
        ),
        (
            f"SELECT sum(extract(epoch FROM written_at - received_at)) {written}",
            "careloom_hop_duration_seconds_sum",
            "",
        ),
        (
            f"SELECT sum(extract(epoch FROM answered_at - context_at)) {written}",
            "careloom_hop_duration_seconds_sum",
            '"hop":"answered"',
        ),
        ("SELECT count(*) FROM work WHERE model IS NOT NULL", "gen_ai_client_operation_duration_seconds_bucket", ""),
        (
            "SELECT sum(model_seconds) FROM work WHERE model IS NOT NULL",
            "gen_ai_client_operation_duration_seconds_sum",
            "",
        ),
        ("SELECT sum(prompt_tokens) FROM work WHERE model IS NOT NULL", "gen_ai_client_token_usage_sum", '"input"'),
        (
            "SELECT sum(completion_tokens) FROM work WHERE model IS NOT NULL",
            "gen_ai_client_token_usage_sum",
            '"output"',
        ),
        ("SELECT sum(findings) FROM work", "careloom_findings_total", ""),
        ("SELECT sum(cut_statements) FROM work", "careloom_statements_cut_total", ""),
        ("SELECT sum(created) FROM work", "careloom_drafts_total", '"created"'),
    ):
        folded = sum(value for labels, value in samples(engine, name).items() if part in labels)
        assert folded == pytest.approx(float(scalar(engine, query)), rel=1e-9), name
    assert scalar(engine, "SELECT count(*) FROM work WHERE NOT folded") == 0


def test_samples_equal_the_rows_of_every_scenario_state_and_model(ledger_engine: Engine, fill_ledger: Fill) -> None:
    fill_ledger(300)
    fill_ledger(40, state="stale", scenario="in_visit.admission_note", model=None)
    fill_ledger(17, state="discarded", scenario="post_visit.follow_up")
    fill_ledger(60, scenario="post_visit.follow_up", model="other")
    assert fold_all(ledger_engine, 64) == 417
    assert_samples_equal_the_rows(ledger_engine)


def test_unfinished_and_parked_rows_are_not_folded(ledger_engine: Engine, fill_ledger: Fill) -> None:
    for state in ("waiting", "dispatched", "running", "inferred", "parked"):
        fill_ledger(3, state=state)
    assert fold_all(ledger_engine) == 0
    assert scalar(ledger_engine, "SELECT count(*) FROM samples") == 0


def test_folding_again_adds_nothing(ledger_engine: Engine, fill_ledger: Fill) -> None:
    fill_ledger(100)
    fold_all(ledger_engine)
    assert fold_all(ledger_engine) == 0
    assert_samples_equal_the_rows(ledger_engine)


def test_a_folder_killed_between_marking_and_commit_leaves_no_trace(
    ledger_url: str, ledger_engine: Engine, fill_ledger: Fill, start: Callable[..., subprocess.Popen[str]]
) -> None:
    fill_ledger(80)
    folder = start(FOLD_ONCE_AND_HANG, ledger_url)
    assert folder.stdout is not None
    assert folder.stdout.readline() == "50\n"
    assert (scalar(ledger_engine, "SELECT count(*) FROM samples"), snapshot(ledger_engine).unfolded) == (0, 80)
    folder.send_signal(signal.SIGKILL)
    assert folder.wait() == -signal.SIGKILL
    while scalar(ledger_engine, "SELECT count(*) FROM work WHERE NOT folded"):
        fold_all(ledger_engine)
    assert_samples_equal_the_rows(ledger_engine)


def test_rows_in_another_folders_hands_are_passed_over(ledger_engine: Engine, fill_ledger: Fill) -> None:
    fill_ledger(10)
    fill_ledger(5, scenario="in_visit.admission_note")
    with ledger_engine.begin() as connection:
        assert fold(connection, 10) == 10
        assert fold_all(ledger_engine) == 5
    assert_samples_equal_the_rows(ledger_engine)


def test_three_folders_at_once_two_of_them_killed_count_each_row_once(
    ledger_url: str, ledger_engine: Engine, fill_ledger: Fill, start: Callable[..., subprocess.Popen[str]]
) -> None:
    fill_ledger(10)
    folders = [start(FOLD_WITHOUT_END, ledger_url) for _ in range(3)]
    for folder in folders:
        assert folder.stdout is not None
        assert folder.stdout.readline() == "going\n"
    fill_ledger(2000)
    fill_ledger(1000, scenario="in_visit.admission_note")
    for folder, left in zip(folders, (2200, 1100), strict=False):
        while scalar(ledger_engine, "SELECT count(*) FROM work WHERE NOT folded") > left:
            pass
        folder.send_signal(signal.SIGKILL)
        folder.wait()
    while scalar(ledger_engine, "SELECT count(*) FROM work WHERE NOT folded"):
        fold_all(ledger_engine, 11)
    assert_samples_equal_the_rows(ledger_engine)


def test_the_account_is_the_same_before_while_and_after_folding(ledger_engine: Engine, fill_ledger: Fill) -> None:
    fill_ledger(50)
    fill_ledger(5, state="parked")
    before = Ledger(ledger_engine).account()
    with ledger_engine.begin() as connection:
        fold(connection, 20)
    during = Ledger(ledger_engine).account()
    fold_all(ledger_engine)
    after = Ledger(ledger_engine).account()
    assert before == during == after
    assert after.unaccounted == 0
    assert after.work == {State.WRITTEN: 50, State.PARKED: 5}


def test_the_snapshot_agrees_with_the_account_and_names_what_is_not_folded(
    ledger_engine: Engine, fill_ledger: Fill
) -> None:
    fill_ledger(9)
    fill_ledger(4, state="waiting")
    now = snapshot(ledger_engine)
    assert (now.unfolded, now.account) == (9, Ledger(ledger_engine).account())
    assert [(part.state, part.items) for part in now.open_work] == [(State.WAITING, 4)]
    assert now.open_work[0].oldest >= 3600


def test_a_hop_that_was_never_passed_is_left_out_and_the_rest_still_sums_to_the_whole(
    ledger_engine: Engine, fill_ledger: Fill
) -> None:
    fill_ledger(1)
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE work SET answered_at = NULL, model = NULL"))
    fold_all(ledger_engine)
    hops = samples(ledger_engine, "careloom_hop_duration_seconds_sum")
    assert not [labels for labels in hops if '"answered"' in labels]
    whole = scalar(ledger_engine, "SELECT extract(epoch FROM written_at - received_at) FROM work")
    assert sum(hops.values()) == pytest.approx(float(whole))
    assert samples(ledger_engine, "gen_ai_client_operation_duration_seconds_sum") == {}


def test_clocks_that_disagree_make_no_negative_duration(ledger_engine: Engine, fill_ledger: Fill) -> None:
    fill_ledger(1)
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE work SET durable_at = received_at - interval '1 ms'"))
    fold_all(ledger_engine)
    sums = samples(ledger_engine, "careloom_hop_duration_seconds_sum")
    assert min(sums.values()) == 0.0


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, "0.05"), (0.05, "0.05"), (0.051, "0.1"), (3600, "3600.0"), (3601, "+Inf")]
)
def test_an_observation_falls_into_the_first_bucket_that_holds_it(
    ledger_engine: Engine, fill_ledger: Fill, seconds: float, bound: str
) -> None:
    fill_ledger(1)
    with ledger_engine.begin() as connection:
        received: datetime = connection.execute(text("SELECT received_at FROM work")).scalar_one()
        connection.execute(text("UPDATE work SET written_at = :at"), {"at": received + timedelta(seconds=seconds)})
    fold_all(ledger_engine)
    [labels] = samples(ledger_engine, "careloom_event_to_draft_seconds_bucket")
    assert f'"le":"{bound}"' in labels


def test_the_name_that_the_account_sums_is_the_name_that_is_folded() -> None:
    from pipelines.ledger import counting_queries

    assert f"'{metrics.WORK_FINISHED.name}'" in str(counting_queries.WORK_BY_STATE)
    assert "state" in metrics.WORK_FINISHED.labels
