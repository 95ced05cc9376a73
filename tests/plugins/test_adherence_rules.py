"""Supply and days covered follow PQA's definition; dangerous stops are found by medicine and by what patients say."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.adherence_rules import SAYS, STOPS, findings, supplies
from plugins.scenario import Case, Severity

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
ORDER = {"resourceType": "MedicationRequest", "id": "m1", "medicationCodeableConcept": {"text": "Simvastatin 20 mg"}}


def dispense(n: int, days_ago: int, supply: Any, drug: str = "Simvastatin 20 mg") -> dict[str, Any]:
    on = NOW.date() - timedelta(days=days_ago)
    resource = {"resourceType": "MedicationDispense", "id": f"d{n}", "medicationCodeableConcept": {"text": drug}}
    return resource | {"whenHandedOver": on.isoformat(), "daysSupply": {"value": supply, "code": "d"}}


def case(*dispenses: dict[str, Any], order: dict[str, Any] = ORDER, trigger: dict[str, Any] | None = None) -> Case:
    about = trigger or {"resourceType": "Task", "id": "t1", "status": "completed"}
    return Case(about, None, {"dispenses": dispenses, "medications": [order]}, "en", NOW)


def reply(text: str) -> dict[str, Any]:
    item = [{"linkId": "1", "text": "How are you?", "answer": [{"valueString": text}]}]
    return {"resourceType": "QuestionnaireResponse", "id": "q1", "item": item}


def test_days_covered_count_from_the_first_dispense_to_yesterday() -> None:
    (supply,) = supplies(case(dispense(1, 100, 50), dispense(2, 30, 20)))
    assert (supply.covered, supply.days, supply.percent) == (70, 100, 70)
    assert supply.until == date(2026, 11, 12)


def test_a_supply_that_overlaps_the_one_before_begins_when_that_one_ends() -> None:
    (supply,) = supplies(case(dispense(1, 100, 30), dispense(2, 90, 30)))
    assert supply.covered == 60
    assert supply.until == NOW.date() - timedelta(days=40)


@pytest.mark.parametrize("given_", [(dispense(1, 100, 50),), (dispense(1, 90, 30), dispense(2, 50, 20))])
def test_there_is_no_proportion_of_one_fill_or_of_fewer_than_91_days(given_: tuple[dict[str, Any], ...]) -> None:
    (supply,) = supplies(case(*given_))
    assert supply.percent is None
    assert [f.code for f in findings(case(*given_))] == ["supply-overdue"]


def test_eighty_percent_is_enough_and_less_is_not() -> None:
    assert [f.code for f in findings(case(dispense(1, 100, 40), dispense(2, 60, 40)))] == ["supply-overdue"]
    low = [f.code for f in findings(case(dispense(1, 100, 40), dispense(2, 60, 39)))]
    assert low == ["supply-overdue", "pdc-below-80"]


@pytest.mark.parametrize("supply", [0, -3, 400, None, "thirty", True])
def test_a_number_of_days_that_is_none_is_not_counted(supply: Any) -> None:
    assert supplies(case(dispense(1, 100, supply))) == []


def test_a_medicine_that_is_no_longer_prescribed_is_not_overdue() -> None:
    assert findings(case(dispense(1, 100, 7, drug="Amoxicillin"))) == []


def test_supply_that_lasts_until_tomorrow_is_not_overdue_and_until_today_is() -> None:
    assert findings(case(dispense(1, 10, 11))) == []
    assert [f.code for f in findings(case(dispense(1, 10, 10)))] == ["supply-overdue"]


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 366)), min_size=1, max_size=8))
def test_days_covered_never_exceed_the_days_there_were(fills: list[tuple[int, int]]) -> None:
    (supply,) = supplies(case(*(dispense(n, ago, days) for n, (ago, days) in enumerate(fills))))
    assert 0 <= supply.covered <= supply.days
    assert supply.percent is None or 0 <= supply.percent <= 100


@pytest.mark.parametrize(
    ("drug", "code"),
    [
        ("Metoprolol succinate 50 MG Extended Release Oral Tablet", "stop-beta-blocker"),
        ("酒石酸美托洛尔片", "stop-beta-blocker"),
        ("可乐定片", "stop-clonidine"),
        ("Apixaban 5 mg", "stop-anticoagulant"),
        ("替格瑞洛片", "stop-antiplatelet"),
        ("左乙拉西坦片", "stop-antiepileptic"),
        ("Clonazepam 0.5 mg", "stop-benzodiazepine"),
        ("恩替卡韦分散片", "stop-hepatitis-b-antiviral"),
    ],
)
def test_an_overdue_supply_of_such_a_medicine_is_a_red_flag(drug: str, code: str) -> None:
    order = ORDER | {"medicationCodeableConcept": {"text": drug}}
    found = findings(case(dispense(1, 40, 30, drug=drug), order=order))
    assert [f.code for f in found if f.severity is Severity.RED_FLAG] == [code]


@pytest.mark.parametrize("drug", ["Simvastatin 20 mg", "Warfarin 3 mg", "氨氯地平片", "Prednisone 5 mg"])
def test_other_medicines_raise_none(drug: str) -> None:
    assert not any(rule.pattern.search(drug) for rule in STOPS)


@pytest.mark.parametrize(
    ("said", "codes"),
    [
        ("I stopped taking it two weeks ago", ["says-stopped"]),
        ("I ran out of my tablets", ["says-stopped"]),
        ("I sometimes forget to take my pills", ["says-missed"]),
        ("自己停药了", ["says-stopped"]),
        ("上个月自己停了药", ["says-stopped"]),
        ("华法林药都停了", ["says-stopped"]),
        ("药没有停掉", []),
        ("有时漏服", ["says-missed"]),
        ("I have not missed a dose", []),
        ("没有停药,也没有漏服", []),
        ("I take everything as prescribed", []),
        ("每天按时吃药", []),
    ],
)
def test_what_a_patient_says_is_found_and_what_the_patient_denies_is_not(said: str, codes: list[str]) -> None:
    assert [f.code for f in findings(case(trigger=reply(said)))] == codes


def test_every_rule_names_its_published_source_in_both_languages() -> None:
    for rule in (*STOPS, *SAYS):
        assert rule.citation
        assert rule.text.zh != rule.text.en
    assert len({rule.code for rule in (*STOPS, *SAYS)}) == len(STOPS) + len(SAYS)
