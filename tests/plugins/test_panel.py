"""A panel keeps its answers apart, and says in words where they differ and who is absent."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from plugins.checks import check
from plugins.errors import ScenarioRefused
from plugins.panel import ABSENT, DISAGREEMENT, PanelAnswer
from plugins.pre_visit.triage import Triage
from plugins.scenario import Severity, Statement
from tests.canary import CANARY


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Detail(BaseModel):
    side: Literal["left", "right"] | None = None
    words: Annotated[str, Field(max_length=9)] = ""


class Answer(BaseModel):
    level: Level
    flags: Annotated[list[Literal["a", "b"]], Field(max_length=2)] = []
    score: Annotated[float | None, Field(ge=0, le=1)] = None
    reasons: Annotated[tuple[Statement, ...], Field(max_length=3)] = ()
    headline: Statement | None = None
    detail: Detail = Detail()
    details: Annotated[list[Detail], Field(max_length=2)] = []


def said(text: str, *sources: str) -> Statement:
    return Statement(text=text, sources=sources)


def panel(one: Answer, other: Answer, **absent: str) -> PanelAnswer[Answer]:
    return PanelAnswer({"m1": one, "m2": other}, absent)


def differ(one: Answer, other: Answer) -> list[str]:
    return [field for field, agreement in panel(one, other).agreement.items() if not agreement.agreed]


def test_every_field_but_free_text_is_compared() -> None:
    same = Answer(level=Level.LOW)
    assert list(panel(same, same).agreement) == [
        "level", "flags", "score", "reasons", "headline", "detail.side", "details",
    ]  # fmt: skip
    assert differ(same, same) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"level": Level.HIGH}, "level"),
        ({"flags": ["a"]}, "flags"),
        ({"score": 0.5}, "score"),
        ({"reasons": (said("x", "A/1"),)}, "reasons"),
        ({"headline": said("x", "A/1")}, "headline"),
        ({"detail": Detail(side="left")}, "detail.side"),
        ({"details": [Detail()]}, "details"),
        ({"detail": Detail(words="other")}, None),
    ],
)
def test_models_that_differ_in_a_field_disagree_there_and_nowhere_else(
    change: dict[str, object], field: str | None
) -> None:
    base = Answer(level=Level.LOW)
    assert differ(base, base.model_copy(update=change)) == ([field] if field else [])


def test_the_order_of_a_closed_list_does_not_matter() -> None:
    one, other = Answer(level=Level.LOW, flags=["a", "b"]), Answer(level=Level.LOW, flags=["b", "a"])
    assert differ(one, other) == []


def test_as_many_statements_that_rest_on_other_resources_are_no_agreement() -> None:
    one = Answer(level=Level.LOW, reasons=(said("x", "A/1"), said("y", "A/2")))
    other = Answer(level=Level.LOW, reasons=(said("x", "A/1"), said("z", "A/3")))
    agreement = panel(one, other).agreement["reasons"]
    assert agreement.said == {"m1": "2", "m2": "2"}
    assert agreement.overlap == pytest.approx(1 / 3)
    assert not agreement.agreed


def test_the_reader_is_told_who_said_what_in_both_languages_and_no_word_of_a_statement() -> None:
    one = Answer(level=Level.LOW, reasons=(said(CANARY, "A/1"),))
    found = panel(one, Answer(level=Level.HIGH), m3="model_timeout").findings()
    assert [finding.code for finding in found] == [DISAGREEMENT, DISAGREEMENT, ABSENT]
    assert {finding.severity for finding in found} == {Severity.WARNING}
    assert found[0].text.en == "The models disagree on level: m1: 1; m2: 2"
    assert found[0].text.zh == "模型意见不一致(level):m1: 1; m2: 2"
    assert "0% of what they cite is the same" in found[1].text.en
    assert "m3" in found[2].text.zh
    assert CANARY not in str(found)


def test_a_panel_that_agrees_says_nothing() -> None:
    same = Answer(level=Level.LOW, reasons=(said("x", "A/1"),))
    assert panel(same, same.model_copy(update={"reasons": (said("other words", "A/1"),)})).findings() == ()


def test_a_scenario_that_does_not_say_what_it_drafts_of_a_panel_is_refused_at_load_and_names_itself_if_asked() -> None:
    lonely = type("Lonely", (Triage,), {"panel": True})()
    with pytest.raises(ScenarioRefused, match="panel = True without drafts_of_panel"):
        check(lonely)
    with pytest.raises(ScenarioRefused, match=r"pre_visit\.triage: panel = True without drafts_of_panel"):
        lonely.drafts_of_panel(None, None, ())
