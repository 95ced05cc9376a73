"""Documents are read whole with their source, cut at headings, and refused with file and remedy if anything lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.knowledge.documents import FIELDS, MAX_CHARS, KnowledgeError, read_folder
from plugins.knowledge.index import LIBRARY

GIVEN = {"title": "T", "origin": "urn:x", "date": "2026-11-22", "licence": "own", "locale": "en"}


def write(folder: Path, body: str = "Text.", name: str = "a.md", **changed: str | None) -> None:
    front = "\n".join(f"{k}: {v}" for k, v in (GIVEN | changed).items() if v is not None)
    (folder / name).write_text(f"---\n{front}\n---\n{body}\n", encoding="utf-8")


def test_sections_become_passages_with_the_heading_in_their_title(tmp_path: Path) -> None:
    write(tmp_path, "Before.\n\n# One\nFirst.\n\n## Two\n- a\n- b\n\n### Empty\n")
    (document,) = read_folder(tmp_path)
    assert [(p.id, p.title, p.text) for p in document.passages()] == [
        ("a#1", "T", "Before."),
        ("a#2", "T · One", "First."),
        ("a#3", "T · Two", "a b"),
    ]


@pytest.mark.parametrize("sentence", ["一句话讲完了一件事情。", "One sentence says one thing. ", "nospace" * 40])
def test_long_sections_are_cut_at_sentences_and_lose_nothing(tmp_path: Path, sentence: str) -> None:
    write(tmp_path, f"# H\n{sentence * 80}")
    pieces = [p.text for p in read_folder(tmp_path)[0].passages()]
    assert len(pieces) > 1
    assert all(len(piece) <= MAX_CHARS for piece in pieces)
    assert "".join(pieces).replace(" ", "") == (sentence * 80).replace(" ", "")


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_refused_with_file_and_remedy(tmp_path: Path, name: str) -> None:
    write(tmp_path, **{name: None})
    with pytest.raises(KnowledgeError, match=rf"a\.md: front matter lacks {name}; add it"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"locale": "fr"}, "write zh or en"),
        ({"date": "last year"}, "write it as 2026-03-01"),
        ({"colour": "red"}, "take it out"),
        ({"title": ""}, "lacks title"),
    ],
)
def test_a_wrong_field_is_refused_with_the_remedy(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    write(tmp_path, **changed)
    with pytest.raises(KnowledgeError, match=said):
        read_folder(tmp_path)


def test_what_cannot_be_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="no such folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(KnowledgeError, match=r"holds no \.md"):
        read_folder(tmp_path)
    (tmp_path / "a.md").write_text("# No front matter", encoding="utf-8")
    with pytest.raises(KnowledgeError, match="does not begin with front matter"):
        read_folder(tmp_path)
    (tmp_path / "a.md").write_bytes(b"---\n\xff\xfe")
    with pytest.raises(KnowledgeError, match="save it as UTF-8"):
        read_folder(tmp_path)
    write(tmp_path, "# Only a heading")
    with pytest.raises(KnowledgeError, match="holds no text"):
        read_folder(tmp_path)


def test_a_pdf_is_read_by_its_pages_with_what_stands_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="reading PDFs needs the extra pdf")
    (tmp_path / "leaflet.pdf").write_bytes(_pdf("Visiting is from 15:00 to 19:00."))
    with pytest.raises(KnowledgeError, match=r"a PDF needs leaflet\.pdf\.meta beside it"):
        read_folder(tmp_path)
    beside = tmp_path / "leaflet.pdf.meta"
    beside.write_text("\n".join(f"{k}: {v}" for k, v in GIVEN.items()), encoding="utf-8")
    (passage,) = read_folder(tmp_path)[0].passages()
    assert (passage.id, passage.title, passage.text) == ("leaflet#1", "T · p. 1", "Visiting is from 15:00 to 19:00.")


def test_what_is_no_pdf_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="reading PDFs needs the extra pdf")
    (tmp_path / "x.pdf").write_bytes(b"%PDF-1.4 rubbish")
    (tmp_path / "x.pdf.meta").write_text("\n".join(f"{k}: {v}" for k, v in GIVEN.items()), encoding="utf-8")
    with pytest.raises(KnowledgeError, match="no PDF that can be read"):
        read_folder(tmp_path)


def test_the_library_has_every_document_in_both_languages_with_source_and_licence() -> None:
    documents = read_folder(LIBRARY)
    assert {d.id for d in documents} == {f"{d.locale}/{d.id.partition('/')[2]}" for d in documents}
    names = {locale: {d.id.partition("/")[2] for d in documents if d.locale == locale} for locale in ("zh", "en")}
    assert names["zh"] == names["en"]
    for document in documents:
        sample = document.origin.startswith("urn:careloom:sample:")
        assert sample == ("样例" in document.title or "sample" in document.title)
        assert sample or document.licence.startswith("Public domain")


def _pdf(text: str) -> bytes:
    """The least PDF of one page with one line."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    body, places = b"%PDF-1.4\n", []
    for n, each in enumerate(objects, start=1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (n, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return body + b"xref\n0 5\n0000000000 65535 f \n%strailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(body),
    )
