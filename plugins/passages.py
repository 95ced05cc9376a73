"""Passages of the knowledge base in prompts and drafts: what the model is shown, and what stands beside a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from plugins.fhir_text import Line, cited, clean
from plugins.prompting import MAX_FACT_CHARS
from plugins.scenario import Case, Fact, Locale, Passage, Statement, Text

_SENTENCE_END = re.compile(r"(?<=[。!?;！？；])|(?<=[.!?;])\s+")
_LABEL = Text("资料", "document")
_ORIGIN = Text("出处", "source")


@dataclass(frozen=True, slots=True)
class Quoted:
    """Sentences that rest on passages, ready for a draft.

    Attributes:
        lines: each sentence with a number for every passage that it cites.
        origins: "[1] title, date, origin" of each passage cited, in order of number.
        sources: passages and resources, for `Draft.sources`.
    """

    lines: tuple[Line, ...]
    origins: tuple[Line, ...]
    sources: tuple[str, ...]


def by_source(case: Case) -> Mapping[str, Passage]:
    """Every passage of the case once, by what names it as a source."""
    return {passage.source: passage for found in case.passages.values() for passage in found}


def passage_facts(case: Case) -> list[Fact]:
    """The passages as facts; a long one takes several, each with the passage as its source."""
    return [Fact(source, piece) for source, passage in by_source(case).items() for piece in _pieces(passage, case)]


def quote(case: Case, statements: Iterable[Statement], locale: Locale) -> Quoted:
    """Those of the statements that rest on a passage; what rests on the record alone answers nobody and is left out."""
    known = by_source(case)
    numbers: dict[str, int] = {}
    lines = []
    for statement in statements:
        resting = [source for source in statement.sources if source in known]
        marks = "".join(f"[{numbers.setdefault(source, len(numbers) + 1)}]" for source in resting)
        if resting:
            lines.append(Line(f"{clean(statement.text, 600)} {marks}", cited(statement.sources)))
    origins = tuple(Line(f"[{n}] {origin(known[source], locale)}") for source, n in numbers.items())
    records = cited(source for line in lines for source in line.sources)
    return Quoted(tuple(lines), origins, (*numbers, *records))


def origin(passage: Passage, locale: Locale) -> str:
    """Title, date and origin of a passage in one line."""
    return clean(f"{passage.title} ({passage.date}). {_ORIGIN.in_(locale)}: {passage.origin}", 400)


def _pieces(passage: Passage, case: Case) -> Iterator[str]:
    """A passage in pieces that a prompt shows whole, cut at ends of sentences, each under its title."""
    head = f"{_LABEL.in_(case.locale)} {clean(passage.title, 80)} ({passage.date}): "
    room = MAX_FACT_CHARS - len(head)
    piece = ""
    for sentence in filter(None, _SENTENCE_END.split(clean(passage.text, 2000))):
        if piece and len(piece) + len(sentence) + 1 > room:
            yield head + piece
            piece = ""
        piece = f"{piece} {sentence}".strip()
    yield head + piece
