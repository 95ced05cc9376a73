"""No question that monitoring or the dispatcher asks all the time reads a table that grows with what was ever done.

Told by PostgreSQL's own plans at 20,000 finished rows, not by time; the times at 1,000,000 are in `make bench`.
"""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from tests.bench.scrape import FILL_OPEN, GROWING, OPEN, SCENARIOS, execute, explained, fill, questions

ROWS = 20_000


@pytest.fixture
def full(ledger_engine: Engine) -> Engine:
    fill(ledger_engine, 1, ROWS, folded=True)
    execute(ledger_engine, FILL_OPEN, scenarios=[name for name, _ in SCENARIOS], open=OPEN)
    execute(ledger_engine, "ANALYZE")
    return ledger_engine


def test_no_question_scans_what_grows(full: Engine) -> None:
    scans = {}
    for name, ask in questions(full, "", ROWS).items():
        if "HTTP" in name or "GET" in name:
            continue  # the snapshot is what it reads
        found: set[str] = set()
        with explained(full, found):
            ask()
        if found & GROWING:
            scans[name] = found & GROWING
    assert scans == {}


def test_a_scan_is_seen(ledger_engine: Engine) -> None:
    found: set[str] = set()
    with explained(ledger_engine, found):
        execute(ledger_engine, "SELECT count(*) FROM work WHERE findings = 1")
    assert found == {"work"}
