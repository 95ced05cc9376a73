"""Passages reach the prompt whole, and stand beside the sentences that rest on them with title, date and origin."""

from __future__ import annotations

from datetime import UTC, datetime

from plugins.knowledge.documents import MAX_CHARS
from plugins.passages import by_source, passage_facts, quote
from plugins.prompting import MAX_FACT_CHARS, neutral
from plugins.scenario import Case, Passage, Statement

SHORT = Passage("en/a#1", "Come early.", "Visit", "urn:house", "2026", "own", "en")
LONG = Passage("en/b#1", "One sentence of some words. " * 17, "Long", "urn:house", "2025", "own", "en")
TRIGGER = {"resourceType": "Communication", "id": "c1"}


def case(*passages: Passage) -> Case:
    return Case(TRIGGER, None, {}, "en", datetime(2026, 11, 22, tzinfo=UTC), passages={"a": passages, "b": passages})


def test_a_passage_that_two_queries_bring_is_shown_once() -> None:
    assert [fact.source for fact in passage_facts(case(SHORT))] == ["urn:careloom:passage:en/a#1"]
    assert list(by_source(case(SHORT, LONG))) == [SHORT.source, LONG.source]


def test_a_long_passage_reaches_the_prompt_whole_in_several_facts() -> None:
    assert MAX_FACT_CHARS < len(LONG.text) <= MAX_CHARS
    facts = passage_facts(case(LONG))
    assert len(facts) > 1
    assert all(neutral(fact.text) == fact.text for fact in facts)
    assert "".join(fact.text for fact in facts).count("One sentence of some words.") == 17
    assert {fact.source for fact in facts} == {LONG.source}


def test_each_sentence_has_the_numbers_of_its_passages_and_each_passage_its_origin_once() -> None:
    said = [
        Statement(text="First.", sources=(LONG.source,)),
        Statement(text="Both.", sources=(LONG.source, SHORT.source)),
    ]
    quoted = quote(case(SHORT, LONG), said, "en")
    assert [line.text for line in quoted.lines] == ["First. [1]", "Both. [1][2]"]
    assert [line.text for line in quoted.origins] == [
        "[1] Long (2025). source: urn:house",
        "[2] Visit (2026). source: urn:house",
    ]
    assert quoted.sources == (LONG.source, SHORT.source)


def test_what_rests_on_the_record_alone_is_left_out_and_beside_a_passage_stays_cited() -> None:
    said = [
        Statement(text="No.", sources=("Condition/k1",)),
        Statement(text="Yes.", sources=("Condition/k1", SHORT.source)),
    ]
    quoted = quote(case(SHORT), said, "en")
    assert [(line.text, line.sources) for line in quoted.lines] == [("Yes. [1]", ("Condition/k1",))]
    assert quoted.sources == (SHORT.source, "Condition/k1")
