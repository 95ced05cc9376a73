"""A thread of Communications: everything that answers the same, once each, oldest first, in circles too."""

from __future__ import annotations

from typing import Any

from plugins.dialogue import thread


def message(id_: str, *answers: str, sent: str | None = None, **more: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"resourceType": "Communication", "id": id_, **more}
    if answers:
        said["inResponseTo"] = [{"reference": f"Communication/{one}"} for one in answers]
    return said | ({"sent": sent} if sent else {})


def ids(*messages: dict[str, Any], start: dict[str, Any]) -> list[str]:
    return [one["id"] for one in thread(start, messages)]


def test_questions_and_answers_over_days_are_one_thread_oldest_first() -> None:
    first = message("q1", sent="2026-11-01T08:00:00+08:00")
    answer = message("a1", "q1", sent="2026-11-01T09:00:00+08:00")
    second = message("q2", "a1", sent="2026-11-03T08:00:00+08:00")
    other = message("x", sent="2026-11-02T08:00:00+08:00")
    assert ids(second, other, answer, first, start=second) == ["q1", "a1", "q2"]
    assert ids(second, other, answer, first, start=first) == ["q1", "a1", "q2"]


def test_two_answers_to_what_is_not_in_the_record_belong_together() -> None:
    one, other = message("a", "lost", sent="2026-11-01"), message("b", "lost", sent="2026-11-02")
    assert ids(other, start=one) == ["a", "b"]


def test_a_circle_ends_and_a_message_that_stands_twice_is_taken_once() -> None:
    one, other = message("a", "b", sent="2026-11-01"), message("b", "a", sent="2026-11-02")
    assert ids(one, other, other, start=one) == ["a", "b"]


def test_a_reference_to_a_version_is_one_to_the_message() -> None:
    asked, answer = message("q"), message("a", "q/_history/2", received="2026-11-02T00:00:00Z")
    assert ids(asked, start=answer) == ["q", "a"]


def test_other_types_and_broken_references_are_passed_over() -> None:
    alone = message("a") | {"inResponseTo": [None, {"reference": 3}, {"display": "x"}, "y"]}
    assert ids({"resourceType": "Patient", "id": "p"}, start=alone) == ["a"]
