"""The spool: rows of a process that still writes, safe from kill -9 of it. Length-prefixed msgpack, one `os.write` a row.

No pyarrow and no Polars here: the processes that drive load and sample only append, and stay small.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

Row = TypeVar("Row", bound=msgspec.Struct)

_LENGTH = struct.Struct("<I")


class Spool(Generic[Row]):
    """Append-only file of structs that survives kill -9 of its writer. Not for reading while it is written."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._encoder = msgspec.msgpack.Encoder()

    def append(self, row: Row) -> None:
        body = self._encoder.encode(row)
        os.write(self._file, _LENGTH.pack(len(body)) + body)

    def close(self) -> None:
        os.close(self._file)


def iter_spool(path: Path, kind: type[Row]) -> Iterator[Row]:
    """All whole rows of a spool, one at a time: raw exchanges of a long trial need not fit in memory. A torn last row is left out."""
    decoder = msgspec.msgpack.Decoder(kind)
    with path.open("rb") as file:
        while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            body = file.read(length)
            if len(body) < length:
                return
            yield decoder.decode(body)


def read_spool(path: Path, kind: type[Row]) -> list[Row]:
    """All whole rows of a spool at once."""
    return list(iter_spool(path, kind))
