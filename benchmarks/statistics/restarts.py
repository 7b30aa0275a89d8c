"""How much a start of a server differs from the next: the standard deviation that analyse/starts.py allows for, from runs of restarts.yaml.

    python -m benchmarks.statistics.restarts RUN [RUN ...]

All servers of these runs are the same thing. Any two of them are compared as two runs are (paired by prompt); of the square of each relative difference, what
the requests' own noise explains is taken off, and half of what is left is the variance of one start. Runs that were made at different times also hold
what changed in the machine between them, as two runs that somebody compares do.
"""

from __future__ import annotations

import sys
from itertools import combinations
from typing import NamedTuple

import numpy as np

from perfbench.analyse.compare import window_slices
from perfbench.analyse.run_change import change
from perfbench.analyse.stats import Floats
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.two_runs import FinishedRun, finished_run

LATENCIES = ("ttft_s", "tpot_s", "e2e_s")


class Start(NamedTuple):
    """One server of one run, and its trials by stage."""

    run: FinishedRun
    variant: str
    trials: dict[str, AnalysedTrial]


def starts_of(run: FinishedRun) -> list[Start]:
    found = [Start(run, variant, {stage: trial for (name, stage, _), trial in run.trials.items() if name == variant}) for variant in run.experiment.variants]
    for start in found:
        for stage, trial in start.trials.items():
            if not trial.usable:
                print(f"left out: {start.variant} {stage}: {'; '.join(trial.summary.audit.reasons)}", file=sys.stderr)
    return [start._replace(trials={stage: trial for stage, trial in start.trials.items() if trial.usable}) for start in found]


def rows(one: AnalysedTrial, other: AnalysedTrial, metric: str) -> tuple[Floats, Floats]:
    left, right = (trial.measured.select("prompt_id", "occurrence", "scheduled_ns", metric).drop_nulls(metric) for trial in (one, other))
    joined = left.join(right, on=["prompt_id", "occurrence"], suffix="_right").sort("scheduled_ns", "prompt_id")
    return joined[metric].to_numpy(), joined[f"{metric}_right"].to_numpy()


def differences(starts: list[Start], stage: str, metric: str) -> list[tuple[float, float]]:
    """(relative difference, standard error by its requests) of every two starts."""
    found = []
    for one, other in combinations([start for start in starts if stage in start.trials], 2):
        pair = one.trials[stage], other.trials[stage]
        if metric in LATENCIES:
            changed = change([rows(*pair, metric)], "mean", seed=1)
        else:
            slices = [window_slices(trial, metric, start.run.experiment) for trial, start in zip(pair, (one, other), strict=True)]
            changed = change([(slices[0], slices[1])], "mean", seed=1) if slices[0] is not None and slices[1] is not None else None
        if changed is not None and changed.relative is not None and changed.relative.drawn is not None:
            found.append((changed.relative.value, changed.relative.drawn.error))
    return found


def main() -> None:
    runs = [finished_run(path) for path in sys.argv[1:]]
    starts = [start for run in runs for start in starts_of(run)]
    print(f"{len(starts)} starts in {len(runs)} runs\n\n| stage | metric | pairs | differ by (rms) | of it noise | one start |\n|---|---|---|---|---|---|")
    for stage, driven in runs[0].experiment.stages.items():
        for metric in (*LATENCIES, *(("output_tokens_per_s",) if driven.arrival == "closed" else ())):
            found = np.array(differences(starts, stage, metric)).reshape(-1, 2)
            if len(found):
                size, noise = (float(np.sqrt(np.mean(found[:, column] ** 2))) for column in (0, 1))
                start = np.sqrt(max(0.0, size**2 - noise**2) / 2)
                print(f"| {stage} | {metric} | {len(found)} | {size:.1%} | {noise:.1%} | {start:.1%} |")
    memory = [start.run.summary.variants[start.variant].memory.host_rss_bytes_peak for start in starts]
    known = np.array([float(one) for one in memory if one is not None])
    if len(known) > 1:
        print(f"| - | host_rss_bytes | {len(known)} starts | | | {known.std(ddof=1) / known.mean():.1%} |")


if __name__ == "__main__":
    main()
