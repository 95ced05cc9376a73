"""Red flags are found where they are claimed, in both languages, and not where they are denied."""

from __future__ import annotations

import re

import pytest

from plugins import red_flags
from plugins.mentions import affirmed

CHEST = re.compile("(?i)胸痛|胸闷|chest pain")


@pytest.mark.parametrize(
    "text",
    [
        "胸痛2小时", "无明显诱因出现胸痛", "没吃饭胸痛", "胸痛未缓解", "无发热,有胸痛", "否认发热。胸痛一天",
        "没有发热,但胸痛明显", "I have chest pain", "no relief of chest pain", "no fever, chest pain since morning",
        "not feeling well with chest pain",
        "Denies fever. Chest pain at rest.", "No cough but chest pain", "chest pain not going away",
    ],
)  # fmt: skip
def test_a_claimed_symptom_counts(text: str) -> None:
    assert affirmed(text, CHEST)


@pytest.mark.parametrize(
    "text",
    [
        "无胸痛", "否认胸痛", "没有胸痛", "未诉胸痛", "无发热、咳嗽及胸痛", "没有明显胸痛", "胸痛(-)", "胸痛:无",
        "胸痛: 否认", "不伴胸痛",
        "no chest pain", "denies fever, cough, chest pain", "without any chest pain", "I do not have chest pain",
        "I don't have any chest pain", "no fever or chest pain", "Chest pain: none",
        "never had chest pain", "negative for chest pain",
    ],
)  # fmt: skip
def test_a_denied_symptom_does_not_count(text: str) -> None:
    assert not affirmed(text, CHEST)


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("chest-pain-acs", ["胸痛,出冷汗", "pressure in my chest and nausea"]),
        ("stroke-fast", ["右侧肢体无力,说话不清", "my face is drooping", "left arm suddenly weak"]),
        ("thunderclap-headache", ["突发剧烈头痛", "worst headache of my life"]),
        ("meningism-fever", ["发烧,脖子僵硬", "fever and a non-blanching rash"]),
        ("severe-breathlessness", ["口唇发紫", "short of breath even at rest"]),
        ("anaphylaxis", ["嘴唇肿,喘不过气", "hives and trouble breathing"]),
        ("gi-bleeding", ["解柏油样便", "I vomited some blood"]),
        ("suicidal-intent", ["不想活了", "I want to die"]),
        ("loss-of-consciousness", ["晕倒一次", "he had a seizure"]),
        ("cauda-equina", ["腰痛,小便困难", "back pain and I can't pee"]),
        ("early-pregnancy-bleeding", ["怀孕6周,阴道出血", "pregnant with pelvic pain"]),
    ],
)
def test_each_rule_is_found_in_both_languages(code: str, texts: list[str]) -> None:
    for text in texts:
        assert code in [f.code for f in red_flags.find([text], ["QuestionnaireResponse/1"], 400)], text


@pytest.mark.parametrize(("months", "found"), [(0, True), (2, True), (3, False), (400, False), (None, False)])
def test_fever_is_a_red_flag_below_three_months_of_age_only(months: int | None, found: bool) -> None:
    assert bool(red_flags.find(["发热 38.5"], [], months)) is found


def test_needs_may_stand_in_different_answers_but_all_must_be_claimed() -> None:
    assert red_flags.find(["chest pain", "sweating"], [], None)
    assert not red_flags.find(["chest pain", "no sweating"], [], None)


def test_the_most_urgent_level_counts() -> None:
    assert red_flags.level(red_flags.find(["呕血,口唇发紫"], [], None)) == "1"
    assert red_flags.level([]) is None


def test_every_rule_has_a_source_and_both_languages() -> None:
    codes = [flag.code for flag in red_flags.RED_FLAGS]
    assert len(set(codes)) == len(codes)
    for flag in red_flags.RED_FLAGS:
        assert re.search(r"NICE|AHA|NHS|共识|Resuscitation", flag.citation), flag.code
        assert flag.text.zh and flag.text.en


@pytest.mark.parametrize("text", ["", "普通感冒", "我想预约体检", "repeat prescription please", "knee hurts"])
def test_ordinary_complaints_raise_nothing(text: str) -> None:
    assert red_flags.find([text], [], 400) == []
