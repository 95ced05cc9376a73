"""Strict JSON: takes only what every reader would read alike, and says what is wrong without echoing the body.

Beyond RFC 8259 the rules of I-JSON (RFC 7493) and of FHIR hold: UTF-8 without a byte order mark (RFC 8259 section 8.1
forbids senders to add one, and our own readers break on it), no NaN or Infinity, no number beyond a double, no
duplicate member names, no lone surrogates, no U+0000 (FHIR strings do not allow it, PostgreSQL cannot hold it).
orjson refuses most of it; duplicate names and long numbers, which it lets through, are found by counting.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson

from fhir_adapters.errors import MalformedJson, NotFhir

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_NUMBER_CHARS = 100
"""Digits that a number may have; FHIR asks for 18, and no measurement needs more than this."""

_NUL_ESCAPE = b"\\u0000"
_LONG_NUMBER = re.compile(rb"[-+.0-9eE]{%d}" % (MAX_NUMBER_CHARS + 1)).search


def parse(body: bytes, *, max_depth: int) -> dict[str, Any]:
    """The JSON object in `body`.

    Args:
        body: UTF-8.
        max_depth: how deep objects and arrays may nest; the outermost object is 1.

    Raises:
        MalformedJson: not JSON, or JSON that two readers would read differently.
        NotFhir: JSON, but not an object.
    """
    parsed = _parse_fast(body)
    if not isinstance(parsed, dict):
        raise NotFhir("the body is JSON but not an object; a FHIR resource is an object with a resourceType")
    members = _members(parsed, max_depth)
    _refuse_what_readers_read_differently(body, members)
    if _NUL_ESCAPE in body and _has_nul(parsed):
        raise MalformedJson("the body holds the character U+0000, which FHIR does not allow; remove it")
    return parsed


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw()


class _Bundle(msgspec.Struct):
    entry: list[_Entry] = []


def bundle_resources(body: bytes) -> tuple[bytes | None, ...]:
    """The bytes of each entry's resource in a Bundle that `parse` has taken, exactly as they stand; None where absent.

    Nothing is re-serialised: 7.20 stays 7.20, an escape stays an escape, white space stays.

    Raises:
        NotFhir: `entry` is not a list of objects.
    """
    try:
        bundle = msgspec.json.decode(body, type=_Bundle)
    except msgspec.DecodeError:
        raise NotFhir("Bundle.entry: must be a list of objects") from None
    return tuple(bytes(entry.resource) or None for entry in bundle.entry)


def _parse_fast(body: bytes) -> Any:
    if body.startswith(BYTE_ORDER_MARK):
        raise MalformedJson(
            "the body starts with a byte order mark, which RFC 8259 section 8.1 forbids; send it without"
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
    raise MalformedJson(f"the body is not JSON (UTF-8, RFC 8259); it cannot be read beyond {where}")


def _members(parsed: dict[str, Any], max_depth: int) -> int:
    """How many members all objects have together.

    Raises:
        MalformedJson: objects and arrays nest deeper than `max_depth`.
    """
    members = 0
    level: list[Any] = [parsed]
    for _ in range(max_depth):
        below: list[Any] = []
        for node in level:
            values = node
            if type(node) is dict:
                members += len(node)
                values = node.values()
            below += [value for value in values if type(value) is dict or type(value) is list]
        if not below:
            return members
        level = below
    raise MalformedJson(f"the body nests deeper than {max_depth} levels")


def _refuse_what_readers_read_differently(body: bytes, members: int) -> None:
    """Look at what stands between the strings of a body that is JSON.

    Each member of an object has one colon there. What was read has fewer `members` than that only where an object had a
    name twice, and its reader kept one of them.
    """
    # what is left of a backslash's escapes holds no quotation mark: every second piece is then outside of a string
    between = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    if between.count(b":") != members:
        raise MalformedJson("an object in the body has the same member twice; readers disagree on which one counts")
    if _LONG_NUMBER(between):
        raise MalformedJson(f"the body holds a number of more than {MAX_NUMBER_CHARS} characters")


def _has_nul(value: Any) -> bool:
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, str):
            if "\x00" in node:
                return True
        elif isinstance(node, dict):
            pending.extend(node)
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return False
