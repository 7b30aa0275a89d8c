"""What a run says of itself before and while it runs: plans, servers, models, manifest, journal."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from perfbench.records.quality import Rescored
from perfbench.records.shape import ModelShape

SCHEMA_VERSION = 1


class TrialPlan(msgspec.Struct, frozen=True, kw_only=True):
    """variant x stage x repeat, named `<variant>.<stage>.r<repeat>` with '+' kept. A probe of a search is one too; it is planned while the run goes on."""

    trial: str
    variant: str
    stage: str
    repeat: int
    arrival: str
    search: str | None = None
    """Probes: `max_rate` or `max_concurrency`."""
    probe: int | None = None
    """Probes: their number in the search, from 0."""
    rate_per_s: float | None = None
    """Probes of an open loop."""
    concurrency: int | None = None
    """Probes of a closed loop."""

    @property
    def schedule(self) -> str:
        """Whose arrival times it follows: its stage's, the same for every variant; a probe's are its own."""
        return self.stage if self.search is None else f"{self.variant}.{self.stage}"


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


class ClientFloor(msgspec.Struct, frozen=True, kw_only=True):
    """What the client itself takes on this machine: the same load process against a server that answers at once (perfbench/load/null_server.py)."""

    rate_per_s: float
    """At which it was measured: the highest that the run asks for, as far as a second of it shows."""
    requests: int
    ttft_p50_s: float
    ttft_p99_s: float
    send_lag_p99_s: float


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
    shape: ModelShape | None = None
    """Sizes that memory follows from; None for an adapter, and where the config says too little."""


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
    client_floor: ClientFloor | None = None
    """None where it was not measured."""
    rescored: list[Rescored] = []
    """Oldest first; `scenario` has the quality block of the last one."""


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of journal.jsonl: something that has finished. `data` is the struct that the event names."""

    event: Literal[
        "server_ready", "reference_check", "contamination", "sandbox", "under_load", "quality_finished", "judged", "model_scored", "fidelity_asked",
        "probe_planned", "trial_finished", "trial_skipped", "not_measured", "interrupted", "resumed", "finished", "rescored"
    ]
    t_ns: int
    utc: str
    key: str
    """The trial, variant or server it is about; '' for the whole run."""
    data: dict[str, Any] = {}
