"""The block of a scenario that names a trace: a file of arrivals and lengths that were recorded somewhere else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from perfbench.scenario.references import ModelRef
from perfbench.scenario.strict import NotNegative, Positive, Strict, plain_file

TraceFormat = Literal["azure", "mooncake", "burstgpt", "jsonl"]


class Trace(Strict):
    """Arrivals and lengths from a file: Azure LLM inference CSV, Mooncake JSONL, BurstGPT CSV, or our own JSONL (docs/traces.md).

    A row's prompt is sent where it has one; else a made prompt of the row's length. Rows that ask for no token in or out are left out and counted."""

    path: Annotated[str, AfterValidator(plain_file)]
    """Relative to the scenario file."""
    format: TraceFormat | None = None
    """Default: told from the file's first row."""
    from_s: NotNegative = 0.0
    """The part begins so long after the trace does; what arrives then is sent when the warm-up begins."""
    until_s: Positive | None = None
    """The part ends so long after the trace begins; default: when the stage is over."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """At most so many requests of the part."""
    time_scale: Positive = 1.0
    """Multiplies the time between arrivals: 0.5 replays twice as fast."""
    length_scale: Positive = 1.0
    """Multiplies prompt and answer lengths, and the length of shared blocks."""
    context_tokens: Annotated[int, Field(ge=2)] | None = None
    """Prompt and answer are clipped to fit in so many, and the report says how many were; default: `max-model-len` of `serve.args`."""
    tokenizer: ModelRef | None = None
    """Folder or hub id with the tokenizer; default: the base model's, and for endpoints alone the first endpoint's POST /tokenize (vLLM)."""
