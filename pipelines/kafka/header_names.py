"""Kafka records with a header whose name is no UTF-8, which kafka-python 3.0.12 cannot read.

It decodes names strictly (kafka/record/default_records.py), so that one such record makes its whole batch raise, and
whoever consumes the partition stands still. Kafka's protocol wants UTF-8 there, but its brokers take any bytes.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

_MENDED = "_careloom_mended"


def mend_header_names() -> None:
    """From now on this process reads such records; each byte of such a name that is no ASCII stands as "?".

    Call it before a consumer polls; a second call changes nothing. Everything else of kafka-python's reading stays as
    it is, its checks of checksums and lengths among them.
    """
    from kafka.record.default_records import DefaultRecordBatch

    strictly = DefaultRecordBatch._read_msg
    if hasattr(strictly, _MENDED):
        return

    @wraps(strictly)
    def read(batch: Any) -> Any:
        try:
            return strictly(batch)
        except UnicodeDecodeError:
            _make_legible(batch._buffer, batch._pos)
            return strictly(batch)

    setattr(read, _MENDED, True)
    DefaultRecordBatch._read_msg = read


def _make_legible(buffer: bytearray, pos: int) -> None:
    """Put ASCII in place of the header names of the record that begins at `pos`; their lengths stay.

    The record: https://kafka.apache.org/documentation/#record
    """
    from kafka.record.util import decode_varint

    for _ in range(4):  # length, attributes, timestamp, offset
        _, pos = decode_varint(buffer, pos)
    for _ in range(2):  # key, value
        size, pos = decode_varint(buffer, pos)
        pos += max(size, 0)
    count, pos = decode_varint(buffer, pos)
    for _ in range(count):
        size, pos = decode_varint(buffer, pos)
        name = buffer[pos : pos + size]
        try:
            name.decode()
        except UnicodeDecodeError:
            buffer[pos : pos + size] = bytes(byte if byte < 0x80 else ord("?") for byte in name)
        pos += size
        size, pos = decode_varint(buffer, pos)
        pos += max(size, 0)
