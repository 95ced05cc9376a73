"""Questions about a diagnosis or a medicine are found in both languages; questions about the hospital are not."""

from __future__ import annotations

import pytest

from plugins.patient_questions import RULES, find, of


@pytest.mark.parametrize(
    "text",
    [
        "这药能不能停?",
        "每天吃几片?",
        "布洛芬和阿司匹林能一起吃吗",
        "Can I stop taking my metformin?",
        "What dose is right?",
    ],
)
def test_a_question_about_a_medicine_is_for_a_person(text: str) -> None:
    assert [f.code for f in find(text, ["Communication/c1"])] == ["asks-medicine"]


@pytest.mark.parametrize("text", ["我是不是得了肺炎?", "这是什么病?", "What’s wrong with me?", "Do I have pneumonia?"])
def test_a_question_about_a_diagnosis_is_for_a_person(text: str) -> None:
    assert [f.code for f in find(text, ["Communication/c1"])] == ["asks-diagnosis"]


@pytest.mark.parametrize(
    "text",
    [
        "门诊几点开门?",
        "住院能陪护吗?",
        "可以用医保卡吗?",
        "能停车吗?",
        "抗生素对感冒有用吗",
        "Do I have to fast before the blood test?",
        "How do I cancel my appointment?",
        "What should I bring?",
    ],
)
def test_a_question_about_the_hospital_is_not(text: str) -> None:
    assert find(text, ["Communication/c1"]) == []


def test_every_rule_names_its_published_source_and_is_recognised_among_findings() -> None:
    assert all(rule.citation and rule.text.zh and rule.text.en for rule in RULES)
    found = find("用量是多少?", ["Communication/c1"])
    assert of(found) == found
