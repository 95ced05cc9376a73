"""The words of a clinical note, sentence by sentence: of a Composition's sections or a DocumentReference's text."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from plugins.fhir_text import clean, listed
from plugins.scenario import Resource

#: Most sentences that are read of one note, and longest text in characters before it is split.
MAX_SENTENCES = 400
_MAX_CHARS = 200_000

_END = re.compile(r"(?<=[。;;!?!?])|(?<=[.])\s+(?=[A-Z\u4e00-\u9fff])|\s*\n\s*")
_TAG = re.compile(r"<(?:/?(?:p|div|li|ul|ol|tr|td|th|table|br|h\d|section|body|html)\b)[^>]*>", re.IGNORECASE)


def sentences(note: Resource) -> list[str]:
    """The note's sentences in order, headings too; empty where it holds no text (a PDF, a scan, a link)."""
    found = (clean(part) for text in _texts(note) for part in _END.split(text[:_MAX_CHARS]))
    return [sentence for sentence in found if sentence][:MAX_SENTENCES]


def title(note: Resource) -> str:
    """What the note calls itself: its title, its type and the titles inside it, one a line."""
    concept = note.get("type") or {}
    named = [note.get("title"), note.get("description"), concept.get("text")]
    named += [c.get("display") for c in listed(concept, "coding")]
    named += [(content.get("attachment") or {}).get("title") for content in listed(note, "content")]
    return "\n".join(clean(name) for name in named if isinstance(name, str) and name.strip())


def _texts(note: Resource) -> Iterator[str]:
    for content in listed(note, "content"):
        attachment = content.get("attachment") or {}
        kind = str(attachment.get("contentType") or "text/plain").lower()
        if kind.startswith("text/") or "xml" in kind:
            yield _plain(_decoded(attachment.get("data")), marked_up="html" in kind or "xml" in kind)
    own = list(_sections(note, 0))
    yield from own
    if not own and note.get("resourceType") == "Composition":
        yield _narrative(note)


def _sections(node: Mapping[str, Any], depth: int) -> Iterator[str]:
    if depth > 8:
        return
    for section in listed(node, "section"):
        if isinstance(section, Mapping):
            yield clean(section.get("title") or "")
            yield _narrative(section)
            yield from _sections(section, depth + 1)


def _narrative(node: Mapping[str, Any]) -> str:
    return _plain(str((node.get("text") or {}).get("div") or ""), marked_up=True)


def _decoded(data: object) -> str:
    try:
        return base64.b64decode(str(data or ""), validate=False).decode("utf-8", errors="replace")
    except (binascii.Error, ValueError):
        return ""


def _plain(text: str, *, marked_up: bool) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", _TAG.sub("\n", text))) if marked_up else text
