"""What speaks against an order is found in both languages, by published rules, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from plugins.order_safety_rules import RULES, issues
from plugins.scenario import Case

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)


def order(name: str, identity: str = "m1") -> dict[str, Any]:
    return {"resourceType": "MedicationRequest", "id": identity, "medicationCodeableConcept": {"text": name}}


def codes(name: str, *, born: str = "1980-01-01", sex: str = "female", **record: Any) -> list[str]:
    patient = {"resourceType": "Patient", "id": "p", "gender": sex, "birthDate": born}
    named = {
        "allergies": [
            {"resourceType": "AllergyIntolerance", "id": f"a{n}", "code": {"text": text}}
            for n, text in enumerate(record.get("allergies", ()))
        ],
        "medications": [order(text, f"o{n}") for n, text in enumerate(record.get("medications", ()))],
        "problems": [
            {"resourceType": "Condition", "id": f"c{n}", "code": {"text": text}}
            for n, text in enumerate(record.get("problems", ()))
        ],
        "renal": [
            {"resourceType": "Observation", "id": f"r{n}", "code": {"text": "eGFR"}, "valueQuantity": value}
            for n, value in enumerate(record.get("renal", ()))
        ],
    }
    return [each.finding.code for each in issues(Case(order(name), patient, named, "en", NOW))]


def egfr(value: float, comparator: str = "", unit: str = "mL/min/{1.73_m2}") -> dict[str, Any]:
    return {"value": value, "code": unit} | ({"comparator": comparator} if comparator else {})


@pytest.mark.parametrize(
    ("allergy", "drug", "code"),
    [
        ("Penicillin G", "Amoxicillin 500 MG", "allergy-class-penicillins"),
        ("青霉素类", "注射用哌拉西林钠", "allergy-class-penicillins"),
        ("头孢类", "注射用头孢呋辛钠", "allergy-same-substance"),
        ("Cefazolin", "Ceftriaxone 1000 MG Injection", "allergy-class-cephalosporins"),
        ("Penicillin", "Cephalexin 500 MG", "allergy-penicillin-cephalosporin"),
        ("头孢克洛", "阿莫西林胶囊", "allergy-cephalosporin-penicillin"),
        ("Erythromycin", "Azithromycin 250 MG", "allergy-class-macrolides"),
        ("磺胺", "复方新诺明片", "allergy-class-sulfonamides"),
        ("Sulfa drugs", "Sulfamethoxazole 800 MG / Trimethoprim 160 MG", "allergy-class-sulfonamides"),
        ("Naproxen", "Ibuprofen 400 MG", "allergy-class-nsaids"),
        ("阿司匹林", "布洛芬缓释胶囊", "allergy-aspirin-nsaid"),
        ("Aspirin allergy", "Aspirin 81 MG", "allergy-same-substance"),
        ("对青霉素过敏", "注射用青霉素钠", "allergy-same-substance"),
    ],
)
def test_an_allergy_is_matched_by_substance_and_by_class(allergy: str, drug: str, code: str) -> None:
    assert codes(drug, allergies=[allergy]) == [code]


@pytest.mark.parametrize(
    ("allergy", "drug"),
    [
        ("Pollen", "Amoxicillin 500 MG"), ("无已知药物过敏", "阿莫西林胶囊"),
        ("No known allergies", "Ibuprofen 400 MG"),
        ("Allergy to substance (finding)", "Lisinopril 10 MG"), ("海鲜", "注射用头孢呋辛钠"), ("", "Lisinopril 10 MG"),
        ("Iodine contrast", "Potassium chloride 20 MEQ"), ("Metoprolol tartrate", "Zolpidem tartrate 5 MG"),
    ],
)  # fmt: skip
def test_another_allergy_speaks_against_nothing(allergy: str, drug: str) -> None:
    assert codes(drug, allergies=[allergy]) == []


@pytest.mark.parametrize(
    ("drug", "beside", "code"),
    [
        ("Nitroglycerin 0.4 MG", "Tadalafil 5 MG", "interaction-nitrate-pde5"),
        ("西地那非片", "硝酸甘油片", "interaction-nitrate-pde5"),
        ("Simvastatin 40 MG", "Itraconazole 100 MG", "interaction-simvastatin"),
        ("环孢素软胶囊", "辛伐他汀片", "interaction-simvastatin"),
        ("Sacubitril 24 MG / Valsartan 26 MG", "Enalapril 5 MG", "interaction-sacubitril-ace"),
        ("利奈唑胺片", "盐酸舍曲林片", "interaction-maoi-ssri"),
        ("Ketorolac 10 MG", "Naproxen 500 MG", "interaction-ketorolac-nsaid"),
        ("Aspirin 81 MG", "Ketorolac 10 MG", "interaction-ketorolac-aspirin"),
        ("Oxycodone 5 MG", "Lorazepam 1 MG", "interaction-opioid-benzodiazepine"),
        ("奥美拉唑肠溶胶囊", "硫酸氢氯吡格雷片", "interaction-clopidogrel-omeprazole"),
    ],
)
def test_an_interaction_is_found_whichever_of_the_two_is_ordered(drug: str, beside: str, code: str) -> None:
    assert codes(drug, medications=[beside]) == [code]
    assert codes(beside, medications=[drug]) == [code]


def test_two_medicines_of_the_partner_group_are_no_interaction() -> None:
    assert codes("Simvastatin 40 MG", medications=["Azithromycin 250 MG"]) == []
    assert codes("Ketorolac 10 MG", medications=["Ketorolac 30 MG Injection"]) == ["duplicate-ingredient"]


@pytest.mark.parametrize(
    ("renal", "expected"),
    [
        ([egfr(29.9)], ["renal-metformin-contraindicated"]),
        ([egfr(30)], ["renal-metformin-start"]),
        ([egfr(44.9)], ["renal-metformin-start"]),
        ([egfr(45)], []),
        ([egfr(60, ">")], []),
        ([egfr(30, "<")], ["renal-metformin-contraindicated"]),
        ([egfr(15, "<=")], ["renal-metformin-contraindicated"]),
        ([egfr(60, "<")], []),
        ([egfr(60), egfr(20)], []),
        ([egfr(20, unit="mL")], ["renal-metformin-unknown"]),
        ([], ["renal-metformin-unknown"]),
    ],
)
def test_metformin_follows_the_newest_egfr(renal: list[dict[str, Any]], expected: list[str]) -> None:
    assert codes("盐酸二甲双胍片 0.5g", renal=renal) == expected


@pytest.mark.parametrize(
    ("drug", "born", "expected"),
    [
        ("Tramadol 50 MG", "2014-11-23", ["age-codeine-tramadol"]),
        ("Tramadol 50 MG", "2014-11-22", []),
        ("盐酸异丙嗪糖浆", "2025-06-01", ["age-promethazine"]),
        ("Doxycycline 100 MG", "2019-06-01", ["age-tetracycline"]),
        ("阿司匹林片", "2011-06-01", ["age-aspirin"]),
        ("地西泮片", "1961-11-22", ["age-benzodiazepine"]),
        ("地西泮片", "1961-11-23", []),
        ("Diphenhydramine 25 MG", "1950-01-01", ["age-antihistamine"]),
        ("Tramadol 50 MG", "", []),
    ],
)
def test_an_age_counts_to_the_day(drug: str, born: str, expected: list[str]) -> None:
    assert codes(drug, born=born) == expected


@pytest.mark.parametrize(
    "drug", ["异维A酸胶丸", "Methotrexate 2.5 MG", "华法林钠片", "Losartan 50 MG", "米索前列醇片", "培哚普利片"]
)
def test_pregnancy_counts_for_women_only_and_only_now(drug: str) -> None:
    assert len(codes(drug, problems=["Pregnancy"])) == 1
    assert codes(drug, problems=["Pregnancy"], sex="male") == []
    for other in ("History of pregnancy", "产后", "否认妊娠", "Not pregnant"):
        assert codes(drug, problems=[other]) == []


def test_the_order_itself_is_no_duplicate_and_different_insulins_are_none() -> None:
    assert codes("Acetaminophen 500 MG", medications=["Acetaminophen 325 MG Oral Tablet"]) == ["duplicate-ingredient"]
    case = Case(order("Acetaminophen"), None, {"medications": [order("Acetaminophen")]}, "en", NOW)
    assert issues(case) == []
    assert codes("Insulin glargine", medications=["Insulin lispro"]) == []


def test_a_contained_medicine_is_read_and_a_bare_reference_is_said_to_be_unreadable() -> None:
    contained = {"resourceType": "Medication", "id": "x", "code": {"text": "Amoxicillin"}}
    inside = {"resourceType": "MedicationRequest", "id": "m", "contained": [contained]}
    allergy = {"resourceType": "AllergyIntolerance", "id": "a", "code": {"text": "Amoxicillin"}}
    for reference, expected in (("#x", "allergy-same-substance"), ("Medication/y", "order-unreadable")):
        trigger = inside | {"medicationReference": {"reference": reference}}
        found = issues(Case(trigger, None, {"allergies": [allergy]}, "en", NOW))
        assert [each.finding.code for each in found] == [expected]


def test_every_rule_has_a_source_both_languages_and_a_code_of_its_own() -> None:
    assert len({rule.code for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.text.zh and rule.text.en
        assert any(source in rule.citation for source in ("USPI", "FDA", "AGS Beers", "MHRA")), rule.code
