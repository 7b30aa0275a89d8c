"""From a raw exchange to a record: HTTP, SSE and JSON decoded after the window. Pure.

Which byte is a chunk's time? That of the read which delivered the last byte of its event: the blank line that ends it. By the SSE
standard an event takes place at that blank line and not before, and until it is here nobody can know that the JSON was whole. So an
event that was split over reads counts when its last part came, and several events in one read share that read's stamp (`coalesced_reads`).

A chunk is an event with non-empty content or reasoning. The role-only event at the start and the usage event at the end are none, so
neither the first nor the last token's time moves by them. A plain JSON answer has no chunks: its only time is that of its last byte.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from perfbench.load.exchange import RawExchange
from perfbench.load.framing import Response
from perfbench.records import ErrorKind, Record
from perfbench.spool import iter_spool

_MESSAGE_LENGTH = 500
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
"""Two line ends in a row. Atomic groups: a single CR LF must not be taken for a CR and an LF."""
_LINE_END = re.compile(rb"\r\n|\n|\r")


class _Text(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Text | None = None
    message: _Text | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Answer(msgspec.Struct):
    """One event of a stream, or a whole plain answer: chat and completions, as OpenAI and vLLM write them."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None
    message: Any = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


class _Decoded:
    """What the events of one response add up to."""

    def __init__(self) -> None:
        self.chunk_ends: list[int] = []
        """Body offset after each chunk's event."""
        self.chunk_tokens: list[int | None] = []
        self.texts: list[str] = []
        self.usage: _Usage | None = None
        self.finish_reason: str | None = None
        self.finished = False
        self.error: ErrorKind | None = None
        self.error_message: str | None = None

    def take(self, data: bytes, end: int, *, stream: bool) -> None:
        """One JSON object; `end` is the body offset after its event."""
        try:
            answer = _decode_answer(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            what = "an event" if stream else "the answer"
            self.fail("protocol", f"{what} is not what the OpenAI API answers with: {error}: {_shorten(data.decode(errors='replace'))}")
            return
        if answer.error is not None or answer.object == "error":
            self.fail("server", _error_text(answer.error if answer.error is not None else answer.message))
            return
        tokens_before = self.usage.completion_tokens if self.usage is not None else 0
        self.usage = answer.usage or self.usage
        for choice in answer.choices:
            self.finish_reason = choice.finish_reason or self.finish_reason
            part = choice.delta or choice.message
            content = (part.content if part is not None else choice.text) or ""
            self.texts.append(content)
            if content or (part is not None and (part.reasoning or part.reasoning_content)):
                self.chunk_ends.append(end)
                self.chunk_tokens.append(_tokens_of(choice, answer.usage, tokens_before))

    def fail(self, kind: ErrorKind, message: str) -> None:
        """Keep the first error: those after it follow from it."""
        if self.error is None:
            self.error, self.error_message = kind, message


def decode(raw: RawExchange) -> Record:
    """The record of one exchange (DESIGN 7.1)."""
    read_ns = array("q", raw.read_ns)
    response = Response(raw.raw, array("q", raw.read_lengths))
    decoded = _Decoded()
    stream = response.content_type.startswith("text/event-stream")
    if response.status == 200:
        if stream:
            _decode_stream(response.body, decoded, whole=raw.error is None)
        elif raw.error is None:
            decoded.take(response.body, len(response.body), stream=False)
    error, message = _verdict(raw, response, decoded)
    chunk_reads = [response.read_of(end) for end in decoded.chunk_ends]
    chunk_ns = [read_ns[read] for read in chunk_reads] if stream else []
    last_ns = read_ns[chunk_reads[-1]] if chunk_reads else None
    usage = decoded.usage or _Usage()
    return Record(
        request_id=raw.request_id, trial=raw.trial, variant=raw.variant, worker=raw.worker, prompt_id=raw.prompt_id,
        scheduled_ns=raw.scheduled_ns, sent_ns=raw.sent_ns, end_ns=raw.end_ns,
        first_token_ns=chunk_ns[0] if chunk_ns else None, last_token_ns=last_ns, chunk_ns=chunk_ns,
        chunk_tokens=_all_known(decoded.chunk_tokens) if stream else None,
        prompt_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens,
        cached_tokens=usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None,
        status="ok" if error is None else "failed", error=error, error_message=message,
        http_status=response.status, finish_reason=decoded.finish_reason,
        stamp="kernel" if raw.kernel_stamps else "user",
        coalesced_reads=_shared_reads(chunk_reads) if stream else 0,
        bytes_received=len(raw.raw), output_text="".join(decoded.texts) if raw.keep_text else None,
        adapter=raw.adapter,
    )


def recover_spool(path: Path) -> list[Record]:
    """The records of a trial that was cut off: every request that had ended when the load process died."""
    return [decode(raw) for raw in iter_spool(path, RawExchange)]


def events(body: bytes, *, whole: bool) -> Iterator[tuple[bytes, int]]:
    """The SSE events of a body as (data, body offset after the event).

    Events without data (comments, keep-alives) are left out. `whole`: the body is complete, so that a last event whose blank line
    the server forgot still counts.
    """
    start = 0
    for blank in _BLANK_LINE.finditer(body):
        yield from _event(body[start : blank.start()], blank.end())
        start = blank.end()
    if whole:
        yield from _event(body[start:], len(body))


def _event(block: bytes, end: int) -> Iterator[tuple[bytes, int]]:
    if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:  # all that vLLM ever sends
        yield block[6:], end
        return
    lines = [line[5:].removeprefix(b" ") for line in _LINE_END.split(block) if line.startswith(b"data:")]
    if lines:
        yield b"\n".join(lines), end


def _decode_stream(body: bytes, decoded: _Decoded, *, whole: bool) -> None:
    for data, end in events(body, whole=whole):
        if data == b"[DONE]":
            decoded.finished = True
        elif data:
            decoded.take(data, end, stream=True)
    if whole and decoded.error is None and not decoded.finished and decoded.finish_reason is None:
        decoded.fail("protocol", "the stream ended with neither a finish_reason nor [DONE]")


def _verdict(raw: RawExchange, response: Response, decoded: _Decoded) -> tuple[ErrorKind | None, str | None]:
    """What the server said weighs more than how the connection ended: it is the cause."""
    if response.status is not None and response.status != 200:
        return "http", f"HTTP {response.status}: {_shorten(_http_error_text(response.body))}"
    if decoded.error == "server":
        return decoded.error, decoded.error_message
    if raw.error is not None:
        return raw.error, raw.error_message
    return decoded.error, decoded.error_message


def _tokens_of(choice: _Choice, usage: _Usage | None, tokens_before: int | None) -> int | None:
    """Tokens of one chunk: by its ids (`return_token_ids`) or by the usage so far (`continuous_usage_stats`), where the server sends them."""
    if choice.token_ids is not None:
        return len(choice.token_ids)
    if usage is not None and usage.completion_tokens is not None and tokens_before is not None:
        return usage.completion_tokens - tokens_before
    return None


def _all_known(counts: list[int | None]) -> list[int] | None:
    known = [count for count in counts if count is not None]
    return known if known and len(known) == len(counts) else None


def _shared_reads(chunk_reads: list[int]) -> int:
    """How many reads returned more than one chunk; reads are ascending."""
    return len({read for read, following in pairwise(chunk_reads) if read == following})


def _http_error_text(body: bytes) -> str:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode(errors="replace")
    if isinstance(answer, dict):
        return _error_text(answer.get("error") or answer.get("message") or answer.get("detail") or answer)
    return _error_text(answer)


def _error_text(error: Any) -> str:
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        error = error["message"]
    return _shorten(error if isinstance(error, str) else msgspec.json.encode(error).decode())


def _shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _MESSAGE_LENGTH else flat[: _MESSAGE_LENGTH - 1] + "…"
