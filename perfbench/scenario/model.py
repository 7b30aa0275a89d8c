"""The words of a scenario: what to serve, how to drive it, what good means and what it costs.

Every model is strict and frozen (`strict`). What a single value must be stands here; what two keys must be together stands in
`combinations`; reading a file, in `read`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from perfbench.records import LatencyMetric
from perfbench.scenario.combinations import DEFAULT_DURATION_S, combination_findings
from perfbench.scenario.output import Output
from perfbench.scenario.quality import Quality
from perfbench.scenario.references import ModelRef
from perfbench.scenario.search import Search, in_full
from perfbench.scenario.strict import URL, Name, NotNegative, Positive, Scalar, Strict
from perfbench.scenario.trace import Trace
from perfbench.scenario.variation import MergeDtype, VariantName, Variation, with_dashes
from perfbench.scenario.workload import AdapterSpread, MixturePart, PromptSource, ResponseFormat

Arrival = Literal["closed", "constant", "poisson", "gamma", "ramp", "step", "spike", "sine", "trace"]


class Models(Strict):
    """The base model, what was made from it, and how a merge is done."""

    base: ModelRef | None = None
    """The model that was fine-tuned."""
    adapter: ModelRef | None = None
    """PEFT LoRA adapter of `base`: the one that is merged, and whose answers are checked."""
    adapters: dict[Name, ModelRef] = {}
    """Further adapters of `base`, hosted beside `adapter` by the same server under these names; `load.adapters` spreads requests over all."""
    merged: ModelRef | None = None
    """An already merged model. Without it, perfbench merges `adapter` into `base` with PEFT."""
    merge_dtype: MergeDtype = "bfloat16"
    """Of the merged weights; the sum itself is taken in float32."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless said here."""


class Endpoint(Strict):
    """A server that already runs and speaks the OpenAI API. It is driven, never started or stopped."""

    url: Annotated[str, Field(pattern=URL)]
    """Up to, not including, `/v1`; `unix:///run/vllm.sock` for a server on a Unix socket (vLLM's `--uds`)."""
    model: str
    """The name it serves the model by."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key. The key itself never stands in a file."""


class Serve(Strict):
    """How vLLM is started. Every variant gets the same arguments; perfbench adds only what makes the variant."""

    args: dict[str, Scalar] = {}
    """vLLM's own flags without the dashes: `max-model-len: 2048`, `enforce-eager: true`."""
    env: dict[str, str] = {}
    """Added to the servers' environment."""
    ready_timeout_s: Positive = 900.0
    """From start to the first real completion."""
    side_by_side: bool = False
    """All servers run at once and repeats alternate between them: drift hits every variant alike. Needs the memory for all. Repeats are then of one start of
    each server, and intervals of differences allow for what another would change; without it, repeats show that themselves."""

    @field_validator("args", mode="after")
    @classmethod
    def _with_dashes(cls, value: dict[str, Scalar]) -> dict[str, Scalar]:
        return with_dashes(value)


class Prompt(Strict):
    """How a data row becomes a request: one way for workload and quality, for every variant."""

    system: str | None = None
    """System message, a template too."""
    user: str = "{{ prompt }}"
    """Jinja template (sandboxed) over the row's columns."""
    api: Literal["chat", "completions"] = "chat"
    """`chat` lets the server apply the model's chat template; `completions` sends system and user as plain text."""


class Decoding(Strict):
    """Sampling settings, the same for every variant."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling."""
    seed: int = 0
    """Sent with every request."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer."""
    response_format: ResponseFormat | None = None
    """Structured outputs, for load and quality."""


class Stage(Strict):
    """One load level: an arrival process, a warm-up and a measured window. Which keys belong to which arrival: `ARRIVAL_KEYS` in combinations.

    closed sends when a response has ended, each stream after its think time. All others are open loop: they send at times fixed beforehand, whatever
    the server does. constant: every 1/rate s. poisson: a homogeneous Poisson process. gamma: a renewal process with gamma-distributed gaps. ramp, step,
    spike, sine: Poisson processes whose rate changes over the window; their warm-up runs at the rate with which the window starts. trace: the times of
    a file."""

    name: Name
    """Stands in every table."""
    arrival: Arrival
    """Who decides when the next request is sent."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """closed: so many requests are kept in flight."""
    think_time_s: NotNegative | None = None
    """closed: from the end of a response to the next request of its stream; default: none."""
    rate_per_s: Positive | None = None
    """Arrivals per second. ramp, step, spike: the rate that it starts with. sine: the mean over a period."""
    burstiness: Positive | None = None
    """gamma: shape of the gaps' distribution, as in vLLM: 1 is Poisson, below 1 burstier, above 1 more even. Squared CV of the gaps = 1 / burstiness."""
    to_rate_per_s: Positive | None = None
    """ramp, step: the rate that it ends with. spike: the rate inside the spike."""
    steps: Annotated[int, Field(ge=2)] | None = None
    """step: so many levels, equally long and equally far apart, from `rate_per_s` to `to_rate_per_s`."""
    spike_at_s: NotNegative | None = None
    """spike: it begins so long after the start of the window."""
    spike_s: Positive | None = None
    """spike: it lasts so long."""
    amplitude: Annotated[float, Field(gt=0, le=1)] | None = None
    """sine: the rate is rate_per_s x (1 + amplitude x sin(2 pi t / period_s)), t from the start of the window."""
    period_s: Positive | None = None
    """sine: length of one period; 86400 is a day."""
    trace: Trace | None = None
    """trace: the file, and the part of it."""
    warmup_s: NotNegative = 5.0
    """Driven like the window, left out of every number."""
    duration_s: Positive = DEFAULT_DURATION_S
    """The measured window. closed: one of less than 30 s goes on, up to 30 s, until each stream has sent two requests in it on average."""
    requests: Annotated[int, Field(ge=1)] | None = None
    """closed, constant, poisson, gamma: the window ends with so many requests, not by time. Open loop: when the next one would be due. closed: when the
    last of them is sent, so that all streams are busy to its end. With several load processes each has its share, and the first to have sent it ends it."""
    drain_s: Positive = 30.0
    """After the window, requests in flight get so long to end."""
    max_in_flight: Annotated[int, Field(ge=1)] = 4096
    """Open loop only: further arrivals are held back and counted."""
    output: Output
    """How long answers are."""
    response_format: ResponseFormat | None = None
    """Structured outputs of this stage, instead of the decoding's."""


class Load(PromptSource):
    """What is driven through each variant: the same prompts, seeds and arrival times for all. Prompts come from exactly one of `data`, `synthetic` and
    `mixture`."""

    mixture: Annotated[tuple[MixturePart, ...], Field(min_length=1)] | None = None
    """Several sources at once: each request is drawn from one of them by weight, in a seeded order that is the same for every variant."""
    adapters: AdapterSpread | None = None
    """Requests of the variant `adapter` over many adapters; without it, all ask for `models.adapter`."""
    stages: tuple[Stage, ...] = ()
    """Load levels, driven in this order. May be left out where there is a search with an `output` of its own."""
    search: tuple[Search, ...] = ()
    """The highest load that meets the SLO, looked for after the stages. `max_rate` or `max_concurrency` alone is short for one search with its defaults."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """Trials of each stage; odd repeats run the variants in reverse order (ABBA)."""
    seed: int = 0
    """Of arrivals, of the order of prompts, and of everything else that is drawn."""
    request_timeout_s: Positive = 120.0
    """A request that takes longer has failed."""
    keep_text: bool = False
    """Store every answer's text with its record."""

    @field_validator("search", mode="before")
    @classmethod
    def _search_in_short(cls, value: Any) -> Any:
        return in_full(value)


class SloLimit(Strict):
    """Exactly one percentile and its limit in seconds. A request is good when it is within; a stage, when its percentile is."""

    p50: Positive | None = None
    p90: Positive | None = None
    p95: Positive | None = None
    p99: Positive | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self._given()) != 1:
            raise ValueError("expected exactly one of p50, p90, p95, p99 with a limit in seconds")
        return self

    def _given(self) -> list[tuple[int, float]]:
        limits = {50: self.p50, 90: self.p90, 95: self.p95, 99: self.p99}
        return [(percentile, limit) for percentile, limit in limits.items() if limit is not None]

    @property
    def percentile(self) -> int:
        return self._given()[0][0]

    @property
    def limit_s(self) -> float:
        return self._given()[0][1]


class Cost(Strict):
    """What serving costs: exactly one of `server_hour_usd` and `gpu_hour_usd`, and where it is yours to pay, the electricity. No price is ever guessed;
    `perfbench prices` shows what providers ask. The names say usd and mean `currency`."""

    server_hour_usd: NotNegative | None = None
    """One server for an hour: its GPUs together, or the machine."""
    gpu_hour_usd: NotNegative | None = None
    """One GPU for an hour; a server takes `tensor-parallel-size` x `pipeline-parallel-size` x `data-parallel-size` of `serve.args`."""
    usd_per_kwh: NotNegative | None = None
    """Electricity, on top of the hour's price: what the energy of a request costs, where the GPUs have an energy counter."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    """Printed beside every price (ISO 4217); nothing is converted."""

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        if (self.server_hour_usd is None) == (self.gpu_hour_usd is None):
            raise ValueError("expected exactly one of `server_hour_usd` (a server with all its GPUs) and `gpu_hour_usd` (one GPU)")
        return self


class Telemetry(Strict):
    """How often the sampler reads."""

    gpu_hz: Positive = 10.0
    """NVML readings a second."""
    host_hz: Positive = 2.0
    """psutil readings a second."""
    server_hz: Positive = 2.0
    """Readings of the server's /metrics a second."""


class Scenario(Strict):
    """One file, one experiment."""

    name: Name
    """Begins the name of every run folder."""
    models: Models = Models()
    """What is served."""
    variants: tuple[VariantName, ...] = ()
    """Which ways of serving to start and measure."""
    variations: dict[Name, Variation] = {}
    """Further variants to start and measure: one of those above with something changed (a sweep over ranks, adapters in use, merge types)."""
    endpoints: dict[Name, Endpoint] = {}
    """Running servers to measure, each a variant by its own name."""
    serve: Serve = Serve()
    """How vLLM is started."""
    prompt: Prompt = Prompt()
    """How a data row becomes a request."""
    decoding: Decoding = Decoding()
    """Sampling settings."""
    load: Load
    """What is driven through every variant."""
    slo: dict[LatencyMetric, SloLimit] = {}
    """Latency limits by metric; docs/metrics.md defines the metrics."""
    quality: Quality | None = None
    """The spot-check; left out, speed is measured alone."""
    cost: Cost | None = None
    """Without it there is no price: none is ever guessed."""
    telemetry: Telemetry = Telemetry()
    """How often the sampler reads."""

    @property
    def variant_names(self) -> tuple[str, ...]:
        """All variants of the run in the order of the file: those we start, then endpoints."""
        return (*self.variants, *self.variations, *self.endpoints)

    @property
    def kinds(self) -> dict[str, VariantName]:
        """Which way of serving each variant that we start is; empty where there are endpoints only."""
        return {**{variant: variant for variant in self.variants}, **{name: variation.of for name, variation in self.variations.items()}}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        findings = combination_findings(self.model_dump())
        if findings:
            raise ValueError("; ".join(str(finding) for finding in findings))
        return self
