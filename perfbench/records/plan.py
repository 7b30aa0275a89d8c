"""plan.json, and `plan` in summary.json: what a run's deployment needs to carry a demand. Prices are in `currency`; replicas are servers."""

from __future__ import annotations

import msgspec

from perfbench.records.estimate import Estimate


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be carried, on the day that is planned for."""

    source: str
    """Where the figures come from, growth included."""
    peak_per_s: float
    mean_per_s: float
    hourly_per_s: list[float]
    """24 mean rates."""
    requests_per_month: float
    input_tokens: float | None = None
    """Means of the demand's own requests; None where it says nothing of lengths."""
    output_tokens: float | None = None


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """What a discrete-event simulation of the replicas predicts at the peak."""

    router: str
    replicas: int
    rate_per_s: float
    stable: bool
    """False: the replicas fall behind, and waits grow as long as the peak lasts."""
    ttft_p95_s: float | None
    tpot_p95_s: float | None
    """None where the replicas fall behind, and where every answer is one token."""
    meets: bool | None
    """The SLO; None without one."""
    in_service_p95: float
    """Requests on one replica, waiting ones included."""


class Autoscaled(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas that follow the hours, against as many all day."""

    replicas_by_hour: list[int]
    usd_per_month: float | None
    saved_share: float
    """Of the replica hours of the fixed plan."""
    starts_per_day: int
    ready_s: float | None
    """From start to ready, as measured; in the price for every start. None for an endpoint."""


class VariantPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one variant needs; every figure is None where `reason` says why there is none."""

    reason: str
    """Why there is no figure; '' where there is one."""
    capacity_per_s: Estimate | None = None
    """Requests a second of one replica at the SLO."""
    capacity_from: str = ""
    replicas: Estimate | None = None
    """For the peak with head-room, without spares; the interval is that of the capacity."""
    spare_replicas: int = 0
    gpus_per_replica: int | None = None
    gpus: int | None = None
    """All replicas, spares included."""
    server_hour_usd: float | None = None
    usd_per_month: Estimate | None = None
    """Of all replicas, spares included, all hours."""
    usd_per_request: float | None = None
    usd_per_million_output_tokens: float | None = None
    usd_per_correct_request: float | None = None
    energy_usd_per_month: float | None = None
    utilisation_by_hour: list[float] = []
    """Of the capacity of all replicas, spares included."""
    utilisation_at_peak_one_down: float | None = None
    """With one replica fewer than planned."""
    autoscaled: Autoscaled | None = None
    simulated: list[Simulated] = []
    warnings: list[str] = []


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Servers that carry all fine-tunes in one of both ways; None where it cannot be said."""

    replicas: int | None
    gpus: int | None
    usd_per_month: float | None
    carries_per_s: float | None
    """The load that so many servers carry at the SLO, with head-room, at this popularity."""
    hit_share: float | None = None
    """Adapters: requests that find theirs on the GPU."""


class BreakEvenPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Both ways for so many fine-tunes of such popularity."""

    fine_tunes: int
    skew: float
    """Zipf exponent."""
    adapters: Deployment
    merged: Deployment


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """N fine-tunes as adapters on shared servers against N merged deployments."""

    points: list[BreakEvenPoint]
    crossings: list[str]
    """A sentence for every skew: from how many fine-tunes adapters need less."""
    rests_on: list[str]
    """Which measurements, and what is assumed."""
    reason: str = ""
    """Why there is no figure; '' where there are some."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The whole plan of a run for one demand."""

    demand: Demand
    head_room: float
    head_room_reason: str
    hours_per_month: float
    currency: str
    variants: dict[str, VariantPlan]
    break_even: BreakEven | None = None
    other_lengths: bool = False
    """The demand's requests are longer or shorter than those that were measured."""
    serve: str | None = None
    """The variant that the run recommends; None where it cannot say."""
    warnings: list[str] = []
