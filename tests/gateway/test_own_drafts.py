"""What careloom wrote itself starts nothing; a person's decision on it does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from fhir_adapters.drafts import AI_LABEL
from fhir_adapters.event import ClinicalEvent
from fhir_adapters.write_fence import Fenced, build_fence
from pipelines.gateway.own_drafts import is_own_draft


def event(resource: dict[str, Any]) -> ClinicalEvent:
    return ClinicalEvent("ward", "R4", resource["resourceType"], "x", "1", None, None, orjson.dumps(resource))


@pytest.mark.parametrize("kind", ["Task", "Composition", "Flag"])
def test_a_write_fence_starts_nothing_though_it_is_a_task_that_is_no_draft_any_more(kind: str) -> None:
    fenced = Fenced("e" * 64 + ":in_visit.note:1", "model", kind, "first")
    fence = build_fence(fenced, overtaken_by="newer", recorded=datetime(2026, 1, 1, tzinfo=UTC))
    assert all(is_own_draft(event(entry["resource"])) for entry in fence["entry"])


def test_a_task_that_a_person_has_moved_on_comes_in() -> None:
    task = {"resourceType": "Task", "status": "completed", "intent": "proposal", "meta": {"security": [AI_LABEL]}}
    assert not is_own_draft(event(task))
    assert is_own_draft(event({**task, "status": "requested"}))
    assert not is_own_draft(event({"resourceType": "Task", "status": "requested", "note": [{"text": "AIAST"}]}))
