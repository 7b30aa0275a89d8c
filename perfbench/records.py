"""What perfbench writes down: one struct for each kind of row or file in a run folder.

Times are nanoseconds of CLOCK_MONOTONIC on the machine that took them. Not measured is None, never 0.
The structs are the contract between rooms: `load` makes `Record`, `sample` makes `Sample`, `quality` makes
`QualityRecord`, `run` makes `Manifest` and the journal's entries, `analyse` makes `Summary`; `results` stores them all.
A field may be added; to rename or remove one, raise SCHEMA_VERSION.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SCHEMA_VERSION = 1

LatencyMetric = Literal["ttft_s", "ttft_scheduled_s", "tpot_s", "ntpot_s", "e2e_s", "e2e_scheduled_s"]
"""Latencies that an SLO may name; each is defined in analyse/metrics.py."""

RequestStatus = Literal["ok", "failed"]
ErrorKind = Literal["connect", "send", "http", "timeout", "disconnected", "protocol", "server", "cancelled"]
"""connect: no connection. send: the request was not taken. http: a status other than 200. timeout: the scenario's limit.
disconnected: closed before the end. protocol: bytes that are no HTTP or no SSE. server: an error event inside the stream.
cancelled: we ended it (end of the drain, Ctrl-C)."""
Stamp = Literal["kernel", "user"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it happened (DESIGN 7.1)."""

    request_id: str
    trial: str
    variant: str
    worker: int
    prompt_id: str
    scheduled_ns: int
    """When the arrival process wanted it sent. Closed loop: when its stream became free."""
    sent_ns: int | None
    """First byte handed to the kernel; None if it never was."""
    first_token_ns: int | None
    last_token_ns: int | None
    end_ns: int
    """End of the response, or the moment it failed."""
    chunk_ns: list[int]
    """Arrival of each chunk with content or reasoning."""
    chunk_tokens: list[int] | None
    """Tokens in each of these chunks where the server says so, else None."""
    prompt_tokens: int | None
    output_tokens: int | None
    """By the server's usage."""
    cached_tokens: int | None
    status: RequestStatus
    error: ErrorKind | None = None
    error_message: str | None = None
    http_status: int | None = None
    finish_reason: str | None = None
    stamp: Stamp
    coalesced_reads: int = 0
    """Reads that returned more than one chunk: the earlier chunks of such a read carry the stamp of its last segment."""
    bytes_received: int = 0
    output_text: str | None = None
    adapter: str | None = None
    """The adapter that was asked for, where requests of one trial are spread over several."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One telemetry reading. `source` is nvml, host, server or client; `name` carries its unit (`host_rss_bytes`)."""

    t_ns: int
    source: str
    name: str
    value: float
    unit: str
    labels: dict[str, str] = {}


class QualityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One held-out sample answered by one variant."""

    sample_id: str
    variant: str
    prompt: str
    """The messages as sent, as JSON."""
    prompt_sha256: str
    expected: str
    """The expected label, or the expected fields as JSON."""
    output: str | None
    """None when the request failed; `error` then says why."""
    error: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    scores: dict[str, float] = {}
    """Per-sample scores in 0..1, by the names of the task's per-sample metrics."""
    passed: bool
    label: str
    """One of quality.tasks.LABELS: `correct answer`, `invalid JSON`, ..."""
    contaminated: bool | None = None
    """Equal to a training row after normalisation; None when no training data was given."""


class TrialOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the load process says of one finished trial."""

    trial: str
    started_ns: int
    """Start of the warm-up: scheduled times count from here."""
    measure_from_ns: int
    measure_until_ns: int
    """No request is sent after it; the drain follows."""
    ended_ns: int
    requests_ok: int
    requests_failed: int
    held_back: int = 0
    """Open loop: arrivals not sent on time because the limit on requests in flight was reached."""
    client_cpu_s: float | None = None
    """CPU seconds of the load process over the measured window."""
    gc_collections: int = 0
    loop_lag_max_s: float | None = None
    """Longest time between a kernel stamp and our reading of it, inside the window."""
    clock_step_max_s: float | None = None
    """Largest change of the CLOCK_REALTIME to CLOCK_MONOTONIC offset seen during the trial."""
    stamp: Stamp = "kernel"


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One server as it ran: for the manifest and the ledger."""

    name: str
    variants: list[str]
    url: str
    argv: list[str]
    """Empty for an endpoint that we did not start."""
    env: dict[str, str]
    """What perfbench added to the environment; never a key."""
    engine_version: str | None = None
    ready_s: float | None = None
    pid: int | None = None
    log: str | None = None
    kv_cache_tokens: int | None = None
    kv_cache_bytes: int | None = None
    max_model_len: int | None = None


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `models.inspect` reads from a folder: config and safetensors headers only, no weights."""

    path: str
    revision: str | None
    architecture: str | None
    dtype: str | None
    parameters: int | None
    weight_bytes: int | None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_target_modules: list[str] | None = None
    base_name: str | None = None
    sha256: str | None = None
    """Over names, sizes and content heads of the weight files: tells two models apart, cheaply."""


class ReferenceCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How probable the reference finds the tokens that a server answered with, for one variant."""

    variant: str
    verdict: Literal["pass", "fail", "skipped"]
    reason: str
    prompts: int = 0
    tokens: int = 0
    mean_logprob: float | None = None
    worst_logprob: float | None = None
    top1_share: float | None = None
    """Share of served tokens that are the reference's own first choice."""
    examples: list[dict[str, str]] = []
    """[{prompt, served, reference}]: texts side by side."""


class TrialPlan(msgspec.Struct, frozen=True, kw_only=True):
    """variant x stage x repeat, named `<variant>.<stage>.r<repeat>` with '+' kept."""

    trial: str
    variant: str
    stage: str
    repeat: int
    arrival: str


class TraceUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage takes from its trace, and what had to be changed for it."""

    path: str
    format: str
    requests: int
    """That fall into the stage, warm-up included."""
    left_out: int
    """Asked for no token in or out, so that they cannot be sent."""
    context_tokens: int | None
    """Prompt and answer were made to fit in so many; None where nobody said."""
    clipped_prompts: int
    clipped_answers: int
    lengthened_prompts: int = 0
    """Shorter than the chat template alone, which is what was sent."""
    shares_prefixes: bool
    """Some prompts begin with the same block, so that hits in the prefix cache are asked for."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything another person needs to repeat the run."""

    schema_version: int
    run_id: str
    scenario_name: str
    scenario: dict[str, Any]
    """As resolved: defaults filled in, paths absolute."""
    scenario_file: str | None
    scenario_text: str
    command: list[str]
    started_utc: str
    perfbench_version: str
    versions: dict[str, str]
    hardware: dict[str, Any]
    git: dict[str, str] | None
    hashes: dict[str, str]
    """sha256 of prompts, template, decoding, quality data: equal hashes make variants and runs comparable."""
    models: dict[str, ModelInfo]
    trials: list[TrialPlan]
    not_measured: dict[str, str] = {}
    """What this machine cannot measure, and why: {'vram_bytes': 'no NVML library'}."""
    traces: dict[str, TraceUse] = {}
    """By stage."""


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of journal.jsonl: something that has finished. `data` is the struct that the event names."""

    event: Literal[
        "server_ready", "reference_check", "contamination", "quality_finished", "trial_finished", "not_measured", "interrupted", "resumed", "finished"
    ]
    t_ns: int
    utc: str
    key: str
    """The trial, variant or server it is about; '' for the whole run."""
    data: dict[str, Any] = {}


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number with its interval. `ci95_*` is None where n is too small for one."""

    value: float | None
    ci95_low: float | None = None
    ci95_high: float | None = None


class MetricSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A metric over the measured requests of one trial; the interval is of the mean."""

    unit: str
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    ci95_low: float | None
    ci95_high: float | None
    n: int


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a trial may be used. `reasons` holds one sentence for each check that is not valid."""

    verdict: Literal["valid", "suspect", "void"]
    reasons: list[str]


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Measured requests of one trial."""

    ok: int
    failed: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Rates over the measured window, by requests that ended in it."""

    requests_per_s: float | None
    output_tokens_per_s: float | None
    goodput_per_s: float | None
    """None where the scenario has no SLO."""


class AdapterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one adapter got of a trial whose requests were spread over several."""

    requests: RequestCounts
    metrics: dict[str, MetricSummary]
    """Those of a request; gaps between chunks and rates are known for all adapters together only."""


class TrialSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One trial as analysed."""

    stage: str
    repeat: int
    arrival: str
    audit: Audit
    requests: RequestCounts
    metrics: dict[str, MetricSummary]
    rates: Rates
    slo: dict[str, Any] | None = None
    """{met: bool|null, limits: {METRIC: {percentile, limit, measured, met}}}; None where the scenario has no SLO."""
    adapters: dict[str, AdapterSummary] = {}
    """By the adapter that was asked for, the most asked first; empty where a trial asks for one model."""


class MemorySummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the variant's server takes."""

    vram_bytes_peak: int | None
    vram_bytes_steady: int | None
    host_rss_bytes_peak: int | None
    kv_cache_tokens: int | None
    ledger: dict[str, int | None]
    """weights_bytes, kv_cache_bytes, lora_bytes, rest_bytes."""
    shared_with: list[str] = []
    """Other variants hosted by the same server: its memory is theirs too."""


class CostSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a request costs, and the sentence it rests on."""

    usd_per_request: float | None
    usd_per_million_output_tokens: float | None
    usd_per_correct_request: float | None
    usd_per_request_raw: float | None
    """At raw throughput, SLO ignored."""
    basis: str
    """The sentence that says at which stage, rate and price; or why there is no figure."""


class QualitySummary(msgspec.Struct, frozen=True, kw_only=True):
    """The spot-check of one variant, decided."""

    verdict: Literal["pass", "fail", "inconclusive", "reference"]
    """`reference` for the base variant, which the others are held against."""
    reason: str
    n: int
    metrics: dict[str, Estimate]
    labels: dict[str, int]
    regressions: int | None = None
    """Samples that base passes and this variant does not."""
    improvements: int | None = None
    confusion: dict[str, dict[str, int]] | None = None
    metric: str | None = None
    """The metric that decides."""
    difference: Estimate | None = None
    """variant - base in that metric, over the samples that count."""
    mcnemar_p: float | None = None
    """Exact, two-sided; None where the metric is no share of samples. Above 0.05 does not mean equal."""
    n_to_decide: int | None = None
    """Samples that would decide an inconclusive verdict; None where it is decided, or where no number would do."""
    without_contaminated: dict[str, Estimate] | None = None
    """`metrics` without the samples that also stand in the training text; None when no training data was given."""


class VariantSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one variant."""

    trials: list[TrialSummary]
    memory: MemorySummary
    cost: CostSummary
    quality: QualitySummary | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """right - left, paired by prompt where both answered it."""

    left: str
    right: str
    metric: str
    stage: str
    difference: float | None
    ci95_low: float | None
    ci95_high: float | None
    relative: float | None
    n: int
    verdict: Literal["better", "worse", "same", "cannot tell"]


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """Which variant to serve; None where the run cannot say."""

    serve: str | None
    reasons: list[str]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """summary.json (DESIGN 7): the contract with everything that reads a run."""

    schema_version: int
    run_id: str
    scenario: str
    valid: bool
    variants: dict[str, VariantSummary]
    comparisons: list[Comparison]
    recommendation: Recommendation
    plan: dict[str, Any] | None
    reference: list[ReferenceCheck] = []
    contamination: dict[str, Any] | None = None
    not_measured: dict[str, str] = {}
    slo: dict[str, Any] = {}
