"""Each question is looked for in its own language; with the library that comes with careloom, and with shelves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.errors import ErrorClass, StepFailed
from pipelines.runner.looking_up import with_passages
from plugins.knowledge.documents import read_folder
from plugins.knowledge.index import LIBRARY, DocumentIndex, build
from plugins.manager import load
from plugins.scenario import Case, KnowledgeQuery, Locale, Passage, Question, Scenario

SCENARIOS = load().scenarios
ENGLISH = {"communication": [{"language": {"coding": [{"code": "en"}]}}]}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> DocumentIndex:
    file = tmp_path_factory.mktemp("knowledge") / "index.sqlite"
    build(file, read_folder(LIBRARY))
    return DocumentIndex(file)


class Shelf:
    """Passages in some languages; `asked` is what was looked for."""

    id = "shelf"

    def __init__(self, *locales: Locale) -> None:
        self.locales = locales
        self.asked: list[tuple[str, Locale]] = []

    def search(self, question: str, *, locale: Locale, cap: int) -> list[Passage]:
        self.asked.append((question, locale))
        return [Passage(f"{locale}#1", "x", "t", "urn:x", "2026", "own", locale)] if locale in self.locales else []


def case(locale: Locale, trigger: Mapping[str, Any], patient: Mapping[str, Any] | None = None) -> Case:
    who = {"resourceType": "Patient", "id": "p1", **(patient or {})}
    return Case(trigger, who, {}, locale, datetime(2026, 11, 22, tzinfo=UTC))


def message(words: str) -> dict[str, Any]:
    return {
        "resourceType": "Communication", "id": "c1", "status": "completed", "subject": {"reference": "Patient/p1"},
        "sender": {"reference": "Patient/p1"}, "payload": [{"contentString": words}],
    }  # fmt: skip


def looked_up(scenario: str, given: Case, *sources: Any) -> Mapping[str, Sequence[Passage]]:
    return asyncio.run(with_passages(SCENARIOS[scenario], given, sources)).passages


@pytest.mark.parametrize(
    ("house", "words", "first"),
    [
        ("zh", "When can I get copies of my medical record?", "en/discharge#2"),
        ("zh", "什么时候可以复印病历?", "zh/discharge#2"),
        ("en", "什么时候可以复印病历?", "zh/discharge#2"),
        ("en", "When can I get copies of my medical record?", "en/discharge#2"),
    ],
)
def test_a_patients_question_finds_passages_in_its_language_whatever_that_of_the_house(
    library: DocumentIndex, house: Locale, words: str, first: str
) -> None:
    found = looked_up("pre_visit.patient_qa", case(house, message(words)), library)["answers"]
    assert found[0].id == first


def test_a_patient_is_told_about_the_visit_from_documents_in_his_language(library: DocumentIndex) -> None:
    booked = {"resourceType": "Appointment", "id": "a1", "status": "booked", "description": "急性支气管炎"}
    found = looked_up("pre_visit.health_education", case("zh", booked, ENGLISH), library)
    assert [passage.locale for passage in found["visit"]] == ["en"]
    assert {passage.locale for passage in found["topic"]} == {"zh"}


def test_what_no_document_in_the_patients_language_tells_is_looked_for_in_that_of_the_house() -> None:
    booked = {"resourceType": "Appointment", "id": "a1", "status": "booked"}
    shelf = Shelf("zh")
    found = looked_up("pre_visit.health_education", case("zh", booked, ENGLISH), shelf)
    assert [passage.id for passage in found["visit"]] == ["zh#1"]
    assert [locale for _, locale in shelf.asked] == ["en", "zh"]


class Asking(type(SCENARIOS["pre_visit.patient_qa"])):  # type: ignore[misc]
    """A scenario that asks what a test says."""

    knowledge = (KnowledgeQuery("one"),)
    asked: Any = ()

    def questions(self, case: Case) -> Any:
        return {"one": self.asked}


def asking(asked: Any) -> Scenario[Any]:
    made = Asking()
    made.asked = asked
    return made


@pytest.mark.parametrize(
    ("asked", "searched"),
    [
        ("pain ", [("pain", "zh")]),
        (" ", []),
        ([Question(" ", "en")], []),
        ([Question("pain", "en"), Question("疼痛", "zh")], [("pain", "en")]),
        ([Question("pain", "zh"), Question("pain", "zh")], [("pain", "zh")]),
    ],
)
def test_words_alone_are_in_the_language_of_the_house_and_the_first_question_that_finds_something_counts(
    asked: Any, searched: list[tuple[str, Locale]]
) -> None:
    shelf = Shelf("en")
    asyncio.run(with_passages(asking(asked), case("zh", message("x")), [shelf]))
    assert shelf.asked == searched


def test_questions_that_are_none_fail_as_the_scenarios_own_fault() -> None:
    with pytest.raises(StepFailed) as failed:
        asyncio.run(with_passages(asking(7), case("zh", message("x")), [Shelf("zh")]))
    assert failed.value.error_class is ErrorClass.SCENARIO_ERROR


def test_a_case_of_a_scenario_without_knowledge_stays_as_it_is() -> None:
    given = case("zh", message("x"))
    scenario = asking("x")
    scenario.knowledge = ()  # type: ignore[misc]
    assert asyncio.run(with_passages(scenario, given, [Shelf("zh")])) is given
