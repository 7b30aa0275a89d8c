"""The part of a trace that a stage replays: which requests, when, and how long prompt and answer are. Pure.

    t = (offset - from_s) x time_scale                    from the start of the warm-up; requests with t >= warmup_s + duration_s are not read
    length = max(1, round(length x length_scale))         of prompt and answer; a block of hash_ids is scaled alike
    prompt + answer <= context_tokens                     what does not fit is cut off the longer one; neither is cut below half of the context

Rows with no token in or out (in BurstGPT: requests that failed) cannot be asked for: they are left out and counted. So is what was clipped. Prompts
themselves are made by `workload.trace_prompts`, from the lengths and block ids here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from perfbench.errors import Finding, ScenarioError
from perfbench.load.arrivals import nanoseconds
from perfbench.load.trace_rows import MOONCAKE_BLOCK_TOKENS, TraceError, TraceRow, read_rows, trace_format
from perfbench.records import TraceUse
from perfbench.scenario.model import Stage
from perfbench.scenario.output import Output
from perfbench.scenario.trace import Trace

_SILENCE_SHARE = 0.1
"""Of the window: a trace that ends so much earlier, and is silent for longer than ever before, was too short for the stage."""


class TraceRequest(NamedTuple):
    """One request of a stage: what is asked for, scaled and clipped."""

    prompt_id: str
    """`line-N`, its line of the trace."""
    input_tokens: int | None
    """None where the trace has the prompt itself."""
    output_tokens: int
    """How long the answer may be, or has to be."""
    prompt: str | None
    messages: list[dict[str, str]] | None
    blocks: tuple[int, ...]
    """The prompt is made of these blocks, each `block_tokens` long, the last one shorter; where there are none, it shares nothing."""
    session: str | None


@dataclass(frozen=True)
class TracePart:
    """What a stage replays."""

    offsets_ns: npt.NDArray[np.int64]
    """Request k is sent so long after the start of the warm-up."""
    requests: tuple[TraceRequest, ...]
    block_tokens: int
    use: TraceUse


def trace_part(stage: Stage, *, key: str, context_tokens: int | None) -> TracePart:
    """Read the part of the stage's trace; `key` is the stage's scenario key, `context_tokens` the served model's context where it is known.

    Raises ScenarioError for a file that is no trace, for a part without requests, and for a trace that is over long before the stage is.
    """
    trace = stage.trace
    assert trace is not None
    part = _Part(stage, trace, context_tokens)
    try:
        for row in read_rows(trace.path, trace.format):
            if not part.take(row):
                break
        else:
            part.ended = True
    except TraceError as error:
        raise ScenarioError(trace.path, [Finding(f"{key}.trace.path", str(error))]) from None
    problem = part.problem()
    if problem is not None:
        raise ScenarioError(trace.path, [Finding(*_with_key(key, problem))])
    return part.made()


def _with_key(key: str, problem: tuple[str, str]) -> tuple[str, str]:
    return f"{key}.{problem[0]}", problem[1]


class _Part:
    """The requests taken so far, and what happened to them."""

    def __init__(self, stage: Stage, trace: Trace, context_tokens: int | None) -> None:
        self.ended = False
        """Whether the part, not the stage, was over first."""
        self._stage, self._trace, self._context = stage, trace, context_tokens
        self._length_s = stage.warmup_s + stage.duration_s
        self._offsets_s: list[float] = []
        self._requests: list[TraceRequest] = []
        self._left_out = self._clipped_prompts = self._clipped_answers = 0
        self._last_row_s = 0.0

    def take(self, row: TraceRow) -> bool:
        """Take a row into the part, or pass it over; False when no later row belongs to it."""
        trace = self._trace
        self._last_row_s = row.offset_s
        if row.offset_s < trace.from_s:
            return True
        offset_s = (row.offset_s - trace.from_s) * trace.time_scale
        if offset_s >= self._length_s:
            return False
        if (trace.until_s is not None and row.offset_s >= trace.until_s) or (trace.limit is not None and len(self._requests) >= trace.limit):
            self.ended = True
            return False
        if row.input_tokens == 0 or row.output_tokens == 0:
            self._left_out += 1
            return True
        self._offsets_s.append(offset_s)
        self._requests.append(self._request(row))
        return True

    def _request(self, row: TraceRow) -> TraceRequest:
        has_prompt = row.prompt is not None or row.messages is not None
        wanted_in = None if has_prompt or row.input_tokens is None else self._scaled(row.input_tokens)
        wanted_out = self._answer_tokens(row)
        asked_in, asked_out = clip(wanted_in, wanted_out, self._context)
        self._clipped_prompts += asked_in != wanted_in
        self._clipped_answers += asked_out != wanted_out
        return TraceRequest(f"line-{row.line}", asked_in, asked_out, row.prompt, row.messages, row.blocks, row.session)

    def _answer_tokens(self, row: TraceRow) -> int:
        output: Output = self._stage.output
        if output.trace is None:
            tokens = output.fixed or output.max_tokens
            assert tokens is not None
            return tokens
        if row.output_tokens is None:
            raise TraceError(f"line {row.line} says nothing of its answer; add `output_tokens`, or give the stage's `output` as `fixed` or `max_tokens`")
        return self._scaled(row.output_tokens)

    def _scaled(self, tokens: int) -> int:
        return max(1, round(tokens * self._trace.length_scale))

    def problem(self) -> tuple[str, str] | None:
        """(key within the stage, sentence) where the part cannot be replayed."""
        trace, offsets_s = self._trace, self._offsets_s
        if not offsets_s:
            until = "" if trace.until_s is None else f" and before {trace.until_s:g} s"
            out = f", {self._left_out} ask for no token" if self._left_out else ""
            return "trace", f"no request of the trace comes after {trace.from_s:g} s{until}{out}; what was read of it ends at {self._last_row_s:g} s"
        silence_s = self._length_s - offsets_s[-1]
        longest_s = max((later - earlier for earlier, later in pairwise(offsets_s)), default=0.0)
        if self.ended and silence_s > max(longest_s, _SILENCE_SHARE * self._stage.duration_s):
            return "duration_s", (
                f"the last request of the trace's part comes {offsets_s[-1]:.1f} s after the stage begins, {silence_s:.1f} s before it ends; "
                "make the stage shorter, the part longer, or `time_scale` larger"
            )
        return None

    def made(self) -> TracePart:
        """The part as it is replayed."""
        trace = self._trace
        use = TraceUse(
            path=trace.path, format=trace.format or _format_of(trace.path), requests=len(self._requests), left_out=self._left_out,
            context_tokens=self._context, clipped_prompts=self._clipped_prompts, clipped_answers=self._clipped_answers,
            shares_prefixes=_any_block_twice(self._requests),
        )  # fmt: skip
        offsets_ns = nanoseconds(np.array(self._offsets_s), self._length_s)
        return TracePart(offsets_ns, tuple(self._requests[: len(offsets_ns)]), self._scaled(MOONCAKE_BLOCK_TOKENS), use)


def clip(input_tokens: int | None, output_tokens: int, context_tokens: int | None) -> tuple[int | None, int]:
    """(prompt, answer) in tokens that fit in the context together: cut off the longer one, neither below half of the context.

    A prompt of unknown length (None) cannot be cut; its answer gets what one token of prompt would leave.
    """
    if context_tokens is None:
        return input_tokens, output_tokens
    half = context_tokens // 2
    answer = min(output_tokens, context_tokens - min(1 if input_tokens is None else input_tokens, half))
    return None if input_tokens is None else min(input_tokens, context_tokens - answer), answer


def _format_of(path: str) -> str:
    with open(path, encoding="utf-8-sig") as file:
        return trace_format(next(line for line in file if line.strip()), path)


def _any_block_twice(requests: list[TraceRequest]) -> bool:
    """Whether two requests begin with the same block."""
    first = [request.blocks[0] for request in requests if request.blocks]
    return len(set(first)) < len(first)
