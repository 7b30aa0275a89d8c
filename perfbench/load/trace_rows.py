"""Reading a trace: one row at a time, so that a file of any size needs no more memory than its longest line.

    azure      CSV   TIMESTAMP (ISO 8601), ContextTokens, GeneratedTokens                    Azure LLM inference traces, 2023 and 2024
    mooncake   JSONL timestamp (ms), input_length, output_length, hash_ids                   one hash id for each 512 prompt tokens; equal ids, equal text
    burstgpt   CSV   Timestamp (s), Request tokens, Response tokens [, Session ID]           a request that failed has 0 response tokens
    jsonl      JSONL offset_s, input_tokens, output_tokens, prompt or messages, session      our own: see docs/traces.md

Further columns of the first three are passed over. Times count from the first row's, in our own format from 0. What comes out is one TraceRow a
row, in the order of the file, which has to be the order of time.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from perfbench.scenario.trace import TraceFormat

MOONCAKE_BLOCK_TOKENS = 512
"""Prompt tokens that one of Mooncake's hash_ids stands for (Qin et al., Mooncake, 2024)."""
_MS_PER_S = 1000

Count = Annotated[int, msgspec.Meta(ge=0)]
Time = Annotated[float, msgspec.Meta(ge=0)]
Row = TypeVar("Row")
Line = tuple[int, str]
"""Number, from 1, and text."""


class TraceError(ValueError):
    """One sentence about a file that is no trace, or none that can be replayed."""


class TraceRow(NamedTuple):
    """One request of a trace. None is what the trace does not say."""

    line: int
    """Of the file, from 1: it names the request."""
    offset_s: float
    """Since the trace began."""
    input_tokens: int | None
    output_tokens: int | None
    prompt: str | None = None
    messages: list[dict[str, str]] | None = None
    blocks: tuple[int, ...] = ()
    """Ids of the blocks that the prompt is made of."""
    session: str | None = None


class _MooncakeRow(msgspec.Struct, frozen=True):
    timestamp: Time
    input_length: Count
    output_length: Count
    hash_ids: tuple[int, ...]


class _OwnRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    offset_s: Time
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, str]], msgspec.Meta(min_length=1)] | None = None
    session: str | None = None


def read_rows(path: str, kind: TraceFormat | None = None) -> Iterator[TraceRow]:
    """The requests of a trace, one at a time. Raises TraceError at the first row that cannot be used."""
    lines = _lines(path)
    try:
        first = next(lines)
    except StopIteration:
        raise TraceError(f"{path} is empty; expected a trace with at least one request") from None
    kind = kind or trace_format(first[1], path)
    origin_s: float | None = 0.0 if kind == "jsonl" else None
    last_s = -math.inf
    for row in _READERS[kind](first, lines):
        if row.offset_s < last_s:
            raise TraceError(f"line {row.line}: time goes back by {last_s - row.offset_s:g} s; sort the file by its time")
        last_s = row.offset_s
        origin_s = row.offset_s if origin_s is None else origin_s
        yield row._replace(offset_s=row.offset_s - origin_s) if origin_s else row
    if last_s == -math.inf:
        raise TraceError(f"{path} holds no request; expected at least one row under its header")


def trace_format(first_line: str, path: str) -> TraceFormat:
    """The format that a trace's first line speaks of. Raises TraceError for none."""
    if first_line.lstrip().startswith("{"):
        return "jsonl" if '"offset_s"' in first_line else "mooncake"
    names = set(_header(first_line))
    if names & {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}:
        return "azure"
    if names & {"Request tokens", "Response tokens", "Log Type"}:
        return "burstgpt"
    raise TraceError(f"{path} is no trace that perfbench knows: line 1 is neither the header of an Azure or BurstGPT CSV nor a row of Mooncake's or our JSONL")


def _lines(path: str) -> Iterator[Line]:
    """Lines that are not blank."""
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise TraceError(f"line {number} is not UTF-8 (byte {error.start}); save the file as UTF-8") from None
            if text:
                yield number, text


# -- CSV


def _header(line: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line]))]


def _csv_rows(first: Line, lines: Iterator[Line], columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Line number and the values of `columns` in their order."""
    header = _header(first[1])
    missing = [f"`{name}`" for name in columns if name not in header]
    if missing:
        raise TraceError(f"line 1 has no column {', '.join(missing)}; its columns are {', '.join(header)}")
    places = [header.index(name) for name in columns]
    for number, line in lines:
        fields = next(csv.reader([line]))
        if len(fields) <= max(places):
            raise TraceError(f"line {number} has {len(fields)} fields, the header {len(header)}")
        yield number, [fields[place] for place in places]


def _tokens(number: int, column: str, text: str) -> int:
    try:
        tokens = int(text)
    except ValueError:
        tokens = -1
    if tokens < 0:
        raise TraceError(f"line {number}: {column} is `{text}`; expected a number of tokens, 0 or more")
    return tokens


def _azure(first: Line, lines: Iterator[Line]) -> Iterator[TraceRow]:
    columns = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
    begin: datetime | None = None
    for number, (stamp, context, generated) in _csv_rows(first, lines, columns):
        try:
            time = datetime.fromisoformat(stamp.strip())
        except ValueError:
            raise TraceError(f"line {number}: TIMESTAMP is `{stamp}`; expected a date and time like 2023-11-16 18:15:46.68") from None
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
        begin = begin or time
        yield TraceRow(number, (time - begin).total_seconds(), _tokens(number, columns[1], context), _tokens(number, columns[2], generated))


def _burstgpt(first: Line, lines: Iterator[Line]) -> Iterator[TraceRow]:
    columns = ("Timestamp", "Request tokens", "Response tokens")
    session = tuple(name for name in ("Session ID",) if name in _header(first[1]))
    for number, (stamp, request, response, *sessions) in _csv_rows(first, lines, (*columns, *session)):
        try:
            time_s = float(stamp)
        except ValueError:
            time_s = math.nan
        if not math.isfinite(time_s):
            raise TraceError(f"line {number}: Timestamp is `{stamp}`; expected seconds")
        tokens = _tokens(number, columns[1], request), _tokens(number, columns[2], response)
        yield TraceRow(number, time_s, *tokens, session=next((text for text in sessions if text), None))


# -- JSONL


def _mooncake(first: Line, lines: Iterator[Line]) -> Iterator[TraceRow]:
    for number, row in _json_rows(first, lines, msgspec.json.Decoder(_MooncakeRow)):
        yield TraceRow(number, row.timestamp / _MS_PER_S, row.input_length, row.output_length, blocks=row.hash_ids)


def _own(first: Line, lines: Iterator[Line]) -> Iterator[TraceRow]:
    for number, row in _json_rows(first, lines, msgspec.json.Decoder(_OwnRow)):
        if row.prompt is not None and row.messages is not None:
            raise TraceError(f"line {number} has both `prompt` and `messages`; expected one of them")
        if row.input_tokens is None and row.prompt is None and row.messages is None:
            raise TraceError(f"line {number} says nothing of its prompt; expected `input_tokens`, `prompt` or `messages`")
        yield TraceRow(number, row.offset_s, row.input_tokens, row.output_tokens, row.prompt, row.messages, session=row.session)


def _json_rows(first: Line, lines: Iterator[Line], decoder: msgspec.json.Decoder[Row]) -> Iterator[tuple[int, Row]]:
    for number, line in chain([first], lines):
        try:
            yield number, decoder.decode(line)
        except msgspec.ValidationError as error:
            problem = str(error).replace("Object missing required field", "the row lacks").replace("Expected", "expected")
            raise TraceError(f"line {number}: {problem.replace('Object contains unknown field', 'the row has the unknown key')}") from None
        except msgspec.DecodeError as error:
            raise TraceError(f"line {number} is no JSON object: {error}") from None


_READERS: dict[TraceFormat, Callable[[Line, Iterator[Line]], Iterator[TraceRow]]] = {
    "azure": _azure, "mooncake": _mooncake, "burstgpt": _burstgpt, "jsonl": _own,
}  # fmt: skip
