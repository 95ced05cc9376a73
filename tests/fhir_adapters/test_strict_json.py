"""Strict JSON takes what every reader reads alike, refuses the rest without echo, and slices bytes unchanged."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.errors import MalformedJson, NotFhir, Refused
from fhir_adapters.strict_json import bundle_resources, parse

CANARY = "Zq7CanaryPatient"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a": "' + CANARY.encode(), id="truncated"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":Infinity}', id="Infinity"),
        pytest.param(b'{"a":-Infinity}', id="-Infinity"),
        pytest.param(b'{"a":1e999}', id="beyond a double"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="5,000-digit integer"),
        pytest.param(b'{"a":0.' + b"9" * 5000 + b"}", id="5,000-digit fraction"),
        pytest.param(b'{"a":' + b"9" * 101 + b"}", id="101-digit integer"),
        pytest.param(b'{"' + CANARY.encode() + b'":1,"' + CANARY.encode() + b'":2}', id="duplicate member"),
        pytest.param(b'{"x":[{"a":1,"\\u0061":2}]}', id="duplicate member by escape"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="100,000 deep, objects"),
        pytest.param(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="100,000 deep, arrays"),
        pytest.param(b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", id="one level too deep"),
        pytest.param(b'{"a":"\\ud800"}', id="lone surrogate, escaped"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="lone surrogate, encoded"),
        pytest.param(b'{"a":"\\u0000"}', id="U+0000"),
        pytest.param(b'{"a\\u0000":1}', id="U+0000 in a name"),
        pytest.param(b'{"a":"\xff"}', id="invalid UTF-8"),
        pytest.param(b'{"a":1}{"b":2}', id="two documents"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":01}', id="leading zero"),
        pytest.param(b'{"a":1,}', id="trailing comma"),
    ],
)
def test_what_two_readers_would_read_differently_is_refused_without_echo(body: bytes) -> None:
    with pytest.raises(MalformedJson) as refusal:
        parse(body, max_depth=64)
    assert refusal.value.status == 400
    assert CANARY not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize("body", [b"[1]", b'"a"', b"1", b"null", b"true", b"[]"])
def test_json_that_is_no_object_is_no_resource(body: bytes) -> None:
    with pytest.raises(NotFhir):
        parse(body, max_depth=64)


def test_an_escaped_backslash_before_u0000_is_not_the_nul_character() -> None:
    assert parse(rb'{"a":"\\u0000"}', max_depth=64) == {"a": "\\u0000"}


def test_the_deepest_nesting_allowed_is_taken() -> None:
    assert "a" in parse(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}", max_depth=64)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6), JSON_VALUES, max_size=5
)


@given(value=OBJECTS, ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_whatever_is_plain_json_is_read_as_any_reader_reads_it(
    value: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    if _holds_nul(value):
        return
    assert parse(body, max_depth=64) == orjson.loads(body)


@given(st.binary(max_size=200))
def test_no_bytes_cause_anything_but_a_refusal(body: bytes) -> None:
    try:
        parse(body, max_depth=16)
    except Refused as refusal:
        assert refusal.status in (400, 422)


@given(
    resources=st.lists(OBJECTS | st.none(), max_size=5),
    space=st.sampled_from(["", " ", "\n\t"]),
    ascii_only=st.booleans(),
)
def test_the_bytes_of_each_entry_come_out_as_they_went_in(
    resources: list[dict[str, Any] | None], space: str, ascii_only: bool
) -> None:
    texts = [None if r is None else json.dumps(r, indent=1, ensure_ascii=ascii_only) for r in resources]
    listed = [
        f'{{"fullUrl":"x"{space}}}' if t is None else f'{{{space}"resource"{space}:{space}{t}{space}}}' for t in texts
    ]
    body = f'{{"entry"{space}:[{",".join(listed)}],"type":"collection"}}'.encode()
    assert bundle_resources(body) == tuple(None if t is None else t.encode() for t in texts)


def test_a_decimal_keeps_its_digits_in_a_slice() -> None:
    resource = b'{ "valueQuantity" : { "value" : 7.20 }, "x": 1E+2, "t": "\\u5f20" }'
    assert bundle_resources(b'{"entry":[{"resource":' + resource + b"}]}") == (resource,)


@pytest.mark.parametrize("entry", [b"1", b'{"resource":1}', b'["a"]', b"null"])
def test_an_entry_that_is_no_list_of_objects_is_refused(entry: bytes) -> None:
    with pytest.raises(NotFhir):
        bundle_resources(b'{"entry":' + entry + b"}")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\x00" in k or _holds_nul(v) for k, v in value.items())
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\x00" in value
