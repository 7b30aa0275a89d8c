"""What has to be carried: a demand file, strict and frozen, and the rates by hour that follow from it.

    peak_per_s   the busiest moment, alone or with `profile`: 24 weights that say how the day runs
    hourly_per_s the mean rate of each hour of a day
    users        users x requests a day each, spread over the day by `profile`
    trace        the arrivals of a file: the busiest minute is the peak; a trace of a day or more gives the hours, a shorter one makes every hour alike

`growth` multiplies all of it by (1 + percent_per_month / 100)^months. `burst` is what the busiest minute has over the mean of its hour, where the peak
is not given itself. Rates are requests a second; an hour counts from the beginning of the profile or of the trace.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from perfbench.errors import Finding, InputError, ScenarioError
from perfbench.records import Demand
from perfbench.scenario.model import Cost
from perfbench.scenario.read import findings_of, parse_mapping
from perfbench.scenario.strict import NotNegative, Positive, Strict, plain_file
from perfbench.scenario.trace import TraceFormat

HOURS = 24
_HOUR_S = 3600.0
_DAY_S = HOURS * _HOUR_S
_MINUTE_S = 60.0

HEAD_ROOM = 0.2
HEAD_ROOM_REASON = (
    "a fifth of every replica stays free at the peak: for bursts that are shorter than the peak's own measure, for a machine that is slower than the one "
    "measured, and until another one is up"
)

Day = Annotated[tuple[NotNegative, ...], Field(min_length=HOURS, max_length=HOURS, strict=False)]


class Users(Strict):
    """People, and what each asks."""

    count: Annotated[int, Field(ge=0)]
    """How many use it on a day."""
    requests_per_day: NotNegative
    """Each."""


class DemandTrace(Strict):
    """Arrivals that were recorded: docs/traces.md has the formats."""

    path: Annotated[str, AfterValidator(plain_file)]
    """Relative to the demand file."""
    format: TraceFormat | None = None
    """Default: told from the file's first row."""
    rate_scale: Positive = 1.0
    """Multiplies its rate: 10 is ten times as many requests in the same time."""


class Growth(Strict):
    """Compound growth until the day that is planned for."""

    percent_per_month: Annotated[float, Field(gt=-100, allow_inf_nan=False)]
    """Of the month before."""
    months: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """From the demand as it is given to the day that is planned for."""

    @property
    def factor(self) -> float:
        return float((1 + self.percent_per_month / 100) ** self.months)


class FineTunes(Strict):
    """The same demand spread over many fine-tunes: adapters on shared servers against a merged deployment each."""

    counts: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, strict=False)] = (1, 2, 5, 10, 20, 50)
    """So many fine-tunes."""
    skew: Annotated[tuple[NotNegative, ...], Field(min_length=1, strict=False)] = (0.0, 1.0, 1.5)
    """Zipf exponents of their popularity: 0 is alike, 1 gives the k-th a share that falls as 1 / k."""
    max_loras: Annotated[int, Field(ge=1)] | None = None
    """Adapters that one server holds on its GPU at once; default: `max-loras` of the run's serve.args, else vLLM's 1."""
    load_s: NotNegative | None = None
    """To bring one more adapter to the GPU in the place of another; default: as the run shows it, where its load asks for more adapters than `max-loras`.
    Where neither says, nothing is said of more adapters than `max_loras`."""


class DemandFile(Strict):
    """One file: what has to be carried, how safely, and at what price."""

    peak_per_s: NotNegative | None = None
    """Requests a second at the busiest moment."""
    hourly_per_s: Day | None = None
    """Mean requests a second of each of 24 hours."""
    users: Users | None = None
    """Users times requests."""
    trace: DemandTrace | None = None
    """A recorded trace."""
    profile: Day | None = None
    """How a day runs, as 24 weights; with `peak_per_s` and `users`. Without it every hour is alike."""
    burst: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    """The busiest minute over the mean of its hour; with `hourly_per_s` and `users`."""
    growth: Growth | None = None
    """Until the day that is planned for."""
    head_room: Annotated[float, Field(ge=0, lt=1)] = HEAD_ROOM
    """Of every replica's capacity, what stays free at the peak."""
    spare_replicas: Annotated[int, Field(ge=0)] = 1
    """Beyond what the peak needs, so that as many may fail: N+1."""
    hours_per_month: Positive = 730.0
    """For prices a month."""
    cost: Cost | None = None
    """Instead of the scenario's."""
    fine_tunes: FineTunes | None = None
    """The break-even of adapters."""

    @field_validator("hourly_per_s", "profile", mode="after")
    @classmethod
    def _some_demand(cls, value: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        if value is not None and not any(value):
            raise ValueError(f"all of `{info.field_name}` is 0: a demand of zero needs no plan")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("peak_per_s", "hourly_per_s", "users", "trace") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of `peak_per_s`, `hourly_per_s`, `users` and `trace`, got {', '.join(given) or 'none'}")
        if self.profile is not None and given[0] in ("hourly_per_s", "trace"):
            raise ValueError(f"`profile` belongs to `peak_per_s` or `users`; `{given[0]}` says itself how a day runs")
        if self.burst != 1.0 and given[0] in ("peak_per_s", "trace"):
            raise ValueError(f"`burst` belongs to `hourly_per_s` or `users`; `{given[0]}` says itself what the peak is")
        return self


@dataclass(frozen=True)
class TraceArrays:
    """What a trace says of demand, one value a request; read by whoever may read traces (planning.py)."""

    offsets_s: npt.NDArray[np.float64]
    input_tokens: npt.NDArray[np.float64]
    """NaN where the row does not say."""
    output_tokens: npt.NDArray[np.float64]


def read_demand(path: str | Path) -> DemandFile:
    """A demand file; its relative paths become absolute. Raises ScenarioError with every finding at once."""
    file = str(path)
    raw = parse_mapping(file, what="`peak_per_s`, `hourly_per_s`, `users` or `trace`", written_by="docs/sizing.md shows one")
    try:
        return DemandFile.model_validate_json(json.dumps(raw, default=str), context={"folder": str(Path(file).absolute().parent)})
    except ValidationError as error:
        # What two keys must be together has no key of its own: pydantic tells it without a location.
        together = [Finding("", detail["msg"].removeprefix("Value error, ")) for detail in error.errors() if not detail["loc"]]
        raise ScenarioError(file, [*findings_of(error, raw, DemandFile), *together]) from None


def demand_of(given: DemandFile, trace: TraceArrays | None = None) -> Demand:
    """Rates by hour and at the peak on the day that is planned for. `trace` has to be there where the file names one.

    Raises InputError for a demand of zero.
    """
    factor = given.growth.factor if given.growth is not None else 1.0
    hourly, peak, source = _before_growth(given, trace)
    hourly, peak = hourly * factor, peak * factor
    if peak <= 0:
        raise InputError("the demand is zero: there is nothing to plan", hint="correct the demand file: its rate, users or requests are 0")
    grown = f", times {factor:.3g} for growth of {given.growth.percent_per_month:g}% a month over {given.growth.months:g} months" if given.growth else ""
    return Demand(
        source=source + grown, peak_per_s=float(peak), mean_per_s=float(hourly.mean()), hourly_per_s=[float(rate) for rate in hourly],
        requests_per_month=float(hourly.mean()) * 3600 * given.hours_per_month,
        input_tokens=_mean(trace.input_tokens) if trace is not None else None,
        output_tokens=_mean(trace.output_tokens) if trace is not None else None,
    )  # fmt: skip


def _before_growth(given: DemandFile, trace: TraceArrays | None) -> tuple[npt.NDArray[np.float64], float, str]:
    """(rate by hour, peak, where both come from)."""
    profile = np.array(given.profile if given.profile is not None else [1.0] * HOURS)
    alike = "" if given.profile is not None else ", every hour alike"
    if given.peak_per_s is not None:
        return given.peak_per_s * profile / profile.max(), given.peak_per_s, f"a peak of {given.peak_per_s:g} requests/s{alike}"
    if given.hourly_per_s is not None:
        hourly = np.array(given.hourly_per_s)
        return hourly, float(hourly.max()) * given.burst, "rates by hour" + _burst(given)
    if given.users is not None:
        a_day = given.users.count * given.users.requests_per_day
        hourly = a_day * profile / profile.sum() / _HOUR_S
        said = f"{given.users.count:,} users with {given.users.requests_per_day:g} requests a day{alike}"
        return hourly, float(hourly.max()) * given.burst, said + _burst(given)
    assert given.trace is not None  # validation has seen to it
    if trace is None:
        raise ValueError("the demand file names a trace, whose rows were not given")
    return _of_trace(trace, given.trace)


def _burst(given: DemandFile) -> str:
    return f", its busiest minute {given.burst:g} times its busiest hour" if given.burst != 1.0 else ""


def _of_trace(trace: TraceArrays, named: DemandTrace) -> tuple[npt.NDArray[np.float64], float, str]:
    offsets = trace.offsets_s
    span_s = float(offsets[-1] - offsets[0]) if len(offsets) else 0.0
    if span_s <= 0:
        return np.zeros(HOURS), 0.0, f"{Path(named.path).name}, which lasts no time"
    minutes = np.bincount((offsets / _MINUTE_S).astype(np.int64))
    # The last minute is cut off where the trace ends; it may have had more.
    whole = minutes[:-1] if len(minutes) > 1 else minutes
    peak = float(whole.max()) / _MINUTE_S * named.rate_scale
    scaled = f", times {named.rate_scale:g}" if named.rate_scale != 1 else ""
    said = f"{len(offsets):,} requests of {Path(named.path).name} in {_duration(span_s)}{scaled}, the busiest minute being the peak"
    if span_s < _DAY_S:
        return np.full(HOURS, len(offsets) / span_s * named.rate_scale), peak, f"{said}; it lasts less than a day, so every hour is taken to be like it"
    days = int(span_s // _DAY_S)
    inside = offsets[offsets < days * _DAY_S]
    counts = np.bincount((inside % _DAY_S / _HOUR_S).astype(np.int64), minlength=HOURS)
    return counts / (days * _HOUR_S) * named.rate_scale, peak, f"{said}; hours count from its beginning, over {days} whole days"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 2 * _HOUR_S else f"{seconds / _HOUR_S:.1f} hours"


def _mean(values: Sequence[float] | npt.NDArray[np.float64]) -> float | None:
    told = np.asarray(values)[~np.isnan(values)]
    return float(told.mean()) if len(told) else None
