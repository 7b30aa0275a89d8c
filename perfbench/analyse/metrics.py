"""The metric table: every metric once, with name, unit, formula, meaning, source and the rule for "not measured".

A latency or length of one request is a Polars expression over the columns of a record (DESIGN 7.1), so that a table of a million requests is
one pass. Rates, cost, energy and memory are not properties of a request: their formula stands here and `computed_in` names the code.
`metrics_markdown` writes docs/metrics.md from the table. Symbols: `sch` scheduled, `s` first byte handed to the kernel, `f` and `l` arrival
of the first and last chunk with content or reasoning, `n` output tokens by the server's usage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class Metric:
    """One metric. `per_request` gives its expression over record columns, in `unit`; `computed_in` names the code where there is none."""

    name: str
    unit: str
    formula: str
    meaning: str
    better: Literal["lower", "higher", "neither"]
    source: str
    """Where the figure is read, and who defined it so."""
    none_when: str
    per_request: Callable[[], pl.Expr] | None = None
    computed_in: str | None = None

    def describe(self) -> dict[str, str]:
        """The row as plain text, for people and for JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "formula": self.formula,
            "meaning": self.meaning,
            "better": self.better,
            "source": self.source,
            "none_when": self.none_when,
        }


def _seconds(later: str, earlier: str) -> Callable[[], pl.Expr]:
    return lambda: (pl.col(later) - pl.col(earlier)) / NS_PER_S


def _tpot() -> pl.Expr:
    gaps = pl.col("output_tokens") - 1
    return pl.when(gaps > 0).then((pl.col("last_token_ns") - pl.col("first_token_ns")) / NS_PER_S / gaps)


def _ntpot() -> pl.Expr:
    tokens = pl.col("output_tokens")
    return pl.when(tokens > 0).then((pl.col("last_token_ns") - pl.col("sent_ns")) / NS_PER_S / tokens)


_STAMPS = "kernel receive stamps (SO_TIMESTAMPNS)"
_USAGE = "the server's usage"
_FAILED = "the request failed"

METRICS: tuple[Metric, ...] = (
    Metric(
        "ttft_s", "s", "f - s", "Time to first token: from sending to the first non-empty content or reasoning. A role-only chunk is not a token.",
        "lower", f"{_STAMPS}; MLPerf Inference names it TTFT", f"{_FAILED}, or sent no content", _seconds("first_token_ns", "sent_ns"),
    ),
    Metric(
        "ttft_scheduled_s", "s", "f - sch", "TTFT from the moment the arrival process wanted the request sent: waiting in the client is not hidden. "
        "The headline of open-loop stages.", "lower", f"{_STAMPS}; MLPerf Inference, server scenario", f"{_FAILED}, or sent no content",
        _seconds("first_token_ns", "scheduled_ns"),
    ),
    Metric(
        "tpot_s", "s", "(l - f) / (n - 1)", "Time per output token after the first; every request counts the same, whatever its length.", "lower",
        f"{_STAMPS} and {_USAGE}; MLPerf Inference names it TPOT", f"{_FAILED}, n = 1, or no usage", _tpot,
    ),
    Metric(
        "ntpot_s", "s", "(l - s) / n", "Normalised time per output token: the whole request, spread over its tokens.", "lower",
        f"{_STAMPS} and {_USAGE}; the normalised latency of Orca and vLLM", f"{_FAILED}, n = 0, or no usage", _ntpot,
    ),
    Metric(
        "icl_s", "s", "gap between neighbouring content chunks", "Inter-chunk latency, pooled over all gaps of all requests. A chunk may hold several "
        "tokens, so this is not the inter-token latency; long requests weigh more.", "lower", _STAMPS, f"{_FAILED}, or had fewer than 2 chunks",
        computed_in="analyse/trials.py",
    ),
    Metric(
        "e2e_s", "s", "l - s", "End to end: from sending to the last content. The usage chunk does not move the end.", "lower", _STAMPS,
        f"{_FAILED}, or sent no content", _seconds("last_token_ns", "sent_ns"),
    ),
    Metric(
        "e2e_scheduled_s", "s", "l - sch", "End to end from the scheduled time.", "lower", _STAMPS, f"{_FAILED}, or sent no content",
        _seconds("last_token_ns", "scheduled_ns"),
    ),
    Metric(
        "send_lag_s", "s", "s - sch", "How late the client sent: the audit's measure of the client, not of the server.", "lower",
        "the client's clock around the send", "nothing was sent", _seconds("sent_ns", "scheduled_ns"),
    ),
    Metric(
        "prompt_tokens", "tokens", "prompt tokens", "Length of the prompt as the server counted it, chat template included.", "neither", _USAGE,
        f"{_FAILED}, or no usage", lambda: pl.col("prompt_tokens").cast(pl.Float64),
    ),
    Metric(
        "output_tokens", "tokens", "n", "Length of the answer as the server counted it.", "neither", _USAGE, f"{_FAILED}, or no usage",
        lambda: pl.col("output_tokens").cast(pl.Float64),
    ),
    Metric(
        "requests_per_s", "1/s", "successful requests that ended in the window / window", "Throughput in requests.", "higher", "records",
        "the window is missing", computed_in="analyse/trials.py",
    ),
    Metric(
        "output_tokens_per_s", "tokens/s", "output tokens of successful requests that ended in the window / window", "Throughput in tokens.", "higher",
        f"records and {_USAGE}", "a request that ended in the window has no usage", computed_in="analyse/trials.py",
    ),
    Metric(
        "goodput_per_s", "1/s", "requests that meet every SLO and ended in the window / window", "Throughput that counts only good requests. Errors and "
        "time-outs are bad; a request with n = 1 has no TPOT to miss.", "higher", "records; DistServe (OSDI 2024) defines goodput so",
        "the scenario has no SLO, or it names a metric that the server's usage does not allow", computed_in="analyse/slo.py",
    ),
    Metric(
        "failed_share", "share", "requests that were not answered / requests scheduled in the window", "Share of requests that failed: errors, time-outs, "
        "and what the end of the drain cut off.", "lower", "records", "no request was scheduled in the window", computed_in="analyse/run_failures.py",
    ),
    Metric(
        "usd_per_request", "USD", "server_hour_usd / 3600 / goodput_per_s", "Price of a good request at the stage with the most goodput that meets the SLO.",
        "lower", "the scenario's price", "no price, or no stage meets the SLO", computed_in="analyse/cost.py",
    ),
    Metric(
        "usd_per_million_output_tokens", "USD", "1e6 x usd_per_request / mean n of good requests", "Price of tokens in good requests there.", "lower",
        "the scenario's price", "as usd_per_request, or no usage", computed_in="analyse/cost.py",
    ),
    Metric(
        "usd_per_correct_request", "USD", "usd_per_request / share of held-out samples passed", "Price of an answer that is in time and right.", "lower",
        "the scenario's price and the quality check", "as usd_per_request, or no quality check, or no sample passed", computed_in="analyse/cost.py",
    ),
    Metric(
        "usd_per_request_raw", "USD", "server_hour_usd / 3600 / requests_per_s", "Price of a request at the highest throughput, whatever its latency.", "lower",
        "the scenario's price", "no price, or no request ended", computed_in="analyse/cost.py",
    ),
    Metric(
        "energy_usd_per_request", "USD", "usd_per_kwh x energy_j_per_request / 3.6e6", "Electricity of a request where the price of a request is taken, "
        "not contained in it.", "lower", "the scenario's price of a kWh and the energy counter", "no price of a kWh, or no energy counter",
        computed_in="analyse/cost.py",
    ),
    Metric(
        "energy_j_per_request", "J", "NVML energy over the window / successful requests that ended in it", "Energy of the server's GPUs per request.", "lower",
        "NVML total energy counter", "the GPU has no energy counter, or there is no GPU", computed_in="analyse/trials.py",
    ),
    Metric(
        "vram_bytes", "bytes", "NVML memory of the server's processes, summed over devices", "GPU memory. Peak: the largest reading while the server ran. "
        "Steady: the median over measured windows.", "lower", "NVML", "there is no GPU, or NVML does not say per process", computed_in="analyse/memory.py",
    ),
    Metric(
        "host_rss_bytes", "bytes", "resident memory summed over the server's process tree", "Host memory. Pages that processes share count once for each; on a "
        "CPU server this holds weights and KV cache, and is never called VRAM.", "lower", "psutil", "the server is an endpoint that we did not start",
        computed_in="analyse/memory.py",
    ),
    Metric(
        "kv_cache_tokens", "tokens", "as the engine says", "Tokens that fit in the KV cache: prompts and answers of all sequences together.", "higher",
        "the engine's log and /metrics (vllm:cache_config_info)", "the engine does not say", computed_in="analyse/memory.py",
    ),
    Metric(
        "kv_bytes_per_token", "bytes", "2 x layers x key-value heads x head size x bytes of the cache's dtype", "Keys and values of a token, on all devices.",
        "lower", "the model's config (plan/footprint.py)", "an endpoint, or an unknown architecture", computed_in="analyse/ledger.py",
    ),
    Metric(
        "kv_cache_tokens_computed", "tokens", "kv_cache_bytes / bytes of a block x tokens of a block", "What kv_cache_tokens should be by the model's sizes.",
        "higher", "plan/footprint.py", "the engine does not say its kv_cache_bytes, or the sizes are not known", computed_in="analyse/ledger.py",
    ),
    Metric(
        "workload_sequences", "sequences", "KV cache / what a sequence of the workload's mean length takes", "Sequences of this workload that "
        "fit in the KV cache at once.", "higher", "plan/footprint.py and the server's usage", "the same, or no request was answered with usage",
        computed_in="analyse/ledger.py",
    ),
    Metric(
        "weights_bytes", "bytes", "size of the files x bytes of the served dtype / bytes of theirs", "Part of the memory ledger: the weights as served.",
        "lower", "headers of the files served", "quantised on loading, a dtype that the engine chooses, or an endpoint", computed_in="analyse/memory.py",
    ),
    Metric(
        "kv_cache_bytes", "bytes", "as the engine says", "Part of the memory ledger: what the engine reserves for the KV cache.", "neither", "the engine's log",
        "the engine does not say", computed_in="analyse/memory.py",
    ),
    Metric(
        "lora_bytes", "bytes", "adapter's weights x reserved rank / its rank x slots", "Part of the memory ledger: the engine's LoRA slots, a lower bound.",
        "lower", "the adapter's config, --max-lora-rank and --max-loras", "an endpoint, or the adapter is not known", computed_in="analyse/memory.py",
    ),
    Metric(
        "rest_bytes", "bytes", "peak - weights_bytes - kv_cache_bytes - lora_bytes", "Part of the memory ledger: activations, code, everything else.", "lower",
        "the parts above", "a part is not known, or is reserved and not resident", computed_in="analyse/memory.py",
    ),
    Metric(
        "server_hour_usd", "USD", "cost.server_hour_usd, or cost.gpu_hour_usd x gpus_per_server", "Price of the server's hour, of which every price is made.",
        "lower", "the scenario's price", "no price, or an endpoint whose GPUs are not known", computed_in="analyse/cost.py",
    ),
    Metric(
        "gpus_per_server", "GPUs", "tensor x pipeline x data parallel", "GPUs that one server takes.", "lower", "the server's flags",
        "the server is an endpoint that we did not start", computed_in="analyse/cost.py",
    ),
)  # fmt: skip

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
PER_REQUEST: tuple[str, ...] = tuple(metric.name for metric in METRICS if metric.per_request is not None)


def per_request_columns() -> list[pl.Expr]:
    """One expression for each metric of a request, named after it. Of a failed request only the send lag is a measurement."""
    answered = pl.col("status") == "ok"
    return [
        (metric.per_request() if metric.name == "send_lag_s" else pl.when(answered).then(metric.per_request())).alias(metric.name)
        for metric in METRICS
        if metric.per_request is not None
    ]


def metrics_markdown() -> str:
    """docs/metrics.md."""
    head = """# Metrics

Made from the table in `perfbench/analyse/metrics.py`; do not edit (`perfbench metrics > docs/metrics.md`).

`sch` scheduled, `s` first byte handed to the kernel, `f` and `l` arrival of the first and last chunk with content or reasoning, `n` output tokens by
the server's usage. Latencies are of requests *scheduled* in the measured window, rates of requests that *ended* in it (`perfbench/analyse/window.py`
says why), of its steady part where that can be told. A percentile is the smallest measured value that at least so many percent of the values do not exceed;
it is left out where fewer than one value can be expected above it (p99 needs 100 requests). Intervals, steady state and audit:
[statistics.md](statistics.md). Not measured is None, prints as a dash, and is never 0.

| name | unit | formula | meaning | better | source | None when |
|---|---|---|---|---|---|---|
"""
    return head + "".join("| " + " | ".join(_cell(text) for text in metric.describe().values()) + " |\n" for metric in METRICS)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

SHORT_NAMES = {
    "ttft_s": "TTFT", "ttft_scheduled_s": "TTFT (scheduled)", "tpot_s": "TPOT", "icl_s": "ICL", "ntpot_s": "NTPOT", "e2e_s": "E2E",
    "e2e_scheduled_s": "E2E (scheduled)", "send_lag_s": "send lag", "output_tokens_per_s": "output tokens/s", "requests_per_s": "requests/s",
    "goodput_per_s": "goodput", "usd_per_request": "price per request", "usd_per_million_output_tokens": "price per 1M output tokens",
    "usd_per_correct_request": "price per correct request", "energy_j_per_request": "energy per request", "failed_share": "failed",
    "vram_bytes": "VRAM", "host_rss_bytes": "host memory",
}  # fmt: skip


def metric_label(name: str) -> str:
    """The short name that people say; a name without one, with spaces."""
    return SHORT_NAMES.get(name, name.replace("_", " "))


def paired_things(name: str) -> str:
    """What `n` counts where two variants or two runs are held against each other."""
    if name in ("vram_bytes", "host_rss_bytes", "energy_j_per_request"):
        return "repeats"
    if name == "failed_share":
        return "requests of each run"
    if name in BY_NAME and BY_NAME[name].per_request is None:
        return "parts of windows"
    return "paired requests" if name in BY_NAME else "samples"
