"""What an HTTP body is before it is JSON: its content type, FHIR version parameter, charset, encoding and size."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from typing import Literal

from fhir_adapters.errors import MalformedJson, NotFhir, TooLarge, UnsupportedFormat
from fhir_adapters.event import FhirVersion

Format = Literal["json", "xml"]

#: https://hl7.org/fhir/R4/http.html#mime-type; the last of each is the name it had before R4, still sent by some.
_FORMATS: dict[str, Format] = {
    "application/fhir+json": "json",
    "application/json": "json",
    "application/json+fhir": "json",
    "application/fhir+xml": "xml",
    "application/xml": "xml",
    "text/xml": "xml",
    "application/xml+fhir": "xml",
}
#: https://hl7.org/fhir/R5/http.html#version-parameter
_VERSION_PARAMETER: dict[str, FhirVersion] = {"4.0": "R4", "4.3": "R4B", "5.0": "R5"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost.

    Attributes:
        max_body_bytes: of the body, also after decompression.
        max_depth: of nested objects and arrays.
    """

    max_body_bytes: int = 8 * 1024 * 1024
    max_depth: int = 64


def decompress(body: bytes, content_encoding: str | None, *, limit: int) -> bytes:
    """The body without its content encoding, never more than `limit` bytes of it in memory.

    Raises:
        TooLarge: more than `limit` bytes, before or after decompression.
        UnsupportedFormat: an encoding other than identity and gzip.
        MalformedJson: not gzip, or gzip cut short.
    """
    if len(body) > limit:
        raise TooLarge(f"the body is over the limit of {limit} bytes; send less at once")
    encoding = (content_encoding or "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise UnsupportedFormat("this Content-Encoding is not spoken here; send gzip or none")
    inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise MalformedJson("the body is said to be gzip but is not") from None
    if len(plain) > limit:
        raise TooLarge(f"the body is over the limit of {limit} bytes when decompressed; send less at once")
    if not inflater.eof:
        raise MalformedJson("the gzip body is cut short")
    if inflater.unused_data:
        raise MalformedJson("bytes follow the end of the gzip body")
    return plain


@lru_cache(maxsize=256)
def format_of(content_type: str | None, version: FhirVersion) -> Format:
    """Whether the body is JSON or XML.

    Raises:
        UnsupportedFormat: no content type, one that is not FHIR's, or a charset other than UTF-8.
        NotFhir: its fhirVersion parameter names another version than the one this source is bound to.
    """
    if not content_type:
        raise UnsupportedFormat("no Content-Type; send application/fhir+json")
    message = Message()
    message["content-type"] = content_type
    found = _FORMATS.get(message.get_content_type())
    if found is None:
        raise UnsupportedFormat("this Content-Type is not spoken here; send application/fhir+json or +xml")
    charset = message.get_param("charset")
    if charset is not None and str(charset).lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedFormat("this charset is not spoken here; FHIR is UTF-8")
    _check_version_parameter(message.get_param("fhirVersion"), version)
    return found


def _check_version_parameter(parameter: object, version: FhirVersion) -> None:
    if parameter is None:
        return
    named = _VERSION_PARAMETER.get(str(parameter))
    if named is None:
        raise UnsupportedFormat("the fhirVersion of the Content-Type is not spoken here; 4.0, 4.3 and 5.0 are")
    if named != version:
        raise NotFhir(f"the Content-Type says FHIR {named}, but this source is bound to {version}")
