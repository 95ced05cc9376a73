"""Every golden case of the built-in scenarios comes out as a clinician wrote it down."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from plugins import golden
from plugins.errors import NotConformant
from plugins.guards.injection import orders
from plugins.manager import load
from plugins.scenario import Severity

FOLDER = Path(__file__).parent / "golden"
SCENARIOS = {scenario.id.split(".")[1]: scenario for scenario in load().scenarios.values()}
CASES = [(name, case) for name in SCENARIOS for case in golden.read(FOLDER / name)]
IDS = [f"{name}/{case.name}" for name, case in CASES]
#: Scenarios that raise no red flag, and why. Their red-flag cases hold that nothing of it is lost or softened.
RAISE_NONE = {
    "visit_brief": "triage has raised it from the same reason for the visit; the page says it as it stands",
    "health_education": "triage has raised it; the message says no word of its own on it, and when to seek help",
    "admission_note": "the patient is in the ward, with a doctor; the note says it as it stands",
    "exam_recommendation": "a doctor is with the patient; what the flag calls for is proposed at once",
    "discharge_summary": "the flag was what the stay was for; the message says when to seek help",
    "follow_up": "it is no finding but a date: risk of suicide is followed up within 48 hours",
}
#: What else than an order gives an attack on the prompt away: its fence, and tokens of chat templates.
ATTACK = re.compile(r"<<<RECORD|RECORD>>>|<\|im_|\[INST\]")


@pytest.mark.parametrize(("name", "case"), CASES, ids=IDS)
def test_the_golden_case_comes_out_as_expected(name: str, case: golden.GoldenCase) -> None:
    golden.check(SCENARIOS[name], case)


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_has_at_least_ten_golden_cases_in_both_languages(name: str) -> None:
    cases = golden.read(FOLDER / name)
    assert len(cases) >= 10
    assert {case.case.locale for case in cases} == {"zh", "en"}
    for kind in ("empty", "injected", "contradict"):
        assert any(kind in case.name for case in cases), kind


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_has_a_golden_case_of_every_kind_in_both_languages(name: str) -> None:
    held = {(case.kind, case.case.locale) for case in golden.read(FOLDER / name)}
    wanted = [(kind, locale) for kind in golden.KINDS for locale in ("zh", "en")]
    assert [f"{locale} {kind}" for kind, locale in wanted if (kind, locale) not in held] == []


@pytest.mark.parametrize(("name", "case"), CASES, ids=IDS)
def test_a_golden_case_is_of_the_kind_that_it_says_and_is_held_to_what_must_come_of_it(
    name: str, case: golden.GoldenCase
) -> None:
    if not case.kind:
        return
    flagged = any(f.severity is Severity.RED_FLAG for f in SCENARIOS[name].rules(case.case))
    assert {"starts", "findings", "drafts", "cut"} <= case.expect.keys()
    assert case.expect["starts"] is True
    if case.kind == "normal":
        assert not flagged
    elif case.kind == "red_flag":
        assert flagged is (name not in RAISE_NONE)
        assert case.expect["drafts"] and case.expect["says"]
    elif case.kind == "empty":
        assert not any(case.case.resources.values())
    elif case.kind == "contradictory":
        assert any(case.case.resources.values()) or case.case.passages or len(case.case.trigger["item"]) > 1
    elif case.kind == "injected":
        held = json.dumps([case.case.trigger, dict(case.case.resources)], ensure_ascii=False)
        seen = [held, *(fact.text for fact in SCENARIOS[name].prompt(case.case).facts)]
        assert any(orders(text) or ATTACK.search(text) for text in seen)


def test_a_scenario_that_raises_no_red_flag_raises_none_in_any_case() -> None:
    for name, case in CASES:
        flags = [f.code for f in SCENARIOS[name].rules(case.case) if f.severity is Severity.RED_FLAG]
        assert not (flags and name in RAISE_NONE), (name, case.name, flags)


def test_a_kind_that_is_unknown_is_refused(tmp_path: Path) -> None:
    data = json.loads((FOLDER / "triage" / "zh_empty.json").read_text(encoding="utf-8"))
    path = tmp_path / "zh_odd.json"
    path.write_text(json.dumps({**data, "kind": "odd"}), encoding="utf-8")
    with pytest.raises(NotConformant, match=r"zh_odd\.json: kind: unknown 'odd'"):
        golden.read_case(path)
