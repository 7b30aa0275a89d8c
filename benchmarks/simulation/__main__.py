"""How far the simulation of replicas is off on a real server: fitted on a run's closed loops, held to its Poisson stages.

    perfbench run benchmarks/simulation/demo.yaml --out OUT
    python -m benchmarks.simulation OUT/simulation-... [--save]

For each variant and Poisson stage: median and p95 of TTFT, time per token and time to the last token, measured with a 95% interval (bootstrap over blocks of
BLOCK_S of the stage: requests of a queue are late together) and predicted in two ways, with the arrivals and lengths that the stage had (so that chance in
them is no part of the error), and with Poisson arrivals of its rate, as `perfbench plan` does. `share` is the fit by processor sharing, `steps` that in steps,
of which the plan takes the second where it explains the closed loops. --save adds the rows to results.json and makes RESULTS.md anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

from perfbench.analyse.experiment import Experiment, experiment_of
from perfbench.analyse.summarise import analyse_trials
from perfbench.analyse.telemetry import Telemetry
from perfbench.analyse.trials import AnalysedTrial
from perfbench.plan.check import service_of
from perfbench.plan.service import closed_stages
from perfbench.plan.simulate import Floats, Requests, Served, Service, poisson_requests, simulate
from perfbench.results import RunFolder

BLOCK_S = 5.0
_SEEDS = 20
_BOOTSTRAPS = 2000
_METRICS = ("ttft_s", "tpot_s", "e2e_s")
_HEAD = """# The simulation of replicas against measured stages

Made by `python -m benchmarks.simulation RUN --save` from results.json; what the columns mean stands in benchmarks/simulation/__main__.py. Fitted on closed
loops only; every stage in the table was held back.
"""


class Row(msgspec.Struct, frozen=True):
    """One figure of one stage by one fit."""

    run: str
    measured_at: str
    variant: str
    stage: str
    requests: int
    metric: str
    percent: int
    measured_s: float
    low_s: float
    high_s: float
    fit: str
    own_arrivals_s: float
    poisson_s: float

    @property
    def off(self) -> tuple[float, float, float]:
        """The prediction's error as a share of what was measured; and against both ends of its interval."""
        return self.own_arrivals_s / self.measured_s - 1, self.own_arrivals_s / self.high_s - 1, self.own_arrivals_s / self.low_s - 1


class Stage(NamedTuple):
    """Answered requests of a Poisson stage, in the order of their arrival."""

    requests: Requests
    measured: dict[str, Floats]


def rows_of(folder: RunFolder) -> Iterator[Row]:
    """Every figure of every Poisson stage."""
    manifest = folder.manifest()
    experiment = experiment_of(manifest)
    trials = analyse_trials(folder, manifest, experiment, Telemetry.of(folder), {})
    for variant in experiment.variants:
        mine = [trial for trial in trials if trial.plan.variant == variant]
        fits = _fits(mine, variant, experiment)
        for trial in mine:
            if trial.plan.arrival == "poisson" and trial.plan.search is None:
                yield from _stage_rows(manifest.run_id, manifest.started_utc, variant, trial, fits)


def _fits(trials: list[AnalysedTrial], variant: str, experiment: Experiment) -> dict[str, Service]:
    found = service_of(closed_stages(trials, experiment), variant, experiment)
    if found is None:
        raise SystemExit(f"{variant}: no closed loop has enough answered requests to fit a service on")
    # A fit in steps has changed first_work; that by sharing is made anew, as for a server of which nothing is known.
    unknown = replace(experiment, endpoints=experiment.endpoints | {variant}) if found.steps is not None else experiment
    shared = service_of(closed_stages(trials, experiment), variant, unknown)
    assert shared is not None
    return {"share": shared, **({"steps": found} if found.steps is not None else {})}


def _stage_rows(run: str, at: str, variant: str, trial: AnalysedTrial, fits: dict[str, Service]) -> Iterator[Row]:
    stage = _stage(trial)
    count, rate = len(stage.requests.arrival_s), len(stage.requests.arrival_s) / float(np.ptp(stage.requests.arrival_s))
    pairs = list(zip(stage.requests.prompt_tokens.tolist(), stage.requests.output_tokens.tolist(), strict=True))
    fresh = poisson_requests(pairs, rate_per_s=rate, count=10_000, seed=0)
    for fit, service in fits.items():
        own = [simulate(service, stage.requests, replicas=1, router="random", seed=seed) for seed in range(_SEEDS)]
        new = simulate(service, fresh, replicas=1, router="random", seed=0)
        for metric in _METRICS:
            for percent in (50, 95):
                low_s, high_s = _interval(stage, metric, percent)
                yield Row(
                    run, at, variant, trial.plan.stage, count, metric, percent, _quantile(stage.measured[metric], percent), low_s, high_s, fit,
                    float(np.mean([_predicted(one, metric, percent) for one in own])), _predicted(new, metric, percent),
                )  # fmt: skip


def _stage(trial: AnalysedTrial) -> Stage:
    answered = trial.measured.filter((pl.col("status") == "ok") & pl.col("output_tokens").is_not_null()).sort("sent_ns")
    columns = {name: answered[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in (*_METRICS, "prompt_tokens", "output_tokens")}
    sent_s = answered["sent_ns"].to_numpy() / 1e9
    return Stage(Requests(sent_s - sent_s[0], columns["prompt_tokens"], columns["output_tokens"]), columns)


def _quantile(values: Floats, percent: int) -> float:
    return float(np.nanquantile(values, percent / 100))


def _predicted(served: Served, metric: str, percent: int) -> float:
    values: Floats = getattr(served, metric)
    return _quantile(values, percent)


def _interval(stage: Stage, metric: str, percent: int) -> tuple[float, float]:
    """Of a measured percentile: blocks of the stage drawn again."""
    blocks = (stage.requests.arrival_s // BLOCK_S).astype(int)
    parts = [stage.measured[metric][blocks == block] for block in np.unique(blocks)]
    rng = np.random.default_rng(0)
    found = [_quantile(np.concatenate([parts[place] for place in rng.integers(0, len(parts), len(parts))]), percent) for _ in range(_BOOTSTRAPS)]
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def table(rows: list[Row]) -> str:
    """As Markdown, which reads well in a terminal too."""
    lines = ["| variant | stage | requests | figure | measured, ms | fit | predicted, ms | off | as planned, ms |", "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        off, least, most = (f"{share:+.1%}" for share in row.off)
        lines.append(
            f"| {row.variant} | {row.stage} | {row.requests} | {row.metric[:-2]} p{row.percent} | {row.measured_s * 1e3:.0f} "
            f"({row.low_s * 1e3:.0f} to {row.high_s * 1e3:.0f}) | {row.fit} | {row.own_arrivals_s * 1e3:.0f} | {off} ({least} to {most}) "
            f"| {row.poisson_s * 1e3:.0f} |"
        )
    return "\n".join(lines)


def save(rows: list[Row]) -> None:
    """Put the rows into results.json, instead of earlier ones of their run, and make RESULTS.md of all."""
    folder = Path(__file__).parent
    path = folder / "results.json"
    old = msgspec.json.decode(path.read_bytes(), type=list[Row]) if path.is_file() else []
    kept = [row for row in old if row.run != rows[0].run] + rows
    path.write_bytes(b"[\n" + b",\n".join(msgspec.json.encode(row) for row in kept) + b"\n]\n")
    runs = dict.fromkeys(row.run for row in kept)
    parts = [_HEAD, *(f"## {run}\n\n{table([row for row in kept if row.run == run])}\n" for run in runs)]
    (folder / "RESULTS.md").write_text("\n".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    rows = list(rows_of(RunFolder(options.run)))
    if not rows:
        raise SystemExit(f"{options.run}: no Poisson stage to predict")
    print(table(rows))
    if options.save:
        save(rows)


if __name__ == "__main__":
    main()
