"""summary.json (DESIGN 7): the contract with everything that reads a run."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from perfbench.records.answers import BenchmarkResult, ReferenceCheck
from perfbench.records.estimate import Estimate
from perfbench.records.fidelity import FidelitySummary
from perfbench.records.quality import QualitySummary, Rescored

LatencyMetric = Literal["ttft_s", "ttft_scheduled_s", "tpot_s", "ntpot_s", "e2e_s", "e2e_scheduled_s"]
"""Latencies that an SLO may name; each is defined in analyse/metrics.py."""


class MetricSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A metric over the measured requests of one trial; `ci95_*` is the interval of the mean."""

    unit: str
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    ci95_low: float | None
    ci95_high: float | None
    n: int
    intervals: dict[str, Estimate] = {}
    """Of p50, p90, p95, p99 where there is one: see analyse/intervals.py."""


class AuditCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One check of one trial: what was measured, and where it becomes a doubt."""

    name: str
    verdict: Literal["valid", "suspect", "void", "not checked"]
    """`not checked`: it needs what this trial does not have, and the sentence says what; no doubt by itself."""
    sentence: str
    measured: float | None = None
    unit: str = ""
    suspect_above: float | None = None
    void_above: float | None = None
    """None: it is never void by this check."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a trial may be used. `reasons` holds the sentence of each check that is a doubt, the void ones first."""

    verdict: Literal["valid", "suspect", "void"]
    reasons: list[str]
    checks: list[AuditCheck] = []
    """Every check that had its data, in the order of the audit."""


class SteadySeries(msgspec.Struct, frozen=True, kw_only=True):
    """One series that the steady state is judged by, over slices of the measured window."""

    values: list[float]
    """One a slice, of the whole window."""
    trend_p: float
    """Mann-Kendall over the kept part, two-sided."""
    change: float
    """Sen's slope over the kept part, as a share of the median."""
    cov: float
    """Coefficient of variation over the kept part."""


class SteadyState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a trial's window is in a steady state, and which part of it was kept: see analyse/steady.py."""

    verdict: Literal["steady", "no steady state", "over-saturated", "cannot tell", "not stationary by design"]
    sentence: str
    slices: int = 0
    slice_s: float | None = None
    kept_from_s: float | None = None
    """Since the start of the window as driven; None where nothing could be told, and all is kept."""
    kept_until_s: float | None = None
    cut_s: float = 0.0
    level_shift: str | None = None
    """The sentence, where the TPOT steps from one level to another."""
    series: dict[str, SteadySeries] = {}


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
    intervals: dict[str, Estimate] = {}
    """By the rate's name, where there is one."""


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
    steady: SteadyState | None = None
    """Every other figure is of the part of the window that this one keeps."""


class MemorySummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the variant's server takes."""

    vram_bytes_peak: int | None
    vram_bytes_steady: int | None
    host_rss_bytes_peak: int | None
    kv_cache_tokens: int | None
    ledger: dict[str, int | None]
    """weights_bytes, kv_cache_bytes, lora_bytes, rest_bytes."""
    kv_bytes_per_token: float | None = None
    """By the model's sizes, over all devices."""
    kv_cache_tokens_computed: int | None = None
    """What `kv_cache_tokens` should be by the model's sizes: within 1% where both are right."""
    workload_sequences: float | None = None
    """Sequences of this workload's mean length, prompt and answer, whose keys and values fit at once."""
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
    intervals: dict[str, Estimate] = {}
    """By the price's name: the interval of the rate it is made from, and of the share of right answers."""
    energy_usd_per_request: float | None = None
    """Electricity of a request there, not in the prices above; None without `cost.usd_per_kwh` or an energy counter."""
    server_hour_usd: float | None = None
    """What the prices rest on."""
    gpus_per_server: int | None = None
    """By the parallel flags of serve.args; None for an endpoint. A server on a CPU counts as one."""
    currency: str = "USD"
    """What "usd" in the names stands for."""


class RooflineShare(msgspec.Struct, frozen=True, kw_only=True):
    """How near one closed-loop stage came to the bound of its GPUs (plan/roofline.py): bound / measured mean, 1 being as fast as they can be."""

    gpu: str
    gpus: int
    """That one sequence runs on."""
    stage: str
    streams: int
    tpot_s: float
    tpot_bound_s: float
    tpot_share: float
    ttft_s: float | None
    ttft_bound_s: float
    """Of a prompt alone: waiting for other streams counts as lost."""
    ttft_share: float | None


class StageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of one variant over its usable repeats: every figure is the mean over repeats, with an interval that takes each repeat as a cluster."""

    repeats: int
    metrics: dict[str, dict[str, Estimate]]
    """METRIC -> mean, p50, p90, p95, p99."""
    rates: dict[str, Estimate]


class CapacitySummary(msgspec.Struct, frozen=True, kw_only=True):
    """The highest load that meets the SLO, as a search found it: requests a second (`max_rate`) or streams (`max_concurrency`)."""

    find: Literal["max_rate", "max_concurrency"]
    value: float | None
    """The middle of the gap between a load that meets the SLO and one that misses it; of streams, the number that meets it. None where it has no such end."""
    low: float | None
    """95% interval of the edge: nothing below is likely to miss the SLO; None where no load meets it."""
    high: float | None
    """Nothing above is likely to meet it; None where no load misses it."""
    probes: int
    server_s: float
    """Seconds that the server was driven for the answer, warm-ups and drains included."""
    basis: str
    """The sentence that says which loads decided; or why there is no figure."""
    stage: str | None = None
    """The probe at the highest load that meets the SLO."""
    goodput_per_s: float | None = None
    """Good requests a second in that probe."""
    saturation_per_s: float | None = None
    """What a closed loop of many streams completed a second, the start of a search for a rate."""
    ended: bool = True
    """False where the search was cut off before its answer."""


class UnderLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of one variant in one load stage, held against its idle answers to the same prompts."""

    variant: str
    stage: str
    metric: str
    n: int
    """Prompts answered both ways."""
    idle: float | None = None
    busy: float | None = None
    difference: Estimate | None = None
    """busy - idle."""
    changed: int = 0
    """Prompts whose texts are not equal, whether that matters or not."""
    verdict: Literal["pass", "fail", "inconclusive"]
    reason: str
    n_to_decide: int | None = None


class AtSlo(msgspec.Struct, frozen=True, kw_only=True):
    """The load with the most goodput among those that meet the SLO, on which the prices rest (analyse/cost.py)."""

    stage: str
    """Of the scenario, or a search's probe."""
    goodput_per_s: Estimate


class VariantSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one variant."""

    trials: list[TrialSummary]
    stages: dict[str, StageSummary] = {}
    """By stage; none for a stage without a usable trial."""
    memory: MemorySummary
    cost: CostSummary
    quality: QualitySummary | None
    roofline: list[RooflineShare] = []
    """By closed-loop stage; empty where the GPU or the model's sizes are not known."""
    capacity: CapacitySummary | None = None
    """The highest rate at the SLO; None without a search for it."""
    concurrency: CapacitySummary | None = None
    """The most streams at the SLO; None without a search for it."""
    probes: list[TrialSummary] = []
    """Trials of these searches. Each variant chose its own loads, so they are compared with no other's."""
    at_slo: AtSlo | None = None
    """None without an SLO, or where no load is known to meet it."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """right - left, paired by prompt where both answered it."""

    left: str
    right: str
    metric: str
    stage: str
    """Empty for memory, which a server takes whatever the stage."""
    difference: float | None
    ci95_low: float | None
    ci95_high: float | None
    relative: float | None
    n: int
    verdict: Literal["better", "worse", "same", "cannot tell"]
    n_to_decide: int | None = None
    """Pairs that would tell (80% power), if difference and noise stay as they are and the pairs come from as many more repeats, each with its own start of
    the servers; None where it is told, or where no practical number would do."""
    starts: int | None = None
    """Starts of each server behind it; 0 where both are one server. With 1, the interval allows for what another start would change (analyse/starts.py)."""
    from_length: Estimate | None = None
    """The part of `difference` that comes from answers of another length; None where lengths are not known or do not enter."""
    from_speed: Estimate | None = None
    """The rest: what answers of equal length would differ by. from_length + from_speed = difference."""


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """Which variant to serve; None where the run cannot say."""

    serve: str | None
    reasons: list[str]
    """What decided first; few enough to read at a glance."""
    details: list[str] = []
    """The sentences behind the reasons: each stage with its interval, each quality verdict in full."""


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
    rescored: list[Rescored] = []
    """When the answers were scored again, oldest first."""
    contamination: dict[str, Any] | None = None
    benchmarks: list[BenchmarkResult] = []
    """The second layer, as far as it has been run."""
    under_load: list[UnderLoad] = []
    """Empty where the scenario does not ask for it."""
    sandbox: dict[str, Any] | None = None
    """{level, other_user, leaks, refused}: what held the code that models wrote; None where none was run."""
    not_measured: dict[str, str] = {}
    slo: dict[str, Any] = {}
    fidelity: list[FidelitySummary] = []
    """Each merged variant against the adapter."""
    variations: dict[str, str] = {}
    """Variation -> the variant that it is made of."""
