"""Which trials a run has, in which order, and what each one sends. Pure.

Paired by construction: a stage's arrival times and the order of its prompts depend on the scenario's seed, the stage and the repeat,
never on the variant. The order of variants alternates over repeats, so that drift of the machine does not pick the winner.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from perfbench.load.arrivals import window_ns
from perfbench.load.trial import Body, TrialSpec, WorkerFiles
from perfbench.prompts import RenderedPrompt, request_body, request_path
from perfbench.records import TrialPlan
from perfbench.results import RunFolder
from perfbench.scenario import Scenario, Stage
from perfbench.scenario.output import Output
from perfbench.scenario.probes import probe_stage
from perfbench.scenario.search import Search
from perfbench.variants import ServerPlan, variant_order
from perfbench.workload.lengths import draw_lengths
from perfbench.workload.spread import sending_order, with_adapters
from perfbench.workload.stage_traces import StageTrace

_PROBES = 1 << 20
"""Tells the seeds of a search's probes from those of stages, which are counted from 0."""
_OUTPUTS = 11
"""Tells the seed of answers' lengths from those of prompts and arrivals."""
LEAST_A_STREAM = 2
STRETCH_TO_S = 30.0
"""A closed window shorter than this goes on until each stream has had so many requests due in it on average, at most until it is as long: a server whose
answers take longer than the window would else leave no request in it, and a void trial."""


class SearchPlan(NamedTuple):
    """One search of one variant: its trials are planned while it goes on."""

    variant: str
    search: Search


class Visit(NamedTuple):
    """Some servers running at the same time, and the trials driven while they do; then the searches."""

    servers: tuple[ServerPlan, ...]
    trials: tuple[TrialPlan, ...]
    searches: tuple[SearchPlan, ...] = ()


def plan_trials(scenario: Scenario) -> list[TrialPlan]:
    """Every variant x stage x repeat, in the order in which they are driven when all servers run side by side."""
    return [
        TrialPlan(trial=f"{variant}.{stage.name}.r{repeat}", variant=variant, stage=stage.name, repeat=repeat, arrival=stage.arrival)
        for repeat in range(scenario.load.repeats)
        for number, stage in enumerate(scenario.load.stages)
        for variant in variant_order(scenario.variant_names, repeat + number)
    ]


def plan_visits(servers: Sequence[ServerPlan], trials: Sequence[TrialPlan], *, side_by_side: bool) -> list[Visit]:
    """Which servers run when. Side by side: one visit. Otherwise one server at a time, in alternating order over repeats: the
    server that ends a repeat begins the next one, so that it is not started again."""
    if side_by_side:
        needed = {trial.variant for trial in trials}
        return [Visit(tuple(server for server in servers if needed & set(server.variants)), tuple(trials))] if trials else []
    visits: list[Visit] = []
    for repeat in sorted({trial.repeat for trial in trials}):
        for server in variant_order(tuple(servers), repeat):
            mine = tuple(trial for trial in trials if trial.repeat == repeat and trial.variant in server.variants)
            if not mine:
                continue
            if visits and visits[-1].servers == (server,):
                visits[-1] = Visit((server,), visits[-1].trials + mine)
            else:
                visits.append(Visit((server,), mine))
    return visits


def with_searches(
    visits: Sequence[Visit], servers: Sequence[ServerPlan], searches: Sequence[SearchPlan], *, side_by_side: bool
) -> list[Visit]:
    """The visits with each search in the last one of its server, or in one of its own."""
    found = list(visits)
    for search in searches:
        server = next(server for server in servers if search.variant in server.variants)
        place = next((place for place in reversed(range(len(found))) if server in found[place].servers), None)
        if place is None and side_by_side and found:
            found[0] = found[0]._replace(servers=(*found[0].servers, server))
            place = 0
        elif place is None:
            found.append(Visit((server,), ()))
            place = -1
        found[place] = found[place]._replace(searches=(*found[place].searches, search))
    return found


def stage_seed(stage: Stage, scenario: Scenario, repeat: int) -> list[int]:
    """Entropy of a stage and repeat: the same for every variant, another for every repeat."""
    return [scenario.load.seed, scenario.load.stages.index(stage), repeat]


def trial_seed(trial: TrialPlan, scenario: Scenario) -> list[int]:
    """Entropy of a trial: its stage's and repeat's. A probe of a search has its own, which is the same for every variant."""
    if trial.search is None:
        return stage_seed(stage_of(trial, scenario), scenario, trial.repeat)
    find = [str(search.find) for search in scenario.load.search].index(trial.search)
    return [scenario.load.seed, _PROBES, find, trial.probe or 0]


def trial_bodies(
    trial: TrialPlan, scenario: Scenario, prompts: Sequence[RenderedPrompt], trace: StageTrace | None, *, model: str, cache_salt: str | None
) -> Iterator[Body]:
    """The requests of one trial in sending order; a conversation is one, with its later turns. A trace stage sends `trace`, any other one `prompts`."""
    stage = stage_of(trial, scenario)
    decoding = scenario.decoding if stage.response_format is None else scenario.decoding.model_copy(update={"response_format": stage.response_format})
    outputs = prompt_outputs(stage, scenario, len(prompts)) if trace is None else trace.outputs
    prompts = prompts if trace is None else trace.prompts
    for index, adapter in _requests(trial, stage, scenario, prompts):
        prompt = prompts[index]
        body = request_body(prompt, model=adapter or model, decoding=decoding, output=outputs[index], stream=True, cache_salt=cache_salt)
        yield Body(
            prompt_id=prompt.prompt_id, body=msgspec.Raw(msgspec.json.encode(body)), adapter=adapter, turns=prompt.turns, think_time_s=prompt.think_time_s
        )


def _requests(trial: TrialPlan, stage: Stage, scenario: Scenario, prompts: Sequence[RenderedPrompt]) -> list[tuple[int, str | None]]:
    """(prompt, adapter) of every request; the adapter is None where a trial asks for one model alone."""
    mixture, seed = scenario.load.mixture, trial_seed(trial, scenario)
    if stage.trace is not None:
        order = list(range(len(prompts)))
    else:
        order = sending_order([prompt.part for prompt in prompts], [part.weight for part in mixture] if mixture else None, seed)
    variation = scenario.variations.get(trial.variant)
    alone = variation is not None and variation.adapter is not None
    if scenario.kinds.get(trial.variant) != "adapter" or scenario.load.adapters is None or alone:
        return [(index, None) for index in order]
    names = ["adapter", *scenario.models.adapters]
    in_use = variation.adapters_in_use if variation is not None else None
    return [*with_adapters(order, scenario.load.adapters, names[:in_use], seed)]


def prompt_outputs(stage: Stage, scenario: Scenario, count: int) -> list[Output]:
    """How long the answer to each prompt is: with a distribution a length of its own, the same for every variant and repeat."""
    if stage.output.distribution is None:
        return [stage.output] * count
    number = scenario.load.stages.index(stage) if stage in scenario.load.stages else _PROBES
    lengths = draw_lengths(stage.output.distribution, count, [scenario.load.seed, number, 0, _OUTPUTS], key=f"load.stages[{number}].output.distribution")
    return [Output(fixed=length) for length in lengths]


def stage_of(trial: TrialPlan, scenario: Scenario) -> Stage:
    """The stage that a trial belongs to; that of a probe is made for it."""
    if trial.search is not None:
        search = next(search for search in scenario.load.search if search.find == trial.search)
        return probe_stage(trial, search, scenario.load.stages[0] if scenario.load.stages else None)
    return next(stage for stage in scenario.load.stages if stage.name == trial.stage)


def left_to_do(trials: Sequence[TrialPlan], finished: Collection[str]) -> list[TrialPlan]:
    """Trials that the journal does not name as finished, in their order."""
    return [trial for trial in trials if trial.trial not in finished]


def trial_spec(
    trial: TrialPlan, scenario: Scenario, folder: RunFolder, *, url: str, api_key_env: str | None, bodies_path: Path, workers: int = 1
) -> TrialSpec:
    """The order for the load process, or for the master of so many workers."""
    stage = stage_of(trial, scenario)
    closed = stage.arrival == "closed"
    window_s = window_ns(stage, trial_seed(trial, scenario)) / 1e9 if not closed else stage.duration_s if stage.requests is None else None
    # A probe's length is its search's own affair, and several workers would not end theirs together.
    stretches = closed and stage.requests is None and trial.search is None and workers == 1 and stage.duration_s < STRETCH_TO_S
    return TrialSpec(
        trial=trial.trial,
        variant=trial.variant,
        url=url,
        path=request_path(scenario.prompt),
        api_key_env=api_key_env,
        bodies_path=str(bodies_path),
        arrival=stage.arrival,
        concurrency=stage.concurrency,
        think_time_s=stage.think_time_s or 0.0,
        schedule_path=None if closed else str(folder.schedule_path(trial.schedule, trial.repeat)),
        warmup_s=stage.warmup_s,
        duration_s=window_s,
        requests=stage.requests if closed else None,
        least_requests=LEAST_A_STREAM * (stage.concurrency or 1) if stretches else 0,
        stretch_to_s=STRETCH_TO_S if stretches else 0.0,
        drain_s=stage.drain_s,
        max_in_flight=stage.max_in_flight,
        request_timeout_s=scenario.load.request_timeout_s,
        keep_text=scenario.load.keep_text or (scenario.quality is not None and scenario.quality.under_load is not None),
        records_path=str(folder.records_path(trial.trial, 0)),
        spool_path=str(folder.spool_path(trial.trial, 0)),
        further=[
            WorkerFiles(spool_path=str(folder.spool_path(trial.trial, worker)), records_path=str(folder.records_path(trial.trial, worker)))
            for worker in range(1, workers)
        ],
    )
