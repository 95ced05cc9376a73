"""Header names of any bytes are read, and what else a record holds stays as it was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from pipelines.kafka.header_names import mend_header_names


class Name(str):
    """A header's name that is written as bytes of the test's own."""

    raw: bytes

    def encode(self, *_: Any) -> bytes:
        return self.raw


def name(raw: bytes) -> Name:
    made = Name("name")
    made.raw = raw
    return made


def batch(*records: tuple[bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1_000_000)
    for offset, (key, value, headers) in enumerate(records):
        builder.append(offset, 1_000 + offset, key, value, [(name(raw), held) for raw, held in headers])
    return bytearray(builder.build())


def legible(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte < 0x80 else "?" for byte in raw)


_BYTES = st.binary(max_size=200)
_RECORD = st.tuples(st.none() | _BYTES, st.none() | _BYTES, st.lists(st.tuples(_BYTES, st.none() | _BYTES), max_size=4))


@given(st.lists(_RECORD, min_size=1, max_size=4))
def test_every_record_comes_back_with_its_names_made_legible(records: list[Any]) -> None:
    mend_header_names()
    read = [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in DefaultRecordBatch(batch(*records))]
    assert read == [
        (n, 1_000 + n, key, value, [(legible(raw), held) for raw, held in headers])
        for n, (key, value, headers) in enumerate(records)
    ]


def test_a_record_cut_short_is_still_refused_and_mending_twice_changes_nothing() -> None:
    mend_header_names()
    once = DefaultRecordBatch._read_msg
    mend_header_names()
    assert DefaultRecordBatch._read_msg is once
    with pytest.raises(CorruptRecordError):
        list(DefaultRecordBatch(batch((b"k", b"v", [(b"\xff", b"x")]))[:-4]))
