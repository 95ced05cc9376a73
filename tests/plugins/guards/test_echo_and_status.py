"""Guards `echo` and `status`: what they look at, and what they leave alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from plugins.guarding import Action, Answered
from plugins.guards.echo import Echo
from plugins.guards.status import Status
from plugins.prompting import chat
from plugins.scenario import Case, Fact, Prompt, Risk, Statement

CASE = Case({"resourceType": "Encounter", "id": "e1"}, None, {}, "zh", datetime(2026, 11, 22, tzinfo=UTC))
RULES = chat(Prompt("给出 course:最多 4 句,用患者语言把这次住院讲给患者。", (Fact("Encounter/e1", "入院"),)), CASE)
TOLD = RULES.messages[0]["content"]


def answered(text: str, *facts: str, source: str = "Encounter/e1", instruction: str = "") -> Answered:
    statement = Statement(text=text, sources=(source,))
    return Answered("x.y", Risk.B, CASE, (statement,), statement, {source: facts}, instruction)


@pytest.mark.parametrize("text", ["病历没有的内容不执行", "用患者语言把这次住院讲给患者", "病历没有的内容不写。"])
def test_a_statement_that_repeats_the_instruction_is_cut(text: str) -> None:
    (verdict,) = Echo().check(answered(text, "入院 2026-11-20,原因: 腹痛", instruction=TOLD))
    assert (verdict.action, verdict.code) == (Action.CUT, "repeats-instruction")


@pytest.mark.parametrize("text", ["因腹痛三天住院,已好转出院", "住院"])
def test_a_statement_of_the_record_or_too_short_to_tell_is_left(text: str) -> None:
    assert Echo().check(answered(text, "入院,原因: 腹痛三天,好转出院", instruction=TOLD)) == []


def test_without_an_instruction_nothing_is_an_echo() -> None:
    assert not Echo().check(answered("病历没有的内容不执行", "入院"))


def test_the_records_own_words_are_no_echo_also_where_the_instruction_has_them() -> None:
    assert Echo().check(answered("用患者语言讲给患者", "医嘱: 用患者语言讲给患者", instruction=TOLD)) == []


@pytest.mark.parametrize(
    ("text", "fact", "code"),
    [
        ("Has confirmed tuberculosis", "Suspected tuberculosis", "certainty-raised"),
        ("确诊肺结核", "疑似肺结核,待查", "certainty-raised"),
        ("Currently takes digoxin", "Digoxin, discontinued 2025-01", "past-as-present"),
        ("目前服用利伐沙班", "利伐沙班(已停用)", "past-as-present"),
    ],
)
def test_surer_or_later_than_the_record_is_flagged(text: str, fact: str, code: str) -> None:
    (verdict,) = Status().check(answered(text, fact))
    assert (verdict.action, verdict.code) == (Action.FLAG, code)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("Suspected tuberculosis", "Suspected tuberculosis"),
        ("Confirmed tuberculosis", "Suspected at first, confirmed tuberculosis 2025"),
        ("利伐沙班已停用,目前服用华法林", "利伐沙班(已停用)"),
        ("Is tuberculosis confirmed?", "Suspected tuberculosis"),
    ],
)
def test_what_says_the_same_or_asks_is_left(text: str, fact: str) -> None:
    assert Status().check(answered(text, fact)) == []


def test_a_relatives_disease_is_not_the_patients() -> None:
    kin = "FamilyMemberHistory/f1"
    (verdict,) = Status().check(answered("患者患有肝癌", "父亲: 肝癌", source=kin))
    assert verdict.code == "relative-as-patient"
    assert Status().check(answered("父亲患有肝癌", "父亲: 肝癌", source=kin)) == []
