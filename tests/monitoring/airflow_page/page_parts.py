"""What the tests of the page share: scenarios by their state, and how a page and the ledger are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, text

TRIAGE, NOTE, PAUSED, ABSENT = (
    "pre_visit.triage",
    "in_visit.admission_note",
    "in_visit.record_qc",
    "post_visit.adherence_risk",
)
CANARY = "Zhang-Canary-Name"
Enter = Callable[[str], Any]


def state(engine: Engine, work_id: int) -> str:
    with engine.begin() as connection:
        return str(connection.execute(text("SELECT state FROM work WHERE id = :id"), {"id": work_id}).scalar_one())


def section(page: str, id_: str) -> str:
    """The text of a row, a body or a form with this id."""
    found = re.search(rf'<(\w+)[^>]* id="{re.escape(id_)}".*?</\1>', page, re.DOTALL)
    assert found, f"the page has no {id_}"
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found[0]))
