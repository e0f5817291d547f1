"""Splits the bytes of one direction of one connection into units, and says which of them are messages.

HTTP/2 is read only as far as its frame headers: a message is a DATA frame with bytes in it, which is a gRPC message
or a part of one. TLS is read by records: a message is one of application data. Nothing is decoded further, so the
proxy knows no more of the protocol than a network does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PREFACE_BYTES = 24  # what an HTTP/2 client sends first
FRAME_HEADER_BYTES, DATA = 9, 0
RECORD_HEADER_BYTES, APPLICATION_DATA = 5, 23


@dataclass(frozen=True)
class Unit:
    data: bytes
    header_bytes: int
    is_message: bool


class Http2:
    def __init__(self, direction: str) -> None:
        self._buffer = bytearray()
        self._preface_bytes = PREFACE_BYTES if direction == "up" else 0

    def feed(self, data: bytes) -> Iterator[Unit]:
        self._buffer += data
        if self._preface_bytes:
            if len(self._buffer) < self._preface_bytes:
                return
            yield Unit(self._take(self._preface_bytes), 0, False)
            self._preface_bytes = 0
        while len(self._buffer) >= FRAME_HEADER_BYTES:
            payload_bytes, kind = int.from_bytes(self._buffer[:3], "big"), self._buffer[3]
            if len(self._buffer) < FRAME_HEADER_BYTES + payload_bytes:
                return
            frame = self._take(FRAME_HEADER_BYTES + payload_bytes)
            yield Unit(frame, FRAME_HEADER_BYTES, kind == DATA and payload_bytes > 0)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


class TlsRecords:
    def __init__(self, direction: str) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Unit]:
        self._buffer += data
        while len(self._buffer) >= RECORD_HEADER_BYTES:
            size = RECORD_HEADER_BYTES + int.from_bytes(self._buffer[3:5], "big")
            if len(self._buffer) < size:
                return
            record = bytes(self._buffer[:size])
            del self._buffer[:size]
            yield Unit(record, RECORD_HEADER_BYTES, record[0] == APPLICATION_DATA)
