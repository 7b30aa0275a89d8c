"""From a run folder to its Summary: reads manifest, journal, records, telemetry and quality, writes nothing.

Works on what is there. A variant without finished trials has none; without quality, telemetry, price or SLO the figures that need them are None, and a
sentence says why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import msgspec

from perfbench.analyse.answers import answers_of, busy_and_idle, decided
from perfbench.analyse.audit import AuditInput, audit
from perfbench.analyse.capacity import capacities, usable
from perfbench.analyse.compare import compare
from perfbench.analyse.cost import StageResult, best_at_slo, cost_summary, edge_results, stage_results
from perfbench.analyse.definitions import Recomputed, StageRequests, definitions_of_run
from perfbench.analyse.experiment import Experiment, experiment_of
from perfbench.analyse.fidelity import fidelity
from perfbench.analyse.memory import memory_summary
from perfbench.analyse.memory_differences import MemoryReadings
from perfbench.analyse.recommend import recommend
from perfbench.analyse.slo import slo_result
from perfbench.analyse.stages import rate_together, stage_summaries
from perfbench.analyse.steady import kept, steady_state
from perfbench.analyse.telemetry import Telemetry
from perfbench.analyse.trials import AnalysedTrial, adapter_summaries, dependence_of, energy_summary, metric_summaries, rates, request_counts
from perfbench.analyse.window import read_requests, scheduled_in_window, server_starts, trial_outcomes
from perfbench.records import (
    SCHEMA_VERSION,
    AtSlo,
    CapacitySummary,
    Estimate,
    Manifest,
    QualityRecord,
    ReferenceCheck,
    ServerInfo,
    Summary,
    TrialOutcome,
    TrialPlan,
    TrialSummary,
    VariantSummary,
)
from perfbench.results import RunFolder


def summarise(folder: RunFolder) -> Summary:
    """Analyse a run. Raises RunFolderError for a manifest that cannot be read."""
    manifest = folder.manifest()
    experiment = experiment_of(manifest)
    telemetry = Telemetry.of(folder)
    servers = {name: msgspec.convert(data, ServerInfo) for name, data in folder.finished("server_ready").items()}
    by_variant = {variant: server for server in servers.values() for variant in server.variants}
    every = analyse_trials(folder, manifest, experiment, telemetry, by_variant)
    # Each variant chose the loads of its own probes, so they are no stage in which variants can be compared.
    trials, probes = [trial for trial in every if trial.plan.search is None], [trial for trial in every if trial.plan.search is not None]
    found = {variant: capacities(folder, variant, experiment, _of(variant, probes)) for variant in experiment.variants}
    quality = answers_of(folder, experiment)
    results = {
        variant: [*stage_results(_of(variant, trials), experiment), *edge_results(_of(variant, probes), found[variant], experiment)]
        for variant in experiment.variants
    }
    at_slo = {variant: best_at_slo(results[variant]) for variant in experiment.variants}
    variants = {
        variant: _variant(
            variant, folder=folder, trials=trials, quality=quality, experiment=experiment, telemetry=telemetry, servers=by_variant, manifest=manifest,
            probes=_of(variant, probes), found=found[variant], results=results[variant],
        )
        for variant in experiment.variants
    }
    comparisons = compare(trials, experiment, MemoryReadings(trials, telemetry, by_variant))
    reference = [msgspec.convert(data, ReferenceCheck) for data in folder.finished("reference_check").values()]
    faithful = fidelity(folder, manifest, experiment, quality)
    under_load = busy_and_idle(folder, experiment)
    return Summary(
        schema_version=SCHEMA_VERSION,
        run_id=manifest.run_id,
        scenario=manifest.scenario_name,
        valid=is_valid(manifest, trials, reference, folder.finished("trial_skipped"), _searched(experiment, probes, found)),
        variants=variants,
        comparisons=comparisons,
        recommendation=recommend(variants, comparisons, reference, at_slo, faithful, under_load),
        plan=None,
        reference=reference,
        rescored=manifest.rescored,
        contamination=next(iter(folder.finished("contamination").values()), None),
        benchmarks=folder.benchmarks(),
        under_load=under_load,
        sandbox=next(iter(folder.finished("sandbox").values()), None),
        not_measured=not_measured(folder, manifest),
        slo={metric: {"percentile": limit.percentile, "limit_s": limit.limit_s} for metric, limit in experiment.slo.items()},
        fidelity=faithful,
        variations=experiment.variations,
    )


def recomputed(folder: RunFolder, tool: str) -> list[Recomputed]:
    """The run's stages by another tool's formulas, over the requests that our own figures are of."""
    manifest = folder.manifest()
    experiment = experiment_of(manifest)
    servers = {name: msgspec.convert(data, ServerInfo) for name, data in folder.finished("server_ready").items()}
    by_variant = {variant: server for server in servers.values() for variant in server.variants}
    trials = analyse_trials(folder, manifest, experiment, Telemetry.of(folder), by_variant)
    usable = [trial for trial in trials if trial.usable and trial.plan.search is None]
    stages = [
        _stage_requests(variant, stage, found)
        for stage in experiment.stages for variant in experiment.variants
        if (found := [trial for trial in usable if (trial.plan.variant, trial.plan.stage) == (variant, stage)])
    ]  # fmt: skip
    return definitions_of_run(tool, folder.records(), stages, {metric: limit.limit_s for metric, limit in experiment.slo.items()})


def _stage_requests(variant: str, stage: str, trials: Sequence[AnalysedTrial]) -> StageRequests:
    chosen = [(trial.plan.trial, scheduled_in_window(trial.outcome)) for trial in trials]
    goodput = rate_together("goodput_per_s", trials).value
    return StageRequests(variant, stage, chosen, goodput)


def not_measured(folder: RunFolder, manifest: Manifest) -> dict[str, str]:
    """What nobody could read, each with its reason once: what was known before the run, what the samplers said at their end, and trials left out."""
    said = dict(manifest.not_measured)
    said |= {trial: data["reason"] for trial, data in folder.finished("trial_skipped").items()}
    for reasons in folder.finished("not_measured").values():
        said |= reasons
    return said


def is_valid(
    manifest: Manifest, trials: Sequence[AnalysedTrial], reference: Sequence[ReferenceCheck], skipped: Collection[str] = (), searched: Sequence[bool] = ()
) -> bool:
    """Whether the run may be used as a whole: every planned trial has finished (or was left out for a reason), none is void, every search has an answer
    that may be used (`searched`), and the reference calls no answer nonsense."""
    finished = {trial.plan.trial for trial in trials if trial.usable}
    planned = {plan.trial for plan in manifest.trials} - set(skipped)
    something = bool(finished or searched)
    return something and finished >= planned and all(searched) and all(check.verdict != "fail" for check in reference)


def _searched(experiment: Experiment, probes: Sequence[AnalysedTrial], found: Mapping[str, Sequence[CapacitySummary]]) -> list[bool]:
    """For each variant and search whether its answer may be used; a search that never began has none."""
    return [
        any(one.find == search.find and usable(one, _of(variant, probes)) for one in found[variant])
        for variant in experiment.variants for search in experiment.search
    ]  # fmt: skip


def analyse_trials(
    folder: RunFolder, manifest: Manifest, experiment: Experiment, telemetry: Telemetry, servers: Mapping[str, ServerInfo]
) -> list[AnalysedTrial]:
    """All finished trials in the order of the plan, then the probes of searches."""
    outcomes, starts = trial_outcomes(folder), server_starts(folder)
    requests = read_requests(folder, outcomes)
    analysed = []
    for plan in (*manifest.trials, *folder.probes()):
        if plan.trial not in outcomes:
            continue
        stage, driven = experiment.stage_of(plan), outcomes[plan.trial]
        steady = steady_state(stage, driven, requests[plan.trial])
        given = AuditInput(
            trial=plan.trial,
            stage=stage,
            driven=driven,
            outcome=kept(driven, steady) if plan.search is None else driven,
            steady=steady,
            requests=requests[plan.trial],
            telemetry=telemetry,
            server=servers[plan.variant].name if plan.variant in servers else None,
            cores=_cores(manifest),
            shares_prefix=experiment.shares_prefix or (plan.stage in manifest.traces and manifest.traces[plan.stage].shares_prefixes),
            floor=manifest.client_floor,
        )
        analysed.append(replace(_trial(folder, plan, given, experiment), start=starts.get(plan.trial)))
    return analysed


def _trial(folder: RunFolder, plan: TrialPlan, given: AuditInput, experiment: Experiment) -> AnalysedTrial:
    outcome, requests = given.outcome, given.requests
    alike = dependence_of(requests, outcome, plan.arrival)
    metrics = metric_summaries(folder, plan.trial, requests, outcome, alike)
    devices = given.telemetry.devices_of(given.server) if given.server is not None else []
    joules = given.telemetry.growth("energy_j", outcome, devices=devices) if devices else None
    energy = energy_summary(joules, requests, outcome)
    summary = TrialSummary(
        stage=plan.stage,
        repeat=plan.repeat,
        arrival=plan.arrival,
        audit=audit(given),
        requests=request_counts(requests, outcome),
        metrics=metrics if energy is None else {**metrics, "energy_j_per_request": energy},
        rates=rates(requests, outcome, experiment.slo, alike),
        slo=slo_result(requests.filter(scheduled_in_window(outcome)), experiment.slo),
        adapters=adapter_summaries(requests, outcome, alike),
        steady=given.steady,
    )
    return AnalysedTrial(plan, outcome, requests, summary)


def _cores(manifest: Manifest) -> int | None:
    """Logical CPUs of the machine that ran client and servers, over which the sampler's machine_cpu_s counts."""
    cores = (manifest.hardware.get("cpu") or {}).get("threads")
    return cores if isinstance(cores, int) else None


def _of(variant: str, trials: Sequence[AnalysedTrial]) -> list[AnalysedTrial]:
    return [trial for trial in trials if trial.plan.variant == variant]


def _lengths(trials: Sequence[AnalysedTrial]) -> list[int]:
    """Tokens of every answered request, prompt and answer, where the server told both."""
    return [length for trial in trials for length in (trial.requests["prompt_tokens"] + trial.requests["output_tokens"]).drop_nulls().cast(int).to_list()]


def _variant(
    variant: str,
    *,
    folder: RunFolder,
    trials: Sequence[AnalysedTrial],
    quality: Mapping[str, Sequence[QualityRecord]],
    experiment: Experiment,
    telemetry: Telemetry,
    servers: Mapping[str, ServerInfo],
    manifest: Manifest,
    probes: Sequence[AnalysedTrial],
    found: Sequence[CapacitySummary],
    results: Sequence[StageResult],
) -> VariantSummary:
    server, mine = servers.get(variant), _of(variant, trials)
    hosted = set(server.variants) if server is not None else set()
    windows: list[TrialOutcome] = [trial.outcome for trial in trials if trial.plan.variant in hosted]
    memory = memory_summary(variant, server, windows=windows, telemetry=telemetry, experiment=experiment, models=manifest.models, lengths=_lengths(mine))
    return VariantSummary(
        trials=[trial.summary for trial in mine],
        stages=stage_summaries(mine),
        memory=memory,
        cost=cost_summary(results, experiment, quality[variant], memory.shared_with, variant=variant),
        quality=decided(folder, quality, variant, experiment),
        capacity=next((one for one in found if one.find == "max_rate"), None),
        concurrency=next((one for one in found if one.find == "max_concurrency"), None),
        probes=[trial.summary for trial in probes],
        at_slo=_at_slo(best_at_slo(results)),
    )


def _at_slo(best: StageResult | None) -> AtSlo | None:
    if best is None:
        return None
    low, high = best.goodput_interval
    return AtSlo(stage=best.stage, goodput_per_s=Estimate(value=best.goodput_per_s, ci95_low=low, ci95_high=high))
