"""From what a run folder holds of a search to its next probe, and from a running probe's reports to its end.

A search keeps no state of its own: its probes are trials in the journal, judged by their records each time. So a search that was cut off goes on where it
was, and the analysis comes to the same answer on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from perfbench.analyse.capacity import allowed_late, judged_probes, saturation_per_s, terms_of
from perfbench.load.arrivals import schedule
from perfbench.load.messages import Progress
from perfbench.load.trial import TrialSpec
from perfbench.plan.search import Answer, next_step
from perfbench.plan.sequential import Evidence, Tally, judge
from perfbench.records import TrialPlan
from perfbench.results import RunFolder
from perfbench.scenario import Scenario
from perfbench.scenario.model import SloLimit
from perfbench.scenario.probes import PROBE_PREFIX
from perfbench.scenario.search import Search
from perfbench.trials import SearchPlan, stage_of, trial_seed

REPORTS_PER_PROBE = 64
SATURATED_AFTER_ROUNDS = 4
"""The closed loop's throughput is known well enough when each stream has ended so many requests."""


def plan_searches(scenario: Scenario) -> list[SearchPlan]:
    """Every variant x search, in the order of the scenario."""
    return [SearchPlan(variant, search) for variant in scenario.variant_names for search in scenario.load.search]


def searches_left(folder: RunFolder, scenario: Scenario) -> list[SearchPlan]:
    """Those whose answer the run folder does not hold yet."""
    return [plan for plan in plan_searches(scenario) if next_probe(folder, scenario, plan) is not None]


def next_probe(folder: RunFolder, scenario: Scenario, plan: SearchPlan) -> TrialPlan | None:
    """The trial to drive next; None when the answer is there. One that was planned and has not finished comes again."""
    variant, search = plan
    planned = [probe for probe in folder.probes() if probe.variant == variant and probe.search == search.find]
    finished = folder.finished("trial_finished")
    for probe in planned:
        if probe.trial not in finished:
            return probe
    number = len(planned)
    if search.find == "max_rate" and not planned:
        return _plan(variant, search, 0, concurrency=search.streams)
    saturation = saturation_per_s(folder, planned)
    if search.find == "max_rate" and not saturation:
        return None
    step = next_step(judged_probes(folder, planned, _slo(scenario), search), terms_of(search, saturation))
    if isinstance(step, Answer):
        return None
    return _plan(variant, search, number, concurrency=round(step)) if search.find == "max_concurrency" else _plan(variant, search, number, rate_per_s=step)


def _plan(variant: str, search: Search, number: int, *, concurrency: int | None = None, rate_per_s: float | None = None) -> TrialPlan:
    stage = f"{PROBE_PREFIX}{'rate' if search.find == 'max_rate' else 'streams'}-{number}"
    arrival = search.arrival if concurrency is None else "closed"
    return TrialPlan(
        trial=f"{variant}.{stage}.r0", variant=variant, stage=stage, repeat=0, arrival=arrival, search=search.find, probe=number, rate_per_s=rate_per_s,
        concurrency=concurrency,
    )  # fmt: skip


def write_probe(folder: RunFolder, scenario: Scenario, probe: TrialPlan) -> None:
    """Its arrival times, which are its variant's own, and its line in the journal."""
    stage = stage_of(probe, scenario)
    if stage.arrival != "closed":
        folder.write_schedule(probe.schedule, 0, schedule(stage, trial_seed(probe, scenario)).tolist())
    folder.append_journal("probe_planned", probe.trial, probe)


class ProbeWatch:
    """Decides when a running probe has shown enough. Give it every report; it says once how the probe is to end."""

    def __init__(self, probe: TrialPlan, scenario: Scenario) -> None:
        stage = stage_of(probe, scenario)
        self._probe = probe
        self._warmup_s, self._longest_s = stage.warmup_s, stage.duration_s
        self._allowed = allowed_late(_slo(scenario))
        self._limits_s = {metric: limit.limit_s for metric, limit in scenario.slo.items()}
        self._tallies: dict[str, list[Tally]] = {metric: [] for metric in scenario.slo}
        self._in_flight: list[float] = []
        self._done = False
        self._enough = SATURATED_AFTER_ROUNDS * (probe.concurrency or 0) if probe.search == "max_rate" and probe.concurrency else None

    def asks(self, spec: TrialSpec) -> TrialSpec:
        """The order, with what the load process has to count for it, and how often it is to say so."""
        return msgspec.structs.replace(spec, limits_s=self._limits_s, report_every_s=min(1.0, self._longest_s / REPORTS_PER_PROBE))

    def ends(self, report: Progress) -> str | None:
        """`drain`: enough is known, and what is in flight may end. `cut`: requests pile up or are late, do not wait for them. None: go on."""
        elapsed_s = report.elapsed_s - self._warmup_s
        if self._done or elapsed_s <= 0:
            return None
        for metric, tallies in self._tallies.items():
            before_judged, before_late = sum(one.judged for one in tallies), sum(one.late for one in tallies)
            tallies.append(Tally(report.judged.get(metric, 0) - before_judged, report.late.get(metric, 0) - before_late))
        self._in_flight.append(report.in_flight)
        end = self._end(report.judged, elapsed_s)
        self._done = end is not None
        return end

    def _end(self, judged: Mapping[str, int], elapsed_s: float) -> str | None:
        if self._enough is not None:
            return "cut" if min(judged.values(), default=0) >= self._enough else None
        evidence = Evidence(elapsed_s, self._longest_s, self._tallies, self._in_flight if self._probe.rate_per_s else (), self._probe.rate_per_s)
        verdict = judge(evidence, self._allowed).verdict
        return None if verdict == "unclear" else "drain" if verdict == "good" else "cut"


def _slo(scenario: Scenario) -> dict[str, SloLimit]:
    return {str(metric): limit for metric, limit in scenario.slo.items()}


def describe(probe: TrialPlan) -> str:
    """For the progress line."""
    return f"{probe.rate_per_s:.4g} requests/s" if probe.rate_per_s is not None else f"{probe.concurrency} streams"
