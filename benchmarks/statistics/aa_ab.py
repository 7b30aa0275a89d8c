"""How often a comparison claims a difference that is not there (A/A), and finds one that is (A/B): analyse/compare.py as real runs use it.

    python -m benchmarks.statistics.aa_ab [--runs 200] > /tmp/aa_ab.md                               (6 minutes)

A simulated run drives two variants with the same prompts and arrivals through a closed stage (4 streams) and an open one (Poisson, one server at half its
capacity). What differs between two requests of a pair: their own noise (10%), a drift of the machine that lasts for seconds (2%), and, between repeats, the
server's start (as much as analyse/starts.py allows for, nothing, or twice as much). In A/B the right variant takes more for everything.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import polars as pl

from perfbench.analyse.compare import ALPHA, compare, latencies_of
from perfbench.analyse.experiment import Experiment
from perfbench.analyse.run_differences import moved
from perfbench.analyse.starts import START_SD
from perfbench.analyse.stats import Floats, holm, p_value
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.two_runs import FinishedRun
from perfbench.records import Audit, Comparison, Rates, RequestCounts, TrialOutcome, TrialPlan, TrialSummary
from perfbench.scenario.model import Output, Stage

PROMPTS, WINDOW_S, STREAMS = 60, 30.0, 4
TTFT_S, TPOT_S = 0.05, 0.01
REQUEST_NOISE, DRIFT, DRIFT_S, START = 0.10, 0.02, 3.0, START_SD["closed"]
RATE_PER_S = 1.0
STAGES = {
    "closed": Stage(name="closed", arrival="closed", concurrency=STREAMS, duration_s=WINDOW_S, output=Output(max_tokens=80)),
    "open": Stage(name="open", arrival="poisson", rate_per_s=RATE_PER_S, duration_s=WINDOW_S, output=Output(max_tokens=80)),
}
EXPERIMENT = Experiment(
    variants=("base", "merged"), endpoints=frozenset(), variations={}, stages=STAGES, slo={}, cost=None, quality=None, shares_prefix=False, serve_args={}
)


class Machine:
    """How fast the machine is, at any moment of one trial: a drift that forgets in DRIFT_S."""

    def __init__(self, rng: np.random.Generator, slower: float) -> None:
        steps = int(4 * WINDOW_S)
        noise, keep = rng.normal(0, DRIFT, steps), np.exp(-1 / DRIFT_S)
        drift = np.empty(steps)
        drift[0] = noise[0]
        for k in range(1, steps):
            drift[k] = keep * drift[k - 1] + np.sqrt(1 - keep**2) * noise[k]
        self._factor = slower * np.exp(drift)

    def factor(self, at_s: float) -> float:
        return float(self._factor[min(int(at_s), len(self._factor) - 1)])


def trial(variant: str, stage: str, repeat: int, lengths: Floats, arrivals_s: Floats, rng: np.random.Generator, slower: float) -> AnalysedTrial:
    """One trial as analysed; prompt k of the sending order asks for lengths[k] tokens."""
    machine = Machine(rng, slower)
    rows = _closed(lengths, machine, rng) if stage == "closed" else _open(lengths, arrivals_s, machine, rng)
    due, ttft, tpot, tokens = (np.array(column) for column in zip(*rows, strict=True))
    e2e = ttft + tpot * (tokens - 1)
    frame = pl.DataFrame(
        {
            "prompt_id": [f"p{k % PROMPTS}" for k in range(len(due))], "occurrence": [k // PROMPTS for k in range(len(due))],
            "scheduled_ns": (due * 1e9).astype(np.int64), "end_ns": ((due + e2e) * 1e9).astype(np.int64), "status": ["ok"] * len(due),
            "ttft_s": ttft, "ttft_scheduled_s": ttft, "tpot_s": tpot, "e2e_s": e2e, "e2e_scheduled_s": e2e, "output_tokens": tokens.astype(np.int64),
        }
    )  # fmt: skip
    end = round(WINDOW_S * 1e9)
    outcome = TrialOutcome(trial="t", started_ns=0, measure_from_ns=0, measure_until_ns=end, ended_ns=end, requests_ok=0, requests_failed=0)
    plan = TrialPlan(trial=f"{variant}.{stage}.r{repeat}", variant=variant, stage=stage, repeat=repeat, arrival=STAGES[stage].arrival)
    summary = TrialSummary(
        stage=stage, repeat=repeat, arrival=plan.arrival, audit=Audit(verdict="valid", reasons=[]), requests=RequestCounts(ok=len(due), failed=0), metrics={},
        rates=Rates(requests_per_s=None, output_tokens_per_s=None, goodput_per_s=None),
    )  # fmt: skip
    return AnalysedTrial(plan, outcome, frame, summary)


def _service(length: float, at_s: float, machine: Machine, rng: np.random.Generator) -> tuple[float, float]:
    """TTFT without waiting, and TPOT."""
    own = rng.lognormal(0, REQUEST_NOISE, 2)
    return TTFT_S * float(own[0]) * machine.factor(at_s), TPOT_S * float(own[1]) * machine.factor(at_s)


def _closed(lengths: Floats, machine: Machine, rng: np.random.Generator) -> Iterator[tuple[float, float, float, float]]:
    free, number = np.zeros(STREAMS), 0
    while (at_s := float(free.min())) < WINDOW_S:
        length = float(lengths[number % PROMPTS])
        ttft, tpot = _service(length, at_s, machine, rng)
        yield at_s, ttft, tpot, length
        free[int(free.argmin())] = at_s + ttft + tpot * (length - 1)
        number += 1


def _open(lengths: Floats, arrivals_s: Floats, machine: Machine, rng: np.random.Generator) -> Iterator[tuple[float, float, float, float]]:
    free = 0.0
    for number, at_s in enumerate(arrivals_s.tolist()):
        length = float(lengths[number % PROMPTS])
        begins = max(at_s, free)
        ttft, tpot = _service(length, begins, machine, rng)
        free = begins + ttft + tpot * (length - 1)
        yield at_s, begins - at_s + ttft, tpot, length


class Case(NamedTuple):
    """What is simulated: how much slower the right variant is, and how its servers were started."""

    slower: float = 1.0
    repeats: int = 1
    start: float = START
    servers: Literal["restarted", "kept", "side by side", "one for both"] = "restarted"
    """For each repeat; as `plan_visits` has it, which keeps the server that ends a repeat for the next one; once for all repeats; once, and for both."""


CASES = (
    *(
        Case(1.0, repeats, start, servers)
        for start in (0.0, START, 2 * START)
        for servers, repeats in (("restarted", 1), ("restarted", 2), ("restarted", 3), ("restarted", 5), ("kept", 2), ("kept", 3), ("side by side", 3))
    ),
    *(Case(1.0, repeats, servers="one for both") for repeats in (1, 2, 3)),
    *(Case(1.05, repeats) for repeats in (1, 2, 3, 5, 8)), Case(1.05, 3, servers="side by side"),
    *(Case(1.10, repeats) for repeats in (1, 2, 3)), Case(1.10, 3, servers="side by side"), Case(1.20, 1),
)  # fmt: skip


def simulated_run(rng: np.random.Generator, case: Case) -> list[Comparison]:
    """All comparisons of one run: `merged` against `base`."""
    lengths = np.maximum(2, rng.gamma(4, 11, PROMPTS).round())
    trials = []
    speeds: dict[str, float] = {}
    for repeat in range(case.repeats):
        order = rng.permutation(PROMPTS)
        arrivals = np.cumsum(rng.exponential(1 / RATE_PER_S, round(3 * RATE_PER_S * WINDOW_S)))
        for variant, factor in (("base", 1.0), ("merged", case.slower)):
            # base merged | merged base | base merged: merged is kept from the first repeat to the second, base from the second to the third.
            kept = (repeat + (variant == "base")) // 2
            shared = {"restarted": repeat, "kept": kept, "side by side": 0, "one for both": 0}[case.servers]
            start = f"{'both' if case.servers == 'one for both' else variant} {shared}"
            speed = factor * speeds.setdefault(start, float(np.exp(rng.normal(0, case.start))))
            for stage in STAGES:
                one = trial(variant, stage, repeat, lengths[order], arrivals[arrivals < WINDOW_S], rng, speed)
                trials.append(replace(one, start=start))
    return compare(trials, EXPERIMENT)


class Share(NamedTuple):
    """Of so many comparisons, how many claim what."""

    comparisons: int
    claimed: int
    wrong_way: int
    """`merged` called better, which it never is."""
    runs: int
    runs_with_claim: int
    same: int

    @property
    def claims(self) -> float:
        return self.claimed / self.comparisons


def claims(runs: int, case: Case, seed: int, metrics: Container[str] | None = None) -> Share:
    """Over so many simulated runs; of some metrics alone where they are named."""
    rng = np.random.default_rng(seed)
    counts = [0, 0, 0, 0, 0]
    for _ in range(runs):
        found = [one for one in simulated_run(rng, case) if metrics is None or one.metric in metrics]
        claimed = [one for one in found if one.verdict in ("better", "worse")]
        counts[0] += len(found)
        counts[1] += len(claimed)
        counts[2] += sum(one.verdict == "better" for one in claimed)
        counts[3] += bool(claimed)
        counts[4] += sum(one.verdict == "same" for one in found)
    return Share(counts[0], counts[1], counts[2], runs, counts[3], counts[4])


def run_claims(runs: int, repeats: int, start: float, seed: int) -> tuple[float, float]:
    """Two runs of the same variant as `perfbench compare` reads them, each with one start of its server: share of comparisons that claim a difference, and of
    pairs of runs with a claim."""
    rng, counts = np.random.default_rng(seed), [0, 0, 0]
    for _ in range(runs):
        lengths, sides = np.maximum(2, rng.gamma(4, 11, PROMPTS).round()), [float(np.exp(rng.normal(0, start))) for _ in range(2)]
        trials: list[dict[tuple[str, str, int], AnalysedTrial]] = [{}, {}]
        for repeat in range(repeats):
            order, arrivals = rng.permutation(PROMPTS), np.cumsum(rng.exponential(1 / RATE_PER_S, round(3 * RATE_PER_S * WINDOW_S)))
            for found, speed in zip(trials, sides, strict=True):
                for stage in STAGES:
                    found["merged", stage, repeat] = trial("merged", stage, repeat, lengths[order], arrivals[arrivals < WINDOW_S], rng, speed)
        manifest, summary = msgspec.convert(None, Any), msgspec.convert(None, Any)  # only records are compared
        old, new = (FinishedRun(Path(name), manifest, summary, EXPERIMENT, found, {}) for name, found in zip(("old", "new"), trials, strict=True))
        asked = [(stage, metric, statistic) for stage in STAGES for metric in latencies_of(STAGES[stage].arrival) for statistic in ("mean", "p95")]
        asked += [("closed", metric, None) for metric in ("requests_per_s", "output_tokens_per_s")]
        spans = [moved(old, new, "merged", *one).difference for one in asked]
        tested = [span for span in spans if span is not None and span.error is not None]
        claimed = sum(p < ALPHA for p in holm([p_value(span.value, span.error or 0.0, span.degrees) for span in tested]))
        counts = [counts[0] + len(tested), counts[1] + claimed, counts[2] + bool(claimed)]
    return counts[1] / counts[0], counts[2] / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    head = ("variants", "starts differ by", "servers", "repeats", "claim a difference", "runs with a claim", "claim the wrong way", "same")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for case in CASES:
        share = claims(runs, case, 20261125)
        figures = (
            "the same twice" if case.slower == 1 else f"{case.slower - 1:.0%} slower", f"{case.start:.1%}", case.servers, case.repeats, f"{share.claims:.1%}",
            f"{share.runs_with_claim / share.runs:.1%}", f"{share.wrong_way / share.comparisons:.1%}", f"{share.same / share.comparisons:.1%}",
        )  # fmt: skip
        print("| " + " | ".join(map(str, figures)) + " |", flush=True)

    print("\n| two runs of the same thing: repeats | starts differ by | claim a difference | pairs of runs with a claim |\n|---|---|---|---|")
    for repeats in (1, 2, 3):
        for start in (0.0, START, 2 * START):
            claimed, families = run_claims(runs, repeats, start, 20261125)
            print(f"| {repeats} | {start:.1%} | {claimed:.1%} | {families:.1%} |", flush=True)


if __name__ == "__main__":
    main()
