"""Files of rows: JSONL, CSV and Parquet by their suffix, checked before anything starts and read as dictionaries.

    check_rows(path)          every row once, one at a time: ValueError with one sentence, or the columns that every row has
    read_rows(path, ...)      the first rows, with columns renamed by the scenario's map
    iter_rows(path, ...)      the same, one at a time

A file is read as a stream, so that one with a million rows needs no more memory than the rows that are kept. Values of CSV are text.
"""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from perfbench.scenario.paths import cache_folder

Row = dict[str, object]

_CSV_FIELD_BYTES = 1 << 28
"""Python's own limit is 128 KiB a field, less than a long prompt."""
_PARQUET_ROWS_AT_ONCE = 1024


def check_rows(path: str) -> frozenset[str]:
    """The columns that every row has. Raises ValueError for a file that is missing, empty, broken, not UTF-8, or of an unknown kind."""
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder; expected a JSONL, CSV or Parquet file")
    if not os.path.isfile(path):
        demo = f"{os.sep}demo{os.sep}" in path and path.startswith(str(cache_folder()))
        hint = "run `perfbench demo` once to make it" if demo else "expected an existing JSONL, CSV or Parquet file; correct the path"
        raise ValueError(f"{path} does not exist; {hint}")
    status = Path(path).stat()
    return _checked(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _checked(path: str, modified_ns: int, size: int) -> frozenset[str]:
    """A scenario names the same file in several places; a file that has not changed is read once."""
    columns: frozenset[str] | None = None
    for row in _rows(path):
        columns = frozenset(row) if columns is None else columns & row.keys()
    if columns is None:
        raise ValueError(f"{path} is empty; expected at least one row")
    return columns


def iter_rows(path: str, limit: int | None = None, columns: Mapping[str, str] | None = None) -> Iterator[Row]:
    """The first `limit` rows of a checked file in order; `columns` maps new names to the file's, as in `{prompt: Question}`."""
    for row in islice(_rows(path), limit):
        if columns:
            taken = {old: row[old] for old in columns.values()}
            yield {name: value for name, value in row.items() if name not in taken} | {new: taken[old] for new, old in columns.items()}
        else:
            yield row


def read_rows(path: str, limit: int | None = None, columns: Mapping[str, str] | None = None) -> list[Row]:
    """`iter_rows` at once."""
    return list(iter_rows(path, limit, columns))


def _rows(path: str) -> Iterator[Row]:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (".jsonl", ".ndjson"):
        return _jsonl(path)
    if suffix == ".csv":
        return _csv(path)
    if suffix == ".parquet":
        return _parquet(path)
    raise ValueError(f"{path} ends in `{suffix}`; expected a file of rows that ends in .jsonl, .csv or .parquet")


def _jsonl(path: str) -> Iterator[Row]:
    """One JSON object a line; a byte order mark, as Windows editors write it, belongs to none."""
    decoder = msgspec.json.Decoder()
    with open(path, "rb") as file:
        for number, read in enumerate(file, 1):
            line = read.removeprefix(codecs.BOM_UTF8) if number == 1 else read
            if not line.strip():
                continue
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number} is not UTF-8 (byte {error.start}); save the file as UTF-8") from None
            try:
                row = decoder.decode(line)
            except (msgspec.DecodeError, RecursionError) as error:
                why = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
                raise ValueError(f"{path}, line {number} is no JSON object ({why}); expected JSONL, one object a line") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number} is no JSON object; expected JSONL, one object a line")
            yield row


def _csv(path: str) -> Iterator[Row]:
    """RFC 4180 with a header line; a byte order mark, as Excel writes it, is no part of the first name."""
    csv.field_size_limit(_CSV_FIELD_BYTES)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        try:
            for fields in reader:
                if not fields:
                    continue
                if header is None:
                    header = _checked_header(path, fields)
                elif len(fields) != len(header):
                    raise ValueError(
                        f"{path}, line {reader.line_num} has {len(fields)} fields, its header {len(header)}; quote fields that hold commas or line ends"
                    )
                else:
                    yield dict(zip(header, fields, strict=True))
        except UnicodeDecodeError:
            near = f" after line {reader.line_num}" if reader.line_num else ""
            raise ValueError(f"{path} is not UTF-8{near}; save the file as UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num} is no CSV: {error}; expected commas, and double quotes around fields that hold them") from None


def _checked_header(path: str, names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path} has two columns named `{twice}` in its header; give each column a name of its own")
    return names


def _parquet(path: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS_AT_ONCE):
                rows: list[dict[str, Any]] = batch.to_pylist()
                yield from rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no Parquet file that can be read: {str(error).splitlines()[0]}; write it again") from None
