"""The built-in source of passages: documents in a full-text index (SQLite FTS5), opened read-only where it is searched.

The index is built into a new file that then takes the old one's place, so that a search sees the old one or the new
one, whole. Without an index, that of the documents that come with careloom is built when the plugin is loaded.
"""

from __future__ import annotations

import math
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from plugins.hookspecs import Settings, hookimpl
from plugins.knowledge import KnowledgeSource
from plugins.knowledge.documents import Document, KnowledgeError, read_folder
from plugins.knowledge.tokens import is_chinese, tokens
from plugins.scenario import Locale, Passage

#: The documents that come with careloom: samples of a hospital's own, and public-domain health information.
LIBRARY = Path(__file__).parent / "library"
#: Below the state folder.
INDEX_FILE = Path("knowledge") / "index.sqlite"
#: Version of what is in the file; another one is built anew.
FORMAT = 2

#: Least share of a question's weight (by rarity of its grams) that a passage must hold to be returned. Of the values
#: that do equally well on the tuned questions, the lowest: docs/decisions/010-knowledge-base.md.
FLOORS: Mapping[Locale, float] = {"zh": 0.2, "en": 0.3}
#: A pair of characters that stands nowhere is mostly the seam of two words, and weighs so much less than a word would.
_SEAM = 0.2
#: Most grams of a question that are looked at: a longer one is a letter, and its beginning says what it is about.
_MOST_WORDS = 96
#: A word of the title says more than one of the text.
_TITLE_WEIGHT, _TEXT_WEIGHT = 2.0, 1.0
_CANDIDATES = 24

_SCHEMA = f"""
PRAGMA user_version = {FORMAT};
CREATE TABLE passage (n INTEGER PRIMARY KEY, id TEXT UNIQUE, text TEXT, title TEXT, origin TEXT, date TEXT,
                      licence TEXT, locale TEXT, also TEXT);
CREATE TABLE word (locale TEXT, word TEXT, passages INTEGER, PRIMARY KEY (locale, word)) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5(title, text, tokenize = 'unicode61 remove_diacritics 0');
"""


def build(file: Path, documents: Iterable[Document]) -> int:
    """Build the index of `documents` as `file`, in place of the one that is there; returns the number of passages.

    Raises:
        KnowledgeError: two documents have one id, or the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        os.close(handle)
    except OSError as error:
        raise KnowledgeError(
            f"{file}: cannot be written ({type(error).__name__}); correct state_dir or its rights"
        ) from None
    fresh = Path(name)
    try:
        with closing(sqlite3.connect(fresh)) as database, database:
            database.executescript(_SCHEMA)
            count = _fill(database, documents)
        fresh.chmod(0o644)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    return count


class DocumentIndex:
    """Searches one index file; safe in threads, since each search opens the file for itself.

    Args:
        file: what `build` made.
        floor: see `FLOORS`; None takes the language's.
    """

    id = "documents"

    def __init__(self, file: Path, floor: float | None = None) -> None:
        self._file = file
        self._floor = floor

    def search(self, question: str, *, locale: Locale, cap: int) -> Sequence[Passage]:
        """The passages in `locale` that hold enough of the question, best first (BM25); empty where none does.

        Raises:
            KnowledgeError: the index is missing or damaged; the message holds nothing of the question.
        """
        asked = list(dict.fromkeys(tokens(question)))[:_MOST_WORDS]
        if not asked or cap < 1:
            return ()
        with self._open() as database:
            weights = _weights(database, asked, locale)
            floor = FLOORS[locale] if self._floor is None else self._floor
            found = [row for row in _candidates(database, asked, locale) if _held(row, weights) >= floor]
        return [
            Passage(id_, text, title, origin, date, licence, locale)
            for id_, text, title, origin, date, licence, _ in found[:cap]
        ]

    def passages(self) -> Sequence[Passage]:
        """Everything in the index, by id."""
        with self._open() as database:
            rows = database.execute("SELECT id, text, title, origin, date, licence, locale FROM passage ORDER BY n")
            return [Passage(*row) for row in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True)) as database:
                if database.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
                    raise KnowledgeError(f"{self._file}: made by another version; run `careloom knowledge index`")
                yield database
        except sqlite3.Error as error:
            raise KnowledgeError(
                f"{self._file}: missing or damaged ({type(error).__name__}); run `careloom knowledge index`"
            ) from None


@hookimpl
def careloom_knowledge(settings: Settings) -> Iterable[KnowledgeSource]:
    """The index below the state folder; of careloom's own documents where nobody has built one yet."""
    file = settings.state_dir / INDEX_FILE
    if not file.exists():
        build(file, read_folder(LIBRARY))
    return [DocumentIndex(file)]


def _fill(database: sqlite3.Connection, documents: Iterable[Document]) -> int:
    seen: Counter[tuple[str, str]] = Counter()
    count = 0
    for document in documents:
        for passage, also in document.with_other_words():
            count += 1
            title, text = tokens(f"{passage.title} {also}"), tokens(passage.text)
            row = (
                passage.id,
                passage.text,
                passage.title,
                passage.origin,
                passage.date,
                passage.licence,
                passage.locale,
                also,
            )
            try:
                database.execute("INSERT INTO passage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (count, *row))
            except sqlite3.IntegrityError:
                raise KnowledgeError(f"{document.id}: two documents have this id; rename one of the files") from None
            database.execute(
                "INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", (count, " ".join(title), " ".join(text))
            )
            seen.update((passage.locale, word) for word in {*title, *text})
    database.executemany("INSERT INTO word VALUES (?, ?, ?)", ((locale, word, n) for (locale, word), n in seen.items()))
    return count


def _weights(database: sqlite3.Connection, asked: Sequence[str], locale: Locale) -> dict[str, float]:
    """Each gram's inverse passage frequency; what stands nowhere weighs most, for no passage can answer it."""
    total = database.execute("SELECT count(*) FROM passage WHERE locale = ?", (locale,)).fetchone()[0]
    weights = {}
    for word in asked:
        row = database.execute("SELECT passages FROM word WHERE locale = ? AND word = ?", (locale, word)).fetchone()
        rarity = math.log(1 + (total + 1) / ((row[0] if row else 0) + 0.5))
        weights[word] = rarity if row or not is_chinese(word) else rarity * _SEAM
    return weights


def _candidates(database: sqlite3.Connection, asked: Sequence[str], locale: Locale) -> list[tuple[str, ...]]:
    """The best by BM25. Every word is quoted, so that nothing of a question is query syntax."""
    query = " OR ".join(f'"{word}"' for word in asked)
    return database.execute(
        "SELECT p.id, p.text, p.title, p.origin, p.date, p.licence, p.also "
        "FROM words JOIN passage p ON p.n = words.rowid "
        "WHERE words MATCH ? AND p.locale = ? ORDER BY bm25(words, ?, ?), p.n LIMIT ?",
        (query, locale, _TITLE_WEIGHT, _TEXT_WEIGHT, _CANDIDATES),
    ).fetchall()


def _held(row: Sequence[str], weights: dict[str, float]) -> float:
    """Share of the question's weight that a passage, its title and its other words hold."""
    there = {*tokens(row[1]), *tokens(row[2]), *tokens(row[6])}
    return sum(weight for word, weight in weights.items() if word in there) / sum(weights.values())
