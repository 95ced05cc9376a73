"""Content types, charsets, encodings and sizes are refused by name, and a gzip bomb never unfolds."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest

from fhir_adapters.errors import MalformedJson, NotFhir, Refused, TooLarge, UnsupportedFormat
from fhir_adapters.wire import decompress, format_of


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/fhir+json", "json"),
        ("application/fhir+json; charset=utf-8", "json"),
        ("application/fhir+json;charset=UTF-8; fhirVersion=4.0", "json"),
        ("Application/JSON", "json"),
        ("application/fhir+xml; charset=UTF-8", "xml"),
        ("text/xml", "xml"),
    ],
)
def test_fhir_content_types_are_told_apart(content_type: str, expected: str) -> None:
    assert format_of(content_type, "R4") == expected


@pytest.mark.parametrize(
    ("content_type", "error"),
    [
        (None, UnsupportedFormat),
        ("", UnsupportedFormat),
        ("text/plain", UnsupportedFormat),
        ("application/x-www-form-urlencoded; charset=UTF-8", UnsupportedFormat),
        ("application/fhir+json; charset=gb18030", UnsupportedFormat),
        ("application/fhir+json; fhirVersion=3.0", UnsupportedFormat),
        ("application/fhir+json; fhirVersion=5.0", NotFhir),
        (";;;", UnsupportedFormat),
    ],
)
def test_any_other_content_type_is_refused(content_type: str | None, error: type[Refused]) -> None:
    with pytest.raises(error):
        format_of(content_type, "R4")


def test_a_refused_fhir_version_is_named_beside_the_one_expected() -> None:
    with pytest.raises(NotFhir, match=r"R5.*R4B"):
        format_of("application/fhir+json; fhirVersion=5.0", "R4B")


def test_gzip_is_undone_and_identity_passes() -> None:
    assert decompress(gzip.compress(b"{}", mtime=0), "gzip", limit=100) == b"{}"
    assert decompress(b"{}", None, limit=100) == b"{}"
    assert decompress(b"{}", "Identity", limit=100) == b"{}"


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert len(decompress(gzip.compress(b"x" * 1000, mtime=0), "gzip", limit=1000)) == 1000


def test_a_gzip_bomb_is_refused_within_little_memory() -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, mtime=0)
    tracemalloc.start()
    with pytest.raises(TooLarge):
        decompress(bomb, "gzip", limit=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("body", "encoding", "error"),
    [
        (b"x" * 101, None, TooLarge),
        (b"{}", "br", UnsupportedFormat),
        (b"{}", "gzip, gzip", UnsupportedFormat),
        (b"not gzip", "gzip", MalformedJson),
        (gzip.compress(b"{}", mtime=0)[:-3], "gzip", MalformedJson),
        (gzip.compress(b"{}", mtime=0) + b"more", "gzip", MalformedJson),
    ],
)
def test_other_encodings_and_broken_gzip_are_refused(body: bytes, encoding: str | None, error: type[Refused]) -> None:
    with pytest.raises(error):
        decompress(body, encoding, limit=100)
