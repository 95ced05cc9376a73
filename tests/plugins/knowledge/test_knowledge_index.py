"""The index finds what answers a question, in both languages, says so when nothing does, and is safe to rebuild."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.hookspecs import Settings
from plugins.knowledge import index
from plugins.knowledge.documents import MAX_CHARS, KnowledgeError, read_folder
from plugins.knowledge.index import LIBRARY, DocumentIndex, build
from plugins.knowledge.tokens import tokens
from tests.canary import CANARY

#: The index is chosen on these.
QUERIES = json.loads((Path(__file__).parent / "queries.json").read_text(encoding="utf-8"))
#: And never on these: written about the library before the index was looked at. Their figure is the one to expect.
HELD_OUT = json.loads((Path(__file__).parent / "held_out.json").read_text(encoding="utf-8"))
DECISION = Path(__file__).parents[3] / "docs" / "decisions" / "010-knowledge-base.md"
FRONT = "---\ntitle: T\norigin: urn:x\ndate: 2026-11\nlicence: own\nlocale: en\n---\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> DocumentIndex:
    file = tmp_path_factory.mktemp("knowledge") / "index.sqlite"
    build(file, read_folder(LIBRARY))
    return DocumentIndex(file)


def recall(library: DocumentIndex, locale: str) -> float:
    asked = [q for q in QUERIES if q["locale"] == locale and q["right"]]
    return sum(q["right"] in ids(library, q) for q in asked) / len(asked)


def ids(library: DocumentIndex, query: dict[str, Any]) -> Sequence[str]:
    return [p.id for p in library.search(query["question"], locale=query["locale"], cap=3)]


def test_the_queries_are_enough_to_decide_by() -> None:
    assert sum(q["right"] is not None for q in QUERIES) >= 40
    assert sum(q["right"] is None for q in QUERIES) >= 20


@pytest.mark.parametrize(("locale", "least"), [("zh", 0.94), ("en", 0.91)])
def test_the_right_passage_is_among_the_first_three(library: DocumentIndex, locale: str, least: float) -> None:
    assert recall(library, locale) >= least


def test_a_question_that_no_passage_answers_gets_none_but_for_the_two_that_the_decision_names(
    library: DocumentIndex,
) -> None:
    assert [q["question"] for q in QUERIES if q["right"] is None and ids(library, q)] == [
        "How long should I scrub my hands?",
        "When should I wash my hands",
    ]


def test_every_right_passage_is_in_the_library_and_no_question_stands_in_both_sets(library: DocumentIndex) -> None:
    assert {q["right"] for q in (*QUERIES, *HELD_OUT) if q["right"]} <= {p.id for p in library.passages()}
    assert not {q["question"] for q in QUERIES} & {q["question"] for q in HELD_OUT}
    assert min(sum(q["locale"] == locale for q in HELD_OUT) for locale in ("zh", "en")) >= 20
    assert sum(q["right"] is None for q in HELD_OUT) >= 10


def test_the_figures_of_the_held_out_questions_stand_in_the_decision(library: DocumentIndex) -> None:
    def row(locale: str) -> str:
        asked = [(q["right"], ids(library, q)) for q in HELD_OUT if q["locale"] == locale]
        answered = [(right, found) for right, found in asked if right]
        silent = [found for right, found in asked if right is None]
        first, three = (sum(right in found[:n] for right, found in answered) for n in (1, 3))
        empty = sum(not found for found in silent)
        return f"| held out, {locale} | {first}/{len(answered)} | {three}/{len(answered)} | {empty}/{len(silent)} |"

    text = DECISION.read_text(encoding="utf-8")
    missing = [row(locale) for locale in ("zh", "en") if row(locale) not in text]
    assert missing == []


def test_other_words_for_a_passage_find_it_and_are_never_shown(tmp_path: Path) -> None:
    text = f"{FRONT}## Certificates\n<!-- also: sick note -->\nAsk at window 3.\n"
    (tmp_path / "own.md").write_text(text, encoding="utf-8")
    build(tmp_path / "index.sqlite", read_folder(tmp_path))
    (found,) = DocumentIndex(tmp_path / "index.sqlite").search("a sick note", locale="en", cap=3)
    assert found.text == "Ask at window 3."
    assert "sick" not in f"{found.title}{found.text}"


def test_a_passage_carries_its_source_date_and_licence(library: DocumentIndex) -> None:
    (found,) = library.search("Can I borrow a wheelchair", locale="en", cap=1)
    assert found.id == "en/visiting#2"
    assert found.title.endswith("· Parking and wheelchairs")
    assert all((found.origin, found.date, found.licence, found.text))
    assert found.source == "urn:careloom:passage:en/visiting#2"
    assert all(len(p.text) <= MAX_CHARS for p in library.passages())


def test_only_passages_of_the_language_asked_for_are_found(library: DocumentIndex) -> None:
    assert {p.locale for p in library.search("CT 发票 住院", locale="zh", cap=9)} == {"zh"}
    assert library.search("预约挂号", locale="en", cap=3) == []


def test_the_cap_is_kept(library: DocumentIndex) -> None:
    assert len(library.search("预约", locale="zh", cap=1)) == 1
    assert library.search("预约", locale="zh", cap=0) == ()


@pytest.mark.parametrize(
    "question", ['" OR 1=1', "title: x NEAR(a b)", "a* AND NOT b", "'; DROP TABLE passage; --", "{title}: ^", "", "??"]
)
def test_query_syntax_in_a_question_is_only_text(library: DocumentIndex, question: str) -> None:
    before = len(library.passages())
    library.search(question, locale="en", cap=3)
    assert len(library.passages()) == before


@settings(max_examples=50)
@given(st.text(max_size=80))
def test_no_question_breaks_the_search(library: DocumentIndex, question: str) -> None:
    assert len(library.search(question, locale="zh", cap=2)) <= 2


def test_a_question_is_never_logged_nor_in_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(KnowledgeError) as caught:
        DocumentIndex(tmp_path / "none.sqlite").search(f"{CANARY} has a rash", locale="en", cap=1)
    assert "careloom knowledge index" in str(caught.value)
    assert CANARY[1:] not in str(caught.value) + caplog.text


def test_a_search_cannot_write_and_a_rebuild_leaves_no_pieces(tmp_path: Path) -> None:
    file = tmp_path / "index.sqlite"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(FRONT + "Parking is free.", encoding="utf-8")
    assert build(file, read_folder(tmp_path / "docs")) == 1
    searcher = DocumentIndex(file)
    with pytest.raises(KnowledgeError, match="OperationalError"), searcher._open() as database:
        database.execute("DELETE FROM passage")
    before = searcher.search("parking", locale="en", cap=1)
    (tmp_path / "docs" / "a.md").write_text(FRONT + "Parking costs 5 an hour.", encoding="utf-8")
    build(file, read_folder(tmp_path / "docs"))
    after = searcher.search("parking", locale="en", cap=1)
    assert before[0].id == after[0].id == "a#1"
    assert before[0].text != after[0].text
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["index.sqlite"]


def test_a_build_that_fails_leaves_the_old_index(tmp_path: Path) -> None:
    file = tmp_path / "index.sqlite"
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.md").write_text(FRONT + "Parking is free.", encoding="utf-8")
    build(file, read_folder(tmp_path / "one"))
    with pytest.raises(KnowledgeError, match="two documents have this id; rename"):
        build(file, [*read_folder(tmp_path / "one"), *read_folder(tmp_path / "two")])
    assert DocumentIndex(file).search("parking", locale="en", cap=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.sqlite", "one", "two"]


@pytest.mark.parametrize("damage", [b"not a database at all", b""])
def test_a_damaged_index_names_the_remedy(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "index.sqlite"
    file.write_bytes(damage)
    with pytest.raises(KnowledgeError, match="run `careloom knowledge index`"):
        DocumentIndex(file).passages()


def test_an_index_of_another_version_names_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "index.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(KnowledgeError, match="another version"):
        DocumentIndex(file).passages()


def test_the_plugin_builds_the_index_of_the_library_where_there_is_none_and_keeps_one_that_is_there(
    tmp_path: Path,
) -> None:
    (source,) = index.careloom_knowledge(Settings(state_dir=tmp_path, locale="zh"))
    assert source.id == "documents"
    assert source.search("探视时间", locale="zh", cap=1)[0].id == "zh/visiting#1"
    file = tmp_path / index.INDEX_FILE
    made = file.stat().st_ino
    index.careloom_knowledge(Settings(state_dir=tmp_path, locale="zh"))
    assert file.stat().st_ino == made


def test_grams_are_pairs_of_characters_and_threes_of_letters_without_fillers() -> None:
    assert tokens("请问怎么预约挂号?") == ["预约", "约挂", "挂号"]
    assert tokens("How do I get an MRI? ＣＴ") == ["mri", "ct"]
    assert tokens("visiting") == ["vis", "isi", "sit", "iti", "tin", "ing"]
    assert tokens("?!") == []
