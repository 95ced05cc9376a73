"""Drafts become one labelled transaction with Device and Provenance; what cannot be written so is refused early."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_adapters.drafts import AI_LABEL, DRAFT_SYSTEM, Transaction, Written, build_transaction
from fhir_adapters.drafts import parse_transaction_response as parse
from fhir_adapters.errors import FhirRejected
from fhir_adapters.provenance import Author, Origin, device, device_id
from fhir_adapters.validate import problems

MODEL = Author("model", "SmolLM2-135M-Instruct", "1.0", registration_number="test-0001")
ORIGIN = Origin("pre_visit.triage", "1", "p3", "Patient/p/_history/2", ("chest-pain-at-rest",))
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Draft:
    name: str
    resource: dict[str, Any]
    sources: tuple[str, ...] = ()


NOTE = Draft(
    "note",
    {
        "resourceType": "Composition",
        "status": "preliminary",
        "section": [{"entry": [{"reference": "urn:careloom:draft:risk"}]}],
    },
    ("Patient/p", "Condition/c"),
)
RISK = Draft("risk", {"resourceType": "RiskAssessment", "status": "preliminary"}, ("Condition/c",))


def build(*drafts: Draft, author: Author = MODEL, identity: str = "e" * 64, **more: Any) -> Transaction:
    return build_transaction(
        drafts or (NOTE, RISK), identity=identity, author=author, origin=ORIGIN, recorded=NOON, **more
    )


def test_every_draft_is_labelled_identified_and_conditional() -> None:
    transaction = build()
    assert transaction.names == (None, "note", "risk", None)
    for entry, name in list(zip(transaction.bundle["entry"], transaction.names, strict=True))[1:3]:
        assert AI_LABEL in entry["resource"]["meta"]["security"]
        assert f"{'e' * 64}:{name}" in json.dumps(entry["resource"]["identifier"])
        tag = entry["resource"]["meta"]["tag"][0]
        assert tag == {"system": DRAFT_SYSTEM, "code": f"{'e' * 64}:{name}"}
        assert entry["request"]["ifNoneExist"].startswith("_tag=urn%3Acareloom%3Adraft%7C")


def test_references_between_drafts_become_the_entries_urls() -> None:
    entries = build().bundle["entry"]
    assert entries[1]["resource"]["section"][0]["entry"][0]["reference"] == entries[2]["fullUrl"]
    assert len({entry["fullUrl"] for entry in entries}) == 4


def test_a_reference_to_an_earlier_draft_becomes_what_was_written() -> None:
    transaction = build(NOTE, earlier={"risk": "RiskAssessment/9"})
    assert transaction.bundle["entry"][1]["resource"]["section"][0]["entry"][0]["reference"] == "RiskAssessment/9"


def test_the_provenance_names_targets_device_sources_prompt_and_rules() -> None:
    device, note, risk, provenance = (entry for entry in build().bundle["entry"])
    found = provenance["resource"]
    assert [target["reference"] for target in found["target"]] == [note["fullUrl"], risk["fullUrl"]]
    assert found["agent"][0]["who"]["reference"] == device["fullUrl"]
    used = [entity["what"]["reference"] for entity in found["entity"]]
    assert used == ["Patient/p/_history/2", "Condition/c"]
    assert found["policy"] == [
        "urn:careloom:scenario:pre_visit.triage:1",
        "urn:careloom:prompt:pre_visit.triage:p3",
        "urn:careloom:rule:pre_visit.triage:chest-pain-at-rest",
    ]
    assert found["recorded"] == "2026-11-22T12:00:00.000+00:00"


def test_the_device_says_which_model_it_is_and_a_stand_in_says_that_it_is_none() -> None:
    device = build().bundle["entry"][0]["resource"]
    assert device["deviceName"][0]["name"] == MODEL.name
    assert "test-0001" in json.dumps(device["identifier"])
    stand_in = build(author=Author("model", "SmolLM2", "1", stand_in=True)).bundle["entry"][0]["resource"]
    for element in ("deviceName", "type", "note"):
        assert "stand" in json.dumps(stand_in[element]).lower()


def test_the_device_says_what_the_maker_says_of_the_model_and_is_valid() -> None:
    said = replace(MODEL, intended_use="Drafts for a clinician", limits="Not for children", card="https://models/card")
    found = device(replace(said, stand_in=True))
    assert found["safety"] == [{"text": "Not for children"}]
    assert [note["text"].partition(":")[0] for note in found["note"][1:]] == ["Intended use", "Model card"]
    assert list(problems(found, "R4")) == []
    assert list(problems(device(said), "R4")) == []


def test_a_device_keeps_its_identity_until_more_is_said_of_its_model() -> None:
    """The values are those of the release before there was more to say."""
    assert device_id(Author("model", "m", "1")) == "model-ffa7e1409cea2f71cc6540a08941fb5b"
    assert device_id(MODEL) == "model-abae50e157b2b8159ce49b2c7556df4b"
    said = [replace(MODEL, **{name: "x"}) for name in ("intended_use", "limits", "card")]
    assert len({device_id(author) for author in (MODEL, *said)}) == 4
    assert device(MODEL).keys().isdisjoint({"note", "safety"})


def test_the_same_input_gives_the_same_transaction_and_leaves_the_drafts_alone() -> None:
    before = deepcopy((NOTE, RISK))
    assert build() == build()
    assert before == (NOTE, RISK)
    assert build() != build(identity="f" * 64)


def test_rules_and_model_parts_of_one_identity_have_provenances_of_their_own() -> None:
    conditions = {build(part=part).bundle["entry"][-1]["request"]["ifNoneExist"] for part in ("rules", "model")}
    assert len(conditions) == 2


@pytest.mark.parametrize(
    ("drafts", "identity"),
    [
        ([Draft("a", {"resourceType": "Flag", "id": "x"})], "i"),
        ([Draft("a", {"resourceType": "Provenance"})], "i"),
        ([Draft("a", {"resourceType": "Banana"})], "i"),
        ([Draft("a", {"resourceType": "Flag"}), Draft("a", {"resourceType": "Flag"})], "i"),
        ([Draft("a b", {"resourceType": "Flag"})], "i"),
        ([Draft("a", {"resourceType": "Flag"})], "i|j"),
        ([NOTE], "i"),
        ([Draft("a", {"resourceType": "Composition", "identifier": {"value": "mine"}})], "i"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_sent(drafts: list[Draft], identity: str) -> None:
    with pytest.raises(ValueError):
        build(*drafts, identity=identity)


def test_the_answers_of_both_servers_are_understood() -> None:
    sekmet = [
        {"response": {"status": "200 OK", "location": f"http://h/fhir/{kind}/_history/1", "etag": 'W/"1"'}}
        for kind in ("Device/1", "Composition/2", "RiskAssessment/3", "Provenance/4")
    ]
    hapi = [
        {"response": {"status": "201 Created", "location": f"{kind}/_history/1", "etag": "1"}}
        for kind in ("Device/1", "Composition/2", "RiskAssessment/3", "Provenance/4")
    ]
    expected = (("note", "Composition/2"), ("risk", "RiskAssessment/3"))
    assert parse(build(), {"entry": sekmet}) == tuple(Written(*pair, created=False) for pair in expected)
    assert parse(build(), {"entry": hapi}) == tuple(Written(*pair, created=True) for pair in expected)


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"entry": []},
        {"entry": [{}] * 4},
        {"entry": [{"response": {"status": "400", "location": "Flag/1"}}] * 4},
        {"entry": [{"response": {"status": "201"}}] * 4},
        {"entry": [None] * 4},
    ],
)
def test_an_answer_that_does_not_say_what_was_written_is_an_error(response: dict[str, Any]) -> None:
    with pytest.raises(FhirRejected):
        parse(build(), response)
