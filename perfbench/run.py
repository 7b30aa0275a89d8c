"""The main path, the rooms in order:

    scenario -> prepare -> serve -> reference check -> quality -> load (sample runs beside it) -> analyse -> report

Everything that can be wrong with the input has been found before the first server starts. Every finished part is in the journal before
the next one begins, and `continue_run` does what the journal does not name. Whatever happens, servers are stopped and records are kept.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perfbench.checks import (
    check_fidelity,
    check_held_out,
    check_judge_answers,
    check_quality,
    check_served_answers,
    check_under_load,
    judge_quality,
    score_by_models,
    skip_reference_check,
)
from perfbench.client_floor import measure_client_floor, rate_to_measure
from perfbench.conclude import conclude
from perfbench.errors import InterruptedRunError, LoadError, RunFolderError, ScenarioError
from perfbench.load.arrivals import schedule
from perfbench.load.decode import recover_spool
from perfbench.load.engine import LoadProcess
from perfbench.load.messages import Progress, Waiting
from perfbench.load.scale import ONE_PROCESS, Scale, check_scale
from perfbench.manifest import check_unchanged, describe_run
from perfbench.prepare import Prepared, prepare
from perfbench.records import TrialPlan
from perfbench.report.progress import RunProgress, trial_detail
from perfbench.result_tables import write_records
from perfbench.results import RunFolder
from perfbench.sample import Sampler, SampleTarget
from perfbench.saturation import SaturationWatch, why_skipped
from perfbench.scenario import Scenario
from perfbench.scenario.quality_metrics import quality_warnings
from perfbench.searching import ProbeWatch, describe, next_probe, searches_left, write_probe
from perfbench.serve.command import server_command, shell_line
from perfbench.serve.endpoint import check_endpoints
from perfbench.serve.together import RunningServer, all_started, server_for
from perfbench.trials import SearchPlan, Visit, left_to_do, plan_visits, stage_of, stage_seed, trial_bodies, trial_spec, with_searches


@dataclass(frozen=True)
class _Run:
    """What every step of one run needs."""

    folder: RunFolder
    prepared: Prepared
    progress: RunProgress
    check_reference: bool
    scale: Scale
    measure_floor: bool


def run_scenario(
    scenario: Scenario, *, scenario_file: Path | None, parent: Path, quiet: bool = False, check_reference: bool = True, scale: Scale = ONE_PROCESS,
    measure_floor: bool = True,
) -> RunFolder:  # fmt: skip
    """Carry out a scenario in a new run folder under `parent`; returns the folder, with summary and reports in it."""
    check_scale(scenario, scale)
    with RunProgress(quiet=quiet) as progress:
        check_endpoints(scenario)
        with ScenarioError.named(scenario_file):
            prepared = prepare(scenario, say=progress.phase)
        check_judge_answers(scenario)
        folder = RunFolder.create(parent, scenario.name)
        manifest = describe_run(
            folder.path.name, scenario, scenario_file=scenario_file, command=sys.argv,
            models=prepared.model_infos, trials=prepared.trials, hashes=prepared.hashes,
            traces={stage: trace.use for stage, trace in prepared.traces.items()},
        )  # fmt: skip
        folder.write_manifest(manifest)
        folder.write_prompts(prepared.driven_prompts)
        write_schedules(folder, prepared)
        return _carry_out(_Run(folder, prepared, progress, check_reference, scale, measure_floor))


def continue_run(
    path: Path, *, quiet: bool = False, check_reference: bool = True, scale: Scale = ONE_PROCESS, measure_floor: bool = True
) -> RunFolder:
    """Finish a run that was cut off: what the journal names as finished stays, everything else is done (again)."""
    folder = RunFolder.open(path)
    manifest = folder.manifest()
    if folder.finished("finished"):
        raise RunFolderError(f"{path} has finished; there is nothing to resume", hint="perfbench report renders it again")
    with RunProgress(quiet=quiet) as progress:
        prepared = prepare(Scenario.model_validate_json(msgspec.json.encode(manifest.scenario)), say=progress.phase)
        check_scale(prepared.scenario, scale)
        check_unchanged(manifest, prepared.hashes)
        check_judge_answers(prepared.scenario)
        keep_what_was_cut_off(folder)
        folder.append_journal("resumed")
        return _carry_out(_Run(folder, prepared, progress, check_reference, scale, measure_floor))


def _carry_out(run: _Run) -> RunFolder:
    folder, prepared = run.folder, run.prepared
    todo = left_to_do(prepared.trials, {*folder.finished("trial_finished"), *folder.finished("trial_skipped")})
    run.progress.phase(f"run {folder.path}: {len(todo)} trials")
    try:
        with _stopped_by_sigterm(), LoadProcess(folder.path / "load.log", run.scale, lambda waiting: _say_waiting(run, waiting)) as load:
            if load.page is not None:
                run.progress.phase(f"live page: {load.page}")
            _measure_floor(run, load)
            contaminated = check_held_out(folder, prepared, lambda rows: run.progress.update(f"{rows:,} training rows compared with the held-out ones"))
            side_by_side = prepared.scenario.serve.side_by_side or not prepared.scenario.kinds
            visits = plan_visits(prepared.servers, todo, side_by_side=side_by_side)
            for visit in with_searches(visits, prepared.servers, searches_left(folder, prepared.scenario), side_by_side=side_by_side):
                _visit(run, visit, load, contaminated)
            score_by_models(folder, prepared, lambda: run.progress.phase("score the answers by local models"))
            judge_quality(
                folder, prepared, lambda variant: run.progress.phase(f"judge {variant}"), lambda done, of: run.progress.update(completed=done, total=of)
            )
    except KeyboardInterrupt:
        keep_what_was_cut_off(folder)
        folder.append_journal("interrupted")
        raise InterruptedRunError(folder.path) from None
    except LoadError:
        with suppress(OSError):  # a full disk is what the error may be about
            keep_what_was_cut_off(folder)
        raise
    run.progress.phase("analyse and report")
    conclude(folder)
    folder.append_journal("finished")
    return folder


def _say_waiting(run: _Run, waiting: Waiting) -> None:
    """Only where somebody elsewhere has to do something about it."""
    if run.scale.workers:
        run.progress.phase(f"load: {waiting.connected} of {waiting.wanted} workers connected to {waiting.address} (perfbench worker --master HOST:PORT)")


def _measure_floor(run: _Run, load: LoadProcess) -> None:
    """The client's own time on this machine, once a run, before any server takes a core. Workers on other machines cannot reach a server on this one."""
    manifest = run.folder.manifest()
    if not run.measure_floor or run.scale.workers or manifest.client_floor is not None:
        return
    run.progress.phase("measure the client against a server that answers at once")
    floor = measure_client_floor(load, rate_to_measure(run.prepared.scenario), processes=run.scale.total)
    run.folder.write_manifest(msgspec.structs.replace(manifest, client_floor=floor))


def _visit(run: _Run, visit: Visit, load: LoadProcess, contaminated: frozenset[str] | None) -> None:
    """Some servers, from start to stop: check their answers, then drive their trials."""
    folder, scenario, progress = run.folder, run.prepared.scenario, run.progress
    names = ", ".join(plan.name for plan in visit.servers)
    session = f"visit-{len(list(folder.path.glob('telemetry/*.parquet')))}"
    planned = [
        server_for(plan, scenario, log=folder.server_log(plan.name), on_wait=lambda elapsed_s, line: progress.update(line))
        for plan in visit.servers
    ]
    # The sampler comes first: what the machine holds before a server starts is the baseline of what the server takes.
    with Sampler(folder, session, [], scenario.telemetry) as sampler:
        progress.phase(f"start {names}")
        with all_started(planned) as servers:
            for server in servers:
                assert server.info is not None
                folder.append_journal("server_ready", server.plan.name, server.info)
                sampler.add_target(_sample_target(server))
            _check_answers(run, servers, contaminated)
            by_variant = {variant: server for server in servers for variant in server.plan.variants}
            for trial in visit.trials:
                if (reason := why_skipped(folder, scenario, trial)) is not None:
                    progress.phase(f"{trial.trial} {reason}")
                    folder.append_journal("trial_skipped", trial.trial, {"reason": reason})
                    continue
                progress.phase(f"load {trial.trial} ({len(folder.finished('trial_finished')) + 1} of {len(run.prepared.trials)})")
                _drive(run, trial, by_variant[trial.variant], load, sampler)
            for search in visit.searches:
                _search(run, search, by_variant[search.variant], load, sampler)
            for variant, server in by_variant.items():
                check_under_load(folder, run.prepared, server, variant, lambda done, of: progress.update("load prompts, idle", completed=done, total=of))
            for server in servers:
                sampler.remove_target(server.plan.name)
            progress.phase(f"stop {names}")
    folder.append_journal("not_measured", session, sampler.not_measured)


def _check_answers(run: _Run, servers: Sequence[RunningServer], contaminated: frozenset[str] | None) -> None:
    """Right before fast: the reference check, then the held-out samples, of every variant of these servers."""
    variants = [variant for server in servers for variant in server.plan.variants]
    if run.check_reference:
        run.progress.phase(f"reference check of {', '.join(variants)}")
        check_served_answers(run.folder, run.prepared, servers)
    else:
        skip_reference_check(run.folder, set(variants) - set(run.folder.finished("reference_check")))
    for server in servers:
        for variant in server.plan.variants:
            run.progress.phase(f"quality of {variant}")
            check_quality(run.folder, run.prepared, server, variant, contaminated, lambda done, of: run.progress.update(completed=done, total=of))
            check_fidelity(run.folder, run.prepared, server, variant, lambda done, of: run.progress.update(completed=done, total=of))


def _search(run: _Run, search: SearchPlan, server: RunningServer, load: LoadProcess, sampler: Sampler) -> None:
    """Trials that are decided on as they go, until the answer is there: each ends as soon as it is clear whether its load meets the SLO."""
    while (probe := next_probe(run.folder, run.prepared.scenario, search)) is not None:
        write_probe(run.folder, run.prepared.scenario, probe)
        run.progress.phase(f"search {probe.trial}: {describe(probe)}")
        _drive(run, probe, server, load, sampler, ProbeWatch(probe, run.prepared.scenario))


def _drive(
    run: _Run, trial: TrialPlan, server: RunningServer, load: LoadProcess, sampler: Sampler, watch: ProbeWatch | None = None
) -> None:
    """One trial: its requests are written, driven and recorded; then the journal says so. A watched one ends when enough is known; any other one when the
    server is over-saturated."""
    folder, scenario = run.folder, run.prepared.scenario
    overload = SaturationWatch(stage_of(trial, scenario))
    # A cache salt of its own keeps a trial's prompts out of the prefix cache that an earlier trial has filled. It is vLLM's field.
    salt = f"{folder.path.name}.{trial.trial}" if server.info is not None and server.info.engine_version is not None else None
    bodies = trial_bodies(
        trial, scenario, run.prepared.load_prompts, run.prepared.traces.get(trial.stage), model=server.plan.served_names[trial.variant], cache_salt=salt
    )

    def show(report: Progress) -> None:
        detail = trial_detail(
            ok=report.ok, failed=report.failed, in_flight=report.in_flight, elapsed_s=report.elapsed_s,
            ttft_p50_s=report.ttft_p50_s, ttft_p95_s=report.ttft_p95_s, memory=sampler.latest().get(server.plan.name, {}),
        )  # fmt: skip
        run.progress.update(detail, completed=report.elapsed_s, total=report.length_s)
        if watch is not None and (end := watch.ends(report)) is not None:
            load.cancel(drain=end == "drain")
        elif watch is None and overload.ends(report):
            load.cancel()

    with folder.bodies_of(trial.trial, bodies) as bodies_path:
        spec = trial_spec(
            trial, scenario, folder, url=server.url, api_key_env=server.api_key_env, bodies_path=bodies_path, workers=run.scale.total
        )  # fmt: skip
        outcome = load.run(spec if watch is None else watch.asks(spec), show)
    server.check()
    folder.append_journal("trial_finished", trial.trial, msgspec.structs.replace(outcome, stopped_early=overload.reason))


def keep_what_was_cut_off(folder: RunFolder) -> None:
    """Turn what killed processes left behind into records and samples: kept and readable, and left out of every number."""
    folder.recover_telemetry()
    finished = folder.finished("trial_finished")
    for spool in folder.left_spools():
        write_records(folder.interrupted_path(spool), recover_spool(spool))
        spool.unlink()
    for records in folder.records_of_trials_not_in(finished):
        records.rename(folder.interrupted_path(records))


def write_schedules(folder: RunFolder, prepared: Prepared) -> None:
    """The arrival times of every open-loop stage and repeat, before anything is driven."""
    scenario = prepared.scenario
    for stage in scenario.load.stages:
        if stage.arrival == "closed":
            continue
        trace = prepared.traces.get(stage.name)
        for repeat in range(scenario.load.repeats):
            offsets_ns = schedule(stage, stage_seed(stage, scenario, repeat)) if trace is None else trace.offsets_ns
            folder.write_schedule(stage.name, repeat, offsets_ns.tolist())


def dry_run_lines(scenario: Scenario, scenario_file: Path | None = None) -> list[str]:
    """What `run` would start and drive, after every check that needs no server."""
    from perfbench.serve.server import installed_vllm

    with ScenarioError.named(scenario_file):
        prepared = prepare(scenario, say=lambda text: None)
    build = installed_vllm()
    lines = []
    for plan in prepared.servers:
        if plan.endpoint is not None:
            lines.append(f"# {plan.name}: drive {plan.endpoint.url}")
            continue
        command = server_command(
            plan, scenario.serve, port=8000, trust_remote_code=scenario.models.trust_remote_code, cpu_build=build is not None and build.cpu
        )
        lines += [f"# server {plan.name}, hosting {', '.join(plan.variants)} (a free port is chosen when it starts)", shell_line(command)]
    stages, times = scenario.load.stages, scenario.load.repeats * len(scenario.variant_names)
    driven_s = times * sum(stage.warmup_s + (stage.duration_s if stage.requests is None else 0.0) for stage in stages)
    counted = times * sum(stage.requests or 0 for stage in stages)
    requests = f" and windows of {counted} requests together" if counted else ""
    weak = [] if scenario.quality is None else quality_warnings(scenario.quality.model_dump(mode="json"))
    lines += [f"# quality: {warning}" for warning in weak]
    if stages:
        lines.append(f"# {len(prepared.trials)} trials, {driven_s / 60:.1f} minutes of load{requests} without drains and server starts")
    most_s = len(scenario.variant_names) * sum(search.max_probes * (search.warmup_s + search.duration_s) for search in scenario.load.search)
    if most_s:
        probes = len(scenario.variant_names) * sum(search.max_probes for search in scenario.load.search)
        lines.append(f"# searches: at most {probes} probes, {most_s / 60:.1f} minutes of load; a clear probe ends earlier")
    return lines


def _sample_target(server: RunningServer) -> SampleTarget:
    assert server.info is not None
    return SampleTarget(
        server=server.plan.name, root_pid=server.info.pid, metrics_url=f"{server.url}/metrics",
        variants=list(server.plan.variants), api_key_env=server.api_key_env,
    )  # fmt: skip


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a run like Ctrl-C: drain, save, stop the servers."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
