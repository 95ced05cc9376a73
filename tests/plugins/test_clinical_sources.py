"""Every clinical rule names a source, and docs/clinical-sources.md says which of them were looked up, and where."""

from __future__ import annotations

import re
from datetime import date

import pytest

from pipelines.authoring import source_reference
from pipelines.authoring.source_reference import document, rules


def test_the_document_says_what_the_rules_and_the_register_say() -> None:
    text = source_reference.DOCUMENT.read_text(encoding="utf-8")
    assert text == document(), "run `python -m pipelines.authoring.source_reference`"


def test_every_rule_names_a_published_source_and_none_is_a_default_of_careloom() -> None:
    found = rules()
    assert len(found) >= 80
    assert len({rule.key for rule in found}) == len(found)
    assert [rule.key for rule in found if not rule.citation or rule.citation.startswith("careloom")] == []


def test_no_rule_stands_on_memory_alone() -> None:
    assert [rule.key for rule in rules() if not rule.seen] == [], "look it up, or leave it out and name it"


def test_every_looked_up_rule_says_where_and_on_which_day() -> None:
    for rule in rules():
        assert date.fromisoformat(rule.day), rule.key
        assert re.search(r"[a-z]\.[a-z]{2,}|PMC\d", rule.seen), rule.key


def test_what_is_looked_up_on_two_days_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = {"2026-11-28": {"news2/table": "x"}, "2026-11-29": {"news2/table": "y"}}
    monkeypatch.setattr(source_reference, "_sources", lambda: {"seen": twice})
    with pytest.raises(ValueError, match="on two days: news2/table"):
        rules()


def test_what_is_looked_up_and_is_no_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_reference, "_sources", lambda: {"seen": {"2026-11-29": {"red_flags/gone": "x"}}})
    with pytest.raises(ValueError, match="no such rule: red_flags/gone"):
        rules()
