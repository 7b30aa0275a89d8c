"""The Parquet tables of a run folder: one schema for each kind of row, written whole or not at all, and read back from runs of earlier versions too.

A copy that was cut off is refused by name: read as far as it goes, it would look like a server that answered less. Where the files lie is `results.py`'s; what
a row means is said in `records`. Mappings are JSON text with sorted keys, so that equal rows are equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from perfbench.errors import RunFolderError
from perfbench.records import QualityRecord, Record, Sample

Row = TypeVar("Row", bound=msgspec.Struct)

COPY_AGAIN = "copy the run folder again, as a whole"
_END = b"PAR1"

RECORD_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()), ("trial", pa.string()), ("variant", pa.string()), ("worker", pa.int32()), ("prompt_id", pa.string()),
        ("scheduled_ns", pa.int64()), ("sent_ns", pa.int64()), ("first_token_ns", pa.int64()), ("last_token_ns", pa.int64()), ("end_ns", pa.int64()),
        ("chunk_ns", pa.list_(pa.int64())), ("chunk_tokens", pa.list_(pa.int32())),
        ("prompt_tokens", pa.int32()), ("output_tokens", pa.int32()), ("cached_tokens", pa.int32()),
        ("status", pa.string()), ("error", pa.string()), ("error_message", pa.string()), ("http_status", pa.int32()), ("finish_reason", pa.string()),
        ("stamp", pa.string()), ("coalesced_reads", pa.int32()), ("bytes_received", pa.int64()), ("output_text", pa.string()),
        ("adapter", pa.string()),
    ]
)  # fmt: skip
SAMPLE_SCHEMA = pa.schema(
    [("t_ns", pa.int64()), ("source", pa.string()), ("name", pa.string()), ("value", pa.float64()), ("unit", pa.string()), ("labels", pa.string())]
)
QUALITY_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()), ("variant", pa.string()), ("prompt", pa.string()), ("prompt_sha256", pa.string()), ("expected", pa.string()),
        ("output", pa.string()), ("error", pa.string()), ("finish_reason", pa.string()), ("prompt_tokens", pa.int32()), ("output_tokens", pa.int32()),
        ("scores", pa.string()), ("passed", pa.bool_()), ("label", pa.string()), ("contaminated", pa.bool_()),
        ("template_sha256", pa.string()), ("decoding_sha256", pa.string()), ("seed", pa.int64()), ("slices", pa.string()), ("group", pa.string()),
        ("must_refuse", pa.bool_()), ("details", pa.string()), ("attempts", pa.list_(pa.string())),
    ]
)  # fmt: skip
JUDGED_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()), ("variant", pa.string()), ("kind", pa.string()), ("first", pa.string()), ("prompt", pa.string()),
        ("answer", pa.string()), ("verdict", pa.string()), ("score", pa.float64()), ("reason", pa.string()), ("problem", pa.string()),
        ("retries", pa.int32()), ("error", pa.string()), ("prompt_tokens", pa.int32()), ("output_tokens", pa.int32()),
    ]
)  # fmt: skip
TOKEN_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()), ("prompt_sha256", pa.string()), ("output", pa.string()), ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float64())), ("runner_up_ids", pa.list_(pa.int32())), ("runner_up_logprobs", pa.list_(pa.float64())),
    ]
)  # fmt: skip
_QUALITY_MAPPINGS = ("scores", "slices", "details")
"""Columns of quality records that hold JSON text."""


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write records as Parquet, whole or not at all."""
    write_rows(path, records, RECORD_SCHEMA)


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write samples as Parquet, whole or not at all; labels become JSON text with sorted keys."""
    rows = [{**msgspec.structs.asdict(sample), "labels": _json_text(sample.labels)} for sample in samples]
    write_table(path, pa.Table.from_pylist(rows, schema=SAMPLE_SCHEMA))


def _json_text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def write_quality(path: Path, records: Sequence[QualityRecord]) -> None:
    """Write quality records as Parquet, whole or not at all."""
    rows = [{**msgspec.structs.asdict(record), **{name: _json_text(getattr(record, name)) for name in _QUALITY_MAPPINGS}} for record in records]
    write_table(path, pa.Table.from_pylist(rows, schema=QUALITY_SCHEMA))


def read_quality(path: Path) -> list[QualityRecord]:
    """None of a file that is not there."""
    rows = _read(path)
    return [msgspec.convert({**row, **{name: msgspec.json.decode(row[name]) for name in _QUALITY_MAPPINGS if name in row}}, QualityRecord) for row in rows]


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    _check_whole(path)
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def write_rows(path: Path, rows: Sequence[msgspec.Struct], schema: pa.Schema) -> None:
    """Write rows whose fields are columns, whole or not at all."""
    write_table(path, pa.Table.from_pylist([msgspec.structs.asdict(row) for row in rows], schema=schema))


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """None of a file that is not there."""
    return [msgspec.convert(row, kind) for row in _read(path)]


def write_table(path: Path, table: pa.Table) -> None:
    """Write it whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    pq.write_table(table, part, compression="zstd")
    part.replace(path)


def scan(files: Sequence[Path], schema: pa.Schema) -> pl.LazyFrame:
    """All rows of the files as one lazy frame with the schema's columns. Raises RunFolderError for a file that was cut off."""
    if not files:
        return _empty(schema).lazy()
    for file in files:
        _check_whole(file)
    # Runs of earlier versions lack columns that were added since: their rows have none there.
    return pl.scan_parquet(list(files), schema=_empty(schema).schema, missing_columns="insert")


def _check_whole(path: Path) -> None:
    """Parquet ends with a mark."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_END)))
        end = file.read()
    if end != _END:
        raise RunFolderError(f"{path} is no whole Parquet file: it was cut off", hint=COPY_AGAIN)


def _empty(schema: pa.Schema) -> pl.DataFrame:
    frame = pl.from_arrow(schema.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame
