"""Other tools' latencies and goodput, recomputed by their formulas from our records, so that numbers people already have can be matched.

Read in the installed code of vLLM 0.32 (benchmarks/serve.py, lib/endpoint_request_func.py), guidellm 0.8.1 (schemas/base/request_stats.py,
schemas/benchmark/goodput.py, benchmark/schemas/metrics.py), aiperf 0.13.0 (metrics/types) and inference-perf 0.7.0 (reportgen/base.py). Symbols as in
`metrics`: `s` sent, `f` and `l` first and last content, `n` output tokens. Over successful requests scheduled in the measured windows of a stage, all
usable repeats together, warm-up left out, which those tools do not do; their percentiles interpolate linearly (numpy's default), ours do not. What our
records cannot tell is said in `differs`. A goodput's time is that of each repeat by itself, added up: between repeats other trials run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl

from perfbench.analyse.metrics import BY_NAME, NS_PER_S
from perfbench.analyse.stats import Floats, percentile

Tool = Literal["vllm", "guidellm", "aiperf", "inference-perf"]
TOOLS: tuple[str, ...] = get_args(Tool)

ROLE_CHUNK = "its clock also stops at a first chunk without content (chat: the role), which our records do not hold: where one comes early, its TTFT is smaller"
FINISH_CHUNK = "its end is the last chunk with a choice, also one without content (the finish reason): usually the same moment as our last content"
USAGE_CHUNK = "the usage chunk moves its end, ours not"
TOKENIZER = "it counts tokens with a tokenizer of its own; here n is the server's usage"


@dataclass(frozen=True)
class Definition:
    """One figure of one tool. `values` gives it in seconds for requests with record columns."""

    tool: Tool
    name: str
    """As the tool prints it."""
    formula: str
    ours: str
    """The metric of ours that comes nearest."""
    differs: str
    values: Callable[[pl.DataFrame], Floats]


@dataclass(frozen=True)
class Recomputed:
    """A tool's figure and ours over the same requests; seconds, goodput per second. None where it cannot be computed."""

    variant: str
    stage: str
    name: str
    ours: str
    theirs: Mapping[str, float | None]
    """mean, p50, p99 (goodput: mean alone)."""
    our_values: Mapping[str, float | None]
    n: int
    note: str = ""
    """Of a goodput: by which limits of the SLO, and which the tool does not know."""


@dataclass(frozen=True)
class StageRequests:
    """One stage of one variant: trials with the selection of their requests that count, and our own goodput."""

    variant: str
    stage: str
    trials: Sequence[tuple[str, pl.Expr]]
    goodput_per_s: float | None


def _seconds(later: str, earlier: str) -> Callable[[pl.DataFrame], Floats]:
    return lambda requests: _floats(requests.select((pl.col(later) - pl.col(earlier)) / NS_PER_S))


def _per_gap(later: str, earlier: str) -> Callable[[pl.DataFrame], Floats]:
    """(later - earlier) / (n - 1), of answers with more than one token."""
    return lambda requests: _floats(
        requests.filter(pl.col("output_tokens") > 1).select((pl.col(later) - pl.col(earlier)) / NS_PER_S / (pl.col("output_tokens") - 1))
    )


def _per_token(later: str, earlier: str) -> Callable[[pl.DataFrame], Floats]:
    return lambda requests: _floats(
        requests.filter(pl.col("output_tokens") > 0).select((pl.col(later) - pl.col(earlier)) / NS_PER_S / pl.col("output_tokens"))
    )


def _weighed(figure: Callable[[pl.DataFrame], Floats], first: int) -> Callable[[pl.DataFrame], Floats]:
    """The figure of each request once for each of its tokens, from token `first` on."""

    def values(requests: pl.DataFrame) -> Floats:
        counted = requests.filter(pl.col("output_tokens") >= first)
        return np.repeat(figure(counted), counted["output_tokens"].to_numpy() - first + 1)

    return values


def _chunk_gaps(requests: pl.DataFrame) -> Floats:
    """Gaps between neighbouring content chunks, pooled."""
    chunks = [np.diff(np.asarray(times)) for times in requests["chunk_ns"].to_list() if len(times) > 1]
    return np.concatenate(chunks) / NS_PER_S if chunks else np.empty(0)


def _token_gaps(requests: pl.DataFrame) -> Floats:
    """The same, and 0 for every further token of a chunk."""
    gaps = _chunk_gaps(requests)
    inside = requests.filter(pl.col("output_tokens").is_not_null()).select((pl.col("output_tokens") - pl.col("chunk_ns").list.len()).clip(0).sum()).item()
    return np.concatenate([gaps, np.zeros(int(inside or 0))])


def _floats(frame: pl.DataFrame) -> Floats:
    return frame.to_series().drop_nulls().to_numpy().astype(np.float64)


def _ttft_of_several(requests: pl.DataFrame) -> Floats:
    return _TTFT(requests.filter(pl.col("output_tokens") > 1))


_TTFT, _E2E = _seconds("first_token_ns", "sent_ns"), _seconds("last_token_ns", "sent_ns")
_ENDS = "last_token_ns"

DEFINITIONS: tuple[Definition, ...] = (
    Definition("vllm", "TTFT", "first chunk with a choice - s", "ttft_s", ROLE_CHUNK, _TTFT),
    Definition("vllm", "TPOT", "(E2EL - TTFT) / (n - 1)", "tpot_s", f"{ROLE_CHUNK}; {FINISH_CHUNK}", _per_gap(_ENDS, "first_token_ns")),
    Definition("vllm", "ITL", "gaps between chunks with a choice, pooled", "icl_s", "it also counts the gaps around chunks without content", _chunk_gaps),
    Definition("vllm", "E2EL", "last chunk with a choice - s", "e2e_s", FINISH_CHUNK, _E2E),
    Definition("guidellm", "TTFT", "f - s", "ttft_s", "its stamps are of the wall clock, taken when a line has been read", _TTFT),
    Definition(
        "guidellm", "ITL", "(l - f) / (n - 1), weighed by n - 1", "tpot_s", "a request of many tokens counts as many times; ours counts each once",
        _weighed(_per_gap(_ENDS, "first_token_ns"), 2),
    ),
    Definition(
        "guidellm", "TPOT", "(l - s) / n, weighed by n", "ntpot_s", "it holds the TTFT: our NTPOT, not our TPOT; long requests weigh more",
        _weighed(_per_token(_ENDS, "sent_ns"), 1),
    ),
    Definition("guidellm", "request latency", "end of the response - s", "e2e_s", USAGE_CHUNK, _seconds("end_ns", "sent_ns")),
    Definition("aiperf", "TTFT", "first non-empty content - s", "ttft_s", "", _TTFT),
    Definition(
        "aiperf", "ITL", "(request latency - TTFT) / (n - 1), one a request", "tpot_s",
        f"{TOKENIZER}; with --per-chunk-usage it divides by n less the tokens of the first chunk", _per_gap(_ENDS, "first_token_ns"),
    ),
    Definition("aiperf", "ICL", "gaps between content chunks, pooled", "icl_s", "", _chunk_gaps),
    Definition("aiperf", "request latency", "last content - s", "e2e_s", "", _E2E),
    Definition("inference-perf", "TTFT", "first non-empty content - s", "ttft_s", "an answer of one token has none", _ttft_of_several),
    Definition("inference-perf", "TPOT", "(l - f) / (n - 1)", "tpot_s", TOKENIZER, _per_gap(_ENDS, "first_token_ns")),
    Definition("inference-perf", "ITL", "gap to the token before, 0 inside a chunk", "icl_s", f"zeros pull it down; {TOKENIZER}", _token_gaps),
    Definition("inference-perf", "request latency", "end of the response - s", "e2e_s", USAGE_CHUNK, _seconds("end_ns", "sent_ns")),
    Definition(
        "inference-perf", "NTPOT", "(end of the response - s) / n", "ntpot_s",
        f"the usage chunk moves its end; an answer without tokens counts as 0; {TOKENIZER}", _per_token("end_ns", "sent_ns"),
    ),
)  # fmt: skip

GOODPUT: dict[str, str] = {
    "vllm": "successful requests within every limit / whole time; an answer of one token has TPOT 0, which passes",
    "aiperf": "requests within every limit / whole time; an answer of one token has no ITL, which fails",
    "guidellm": "successful requests within every limit / its measuring time; an answer of one token has no ITL and is left undetermined: not counted",
    "inference-perf": "successful requests within every limit / whole time; an answer of one token has no TTFT and no TPOT, which fails both limits",
}
"""Whole time: from the first request to the last end; it stands in for guidellm's measuring time too."""


def _within(later: str, earlier: str, tokens: Callable[[], pl.Expr] | None = None, *, least: int = 0) -> Callable[[], pl.Expr]:
    """(later - earlier) in seconds, over a number of tokens; null for answers of fewer tokens than `least`."""

    def seconds() -> pl.Expr:
        value = (pl.col(later) - pl.col(earlier)) / NS_PER_S
        value = value if tokens is None else value / tokens()
        return value if not least else pl.when(pl.col("output_tokens") >= least).then(value)

    return seconds


def _gaps() -> pl.Expr:
    return pl.col("output_tokens") - 1


_ALL_TTFT, _OF_CONTENT, _OF_RESPONSE = _within("first_token_ns", "sent_ns"), _within(_ENDS, "sent_ns"), _within("end_ns", "sent_ns")
_GAP = _within(_ENDS, "first_token_ns", _gaps, least=2)
_LIMITS: dict[str, dict[str, Callable[[], pl.Expr]]] = {
    "vllm": {"ttft_s": _ALL_TTFT, "tpot_s": _GAP, "e2e_s": _OF_CONTENT},
    "guidellm": {"ttft_s": _ALL_TTFT, "tpot_s": _GAP, "e2e_s": _OF_RESPONSE},
    "aiperf": {"ttft_s": _ALL_TTFT, "tpot_s": _GAP, "e2e_s": _OF_CONTENT},
    "inference-perf": {
        "ttft_s": _within("first_token_ns", "sent_ns", least=2), "tpot_s": _GAP, "e2e_s": _OF_RESPONSE,
        "ntpot_s": _within("end_ns", "sent_ns", lambda: pl.col("output_tokens"), least=1),
    },
}  # fmt: skip
"""By tool and limit of our SLO that it has too: what it holds against the limit."""


def of_tool(tool: str) -> list[Definition]:
    """A tool's figures."""
    return [one for one in DEFINITIONS if one.tool == tool]


def recompute(
    tool: str, variant: str, stage: str, repeats: Sequence[pl.DataFrame], limits_s: Mapping[str, float], goodput_per_s: float | None = None
) -> list[Recomputed]:
    """A tool's figures of one stage beside ours. `repeats` holds successful requests with record columns, `limits_s` the SLO by our metric, `goodput_per_s` is
    ours."""
    found, requests = [], pl.concat(repeats)
    for one in of_tool(tool):
        theirs = one.values(requests)
        found.append(Recomputed(variant, stage, one.name, one.ours, _interpolated(theirs), _ours(one.ours, requests), len(theirs)))
    if any(metric in _LIMITS[tool] for metric in limits_s):
        goodput = _goodput(tool, repeats, limits_s)
        nothing: dict[str, float | None] = dict.fromkeys(("mean", "p50", "p99"))
        ours = {**nothing, "mean": goodput_per_s}
        found.append(Recomputed(variant, stage, "goodput", "goodput_per_s", {**nothing, "mean": goodput}, ours, len(requests), _limits_note(tool, limits_s)))
    return found


def _limits_note(tool: str, limits_s: Mapping[str, float]) -> str:
    """By which limits, and which of ours the tool has not."""
    known = [f"{metric} <= {limit:g} s" for metric, limit in limits_s.items() if metric in _LIMITS[tool]]
    unknown = [metric for metric in limits_s if metric not in _LIMITS[tool]]
    return f"goodput by {' and '.join(known)}" + (f"; {tool} has no limit on {' and '.join(unknown)}" if unknown else "")


def _interpolated(values: Floats) -> dict[str, float | None]:
    if not len(values):
        return dict.fromkeys(("mean", "p50", "p99"))
    return {"mean": float(values.mean()), "p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99))}


def _ours(metric: str, requests: pl.DataFrame) -> dict[str, float | None]:
    expression = BY_NAME[metric].per_request
    values = _chunk_gaps(requests) if expression is None else _floats(requests.select(expression()))
    mean = float(values.mean()) if len(values) else None
    return {"mean": mean, "p50": percentile(values, 50), "p99": percentile(values, 99)}


def _goodput(tool: str, repeats: Sequence[pl.DataFrame], limits_s: Mapping[str, float]) -> float | None:
    """Good requests a second by the tool's rule. What has no value for a limit is not good, but for vLLM. None where a limit needs tokens that nobody counted:
    the tool counts them itself."""
    limits = {metric: limit for metric, limit in limits_s.items() if metric in _LIMITS[tool]}
    whole_s = sum(one.select(pl.col("end_ns").max() - pl.col("sent_ns").min()).item() for one in repeats if len(one)) / NS_PER_S
    counts = bool({"tpot_s", "ntpot_s"} & set(limits)) or (tool == "inference-perf" and "ttft_s" in limits)
    if whole_s <= 0 or (counts and any(one["output_tokens"].null_count() for one in repeats)):
        return None
    within = [(_LIMITS[tool][metric]() <= limit).fill_null(tool == "vllm") for metric, limit in limits.items()]
    return float(pl.concat(repeats).select(pl.all_horizontal(within).sum()).item() / whole_s)


def definitions_of_run(tool: str, records: pl.LazyFrame, stages: Sequence[StageRequests], limits_s: Mapping[str, float]) -> list[Recomputed]:
    """Every stage with its usable trials; repeats of a stage are taken together."""
    columns = ("trial", "status", "scheduled_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns", "output_tokens", "prompt_tokens", "chunk_ns")
    found = []
    for one in stages:
        chosen = [
            records.filter((pl.col("trial") == trial) & (pl.col("status") == "ok") & inside).select(columns).collect() for trial, inside in one.trials
        ]  # fmt: skip
        found += recompute(tool, one.variant, one.stage, chosen, limits_s, one.goodput_per_s)
    return found
