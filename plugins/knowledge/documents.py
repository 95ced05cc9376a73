"""Documents of a folder as passages: markdown and PDF text, each with title, origin, date, licence and language.

A markdown file begins with those five between two lines of `---`, one `name: value` a line; a PDF has them in a file
beside it, `<name>.pdf.meta`. Nothing is guessed: a document without its origin or licence may not be quoted.

Under a heading, `<!-- also: sick note, time off -->` names other words by which people ask for what stands there: they
are looked for with the text, and never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugins.errors import PluginError
from plugins.scenario import Locale, Passage

#: Longest passage in characters: what fits a prompt beside others, and a reader takes in at a glance.
MAX_CHARS = 500
FIELDS = ("title", "origin", "date", "licence", "locale")

_LOCALES: dict[str, Locale] = {"zh": "zh", "en": "en"}
_DATE = re.compile(r"\d{4}(?:-\d{2}(?:-\d{2})?)?")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
_ALSO = re.compile(r"\s*<!--\s*also:\s*(.*?)\s*-->\s*")
_SENTENCE_END = re.compile(r"(?<=[。!?;！？；])|(?<=[.!?;])\s+|\n")


class KnowledgeError(PluginError):
    """A document or an index cannot be used; names the file and the remedy, and nothing of a question."""


@dataclass(frozen=True, slots=True)
class Section:
    """What stands under one heading.

    Attributes:
        heading: "" above the first one.
        text: as it may be quoted.
        also: other words by which people ask for it; never shown.
    """

    heading: str
    text: str
    also: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One file.

    Attributes:
        id: path below its folder, without the suffix, with "/".
        sections: in order.
    """

    id: str
    title: str
    origin: str
    date: str
    licence: str
    locale: Locale
    sections: tuple[Section, ...]

    def passages(self) -> Iterator[Passage]:
        """The document cut at its headings, and longer sections at ends of sentences; ids count from 1."""
        return (passage for passage, _ in self.with_other_words())

    def with_other_words(self) -> Iterator[tuple[Passage, str]]:
        """The passages, each with the words by which people also ask for it."""
        n = 0
        for section in self.sections:
            for piece in _pieces(section.text):
                n += 1
                title = f"{self.title} · {section.heading}" if section.heading else self.title
                passage = Passage(f"{self.id}#{n}", piece, title, self.origin, self.date, self.licence, self.locale)
                yield passage, section.also


def read_folder(folder: Path) -> list[Document]:
    """The documents of a folder and of the folders in it, by path.

    Raises:
        KnowledgeError: no such folder, nothing in it to read, or a document that is not as it must be.
    """
    if not folder.is_dir():
        raise KnowledgeError(f"{folder}: no such folder; correct [knowledge] folders")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".md", ".pdf") and p.name != "README.md")
    if not files:
        raise KnowledgeError(f"{folder}: holds no .md and no .pdf; put documents there, or leave the folder out")
    return [_read(path, path.relative_to(folder).with_suffix("").as_posix()) for path in files]


def _read(path: Path, identity: str) -> Document:
    if path.suffix.lower() == ".pdf":
        beside = path.with_name(f"{path.name}.meta")
        if not beside.is_file():
            raise KnowledgeError(f"{path}: a PDF needs {beside.name} beside it, with {', '.join(FIELDS)}, one a line")
        return _document(path, identity, _text(beside), _pdf_sections(path))
    front, body = _split(path, _text(path))
    return _document(path, identity, front, _sections(body))


def _split(path: Path, text: str) -> tuple[str, str]:
    match = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*\n(.*)", text, re.DOTALL)
    if not match:
        raise KnowledgeError(
            f"{path}: does not begin with front matter; write {', '.join(FIELDS)} between two lines of ---"
        )
    return match[1], match[2]


def _document(path: Path, identity: str, front: str, sections: tuple[Section, ...]) -> Document:
    given: dict[str, str] = {}
    for line in filter(str.strip, front.splitlines()):
        name, colon, value = line.partition(":")
        if not colon or name.strip() not in FIELDS:
            raise KnowledgeError(
                f"{path}: front matter: {name.strip()[:40]!r} is not one of {', '.join(FIELDS)}; take it out"
            )
        given[name.strip()] = value.strip().strip("\"'")
    missing = [name for name in FIELDS if not given.get(name)]
    if missing:
        raise KnowledgeError(
            f"{path}: front matter lacks {', '.join(missing)}; add it, a passage is quoted with its source"
        )
    if given["locale"] not in _LOCALES:
        raise KnowledgeError(f"{path}: locale is {given['locale'][:20]!r}; write zh or en")
    if not _DATE.fullmatch(given["date"]):
        raise KnowledgeError(f"{path}: date is {given['date'][:20]!r}; write it as 2026-03-01, 2026-03 or 2026")
    if not any(section.text.strip() for section in sections):
        raise KnowledgeError(f"{path}: holds no text; a scanned PDF must be put through text recognition first")
    rest: dict[str, Any] = {name: given[name] for name in FIELDS if name != "locale"}
    return Document(id=identity, locale=_LOCALES[given["locale"]], sections=sections, **rest)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KnowledgeError(f"{path}: cannot be read as UTF-8 ({type(error).__name__}); save it as UTF-8") from None


def _sections(body: str) -> tuple[Section, ...]:
    found: list[tuple[str, list[str], list[str]]] = [("", [], [])]
    for line in body.splitlines():
        if heading := _HEADING.match(line):
            found.append((heading[1], [], []))
        elif also := _ALSO.fullmatch(line):
            found[-1][2].append(also[1])
        else:
            found[-1][1].append(line)
    return tuple(Section(heading, "\n".join(lines), " ".join(also)) for heading, lines, also in found)


def _pdf_sections(path: Path) -> tuple[Section, ...]:
    """A section a page; pypdf is asked for only where there is a PDF."""
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError:
        raise KnowledgeError(f"{path}: reading a PDF needs pypdf; pip install 'careloom[pdf]'") from None
    try:
        pages = [page.extract_text() for page in PdfReader(path).pages]
    except (PyPdfError, OSError, ValueError) as error:
        raise KnowledgeError(f"{path}: is no PDF that can be read ({type(error).__name__}); export it again") from None
    return tuple(Section(f"p. {n}", text) for n, text in enumerate(pages, start=1))


def _pieces(text: str) -> Iterator[str]:
    """A section in pieces of at most MAX_CHARS, whole paragraphs together, a long one cut at its sentences."""
    held = ""
    for part in _parts(re.split(r"\n\s*\n", text)):
        if held and len(held) + 1 + len(part) > MAX_CHARS:
            yield held
            held = ""
        held = f"{held} {part}".strip()
    if held:
        yield held


def _parts(paragraphs: Iterable[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        whole = " ".join(line.strip().removeprefix("- ") for line in paragraph.splitlines() if line.strip())
        if len(whole) <= MAX_CHARS:
            if whole:
                yield whole
            continue
        for sentence in _SENTENCE_END.split(whole):
            piece = sentence.strip()
            yield from (piece[i : i + MAX_CHARS] for i in range(0, len(piece), MAX_CHARS))
