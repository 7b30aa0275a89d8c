"""How a server serves, from its closed-loop stages: the curves and spreads that plan.simulate needs. Pure.

A closed loop of N streams has N requests in service nearly always, so its mean time to the first token is first(N) and its mean time per token decode(N).
What one request took beyond that, for its length, is kept as a ratio and drawn again in the simulation: waiting for a step that has begun, prompts
computed beside it, noise. A slope over prompt lengths is taken from the stage of fewest streams, where nothing else moves the first token.

An engine that works in steps is fitted as one (plan.fit_steps) where that explains its closed loops.

Where the number of slots is not given (vLLM's --max-num-seqs), it shows: beyond it a closed loop completes no more, each request waits longer, and its
tokens come as fast as before. By Little's law the requests in service are then throughput x time of a request alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from perfbench.analyse.experiment import Experiment
from perfbench.analyse.trials import AnalysedTrial
from perfbench.plan.curve import Curve
from perfbench.plan.fit_steps import Loop, with_steps
from perfbench.plan.simulate import Floats, Service

MIN_REQUESTS = 8
"""Of a stage; fewer do not make a mean."""
_ALIKE = 1.15
"""Times per token of all stages within this ratio: requests do not slow each other down."""
_FULL = 0.85
"""Below this share of what its streams would complete alone, a closed loop waits for slots."""
_MOST_RATIOS = 4096
_COLUMNS = ("ttft_s", "tpot_s", "e2e_s", "prompt_tokens", "output_tokens")


class ClosedStage(NamedTuple):
    """Answered requests of one closed-loop stage, over its repeats: seconds and tokens. `tpot_s` is NaN for an answer of one token."""

    streams: int
    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats


def closed_stages(trials: Sequence[AnalysedTrial], experiment: Experiment) -> list[ClosedStage]:
    """Usable closed-loop trials of one variant, probes of searches included; those that think between requests hold no constant number in service."""
    found = []
    for trial in trials:
        stage = experiment.stage_of(trial.plan)
        if trial.usable and stage.arrival == "closed" and stage.concurrency and not stage.think_time_s:
            answered = trial.measured.filter((pl.col("status") == "ok") & pl.col("ttft_s").is_not_null() & pl.col("output_tokens").is_not_null())
            columns = [answered[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in _COLUMNS]
            found.append(ClosedStage(stage.concurrency, *columns))
    return found


def fit_service(stages: Sequence[ClosedStage], *, slots: int | None = None, in_steps: bool = False, batch_tokens: int | None = None) -> Service | None:
    """The service of one replica; None without a stage of MIN_REQUESTS requests. Stages of equal streams are taken together.

    `in_steps`: the server is an engine that works in steps, so that is tried first; `batch_tokens` is what one of its steps takes at most.
    """
    known = _together([stage for stage in stages if len(stage.ttft_s)])
    known = [stage for stage in known if len(stage.ttft_s) >= MIN_REQUESTS]
    if not known:
        return None
    slots = slots if slots is not None else _slots_seen(known)
    # Beyond its slots a server's first tokens wait, which the simulation does itself.
    inside = [stage for stage in known if slots is None or stage.streams <= slots] or known[:1]
    mean_prompt = float(np.concatenate([stage.prompt_tokens for stage in inside]).mean()) or 1.0
    share = _prompt_share(inside[0], mean_prompt)
    decoded = [stage for stage in inside if not np.all(np.isnan(stage.tpot_s))]
    decode_s = [stage.tpot_s[~np.isnan(stage.tpot_s)] for stage in decoded]
    service = Service(
        first=Curve(tuple((float(stage.streams), float(stage.ttft_s.mean())) for stage in inside)),
        decode=Curve(tuple((float(stage.streams), float(np.nanmean(stage.tpot_s))) for stage in decoded) or ((1.0, 0.0),)),
        slots=slots,
        mean_prompt_tokens=mean_prompt,
        prompt_share=share,
        first_work=_ratios([stage.ttft_s / stage.ttft_s.mean() / (1 + share * (stage.prompt_tokens / mean_prompt - 1)) for stage in inside]),
        # Answers that come in one piece take no time per token: nothing to tell a spread from.
        decode_work=_ratios([seconds / seconds.mean() for seconds in decode_s if seconds.any()]),
    )
    if not in_steps or decoded != inside:
        return service
    loops = [Loop(one.streams, float(one.ttft_s.mean()), float(np.nanmean(one.tpot_s)), one.prompt_tokens, one.output_tokens) for one in inside]
    alone = inside[0].ttft_s / inside[0].ttft_s.mean() / (1 + share * (inside[0].prompt_tokens / mean_prompt - 1))
    if inside[0].streams > 1:
        alone = np.empty(0)  # what they differ by is how they meet
    return with_steps(service, loops, alone, batch_tokens=batch_tokens) or service


def _together(stages: Sequence[ClosedStage]) -> list[ClosedStage]:
    """One stage for each number of streams, ascending. Answers of one fixed length end together, so that all prompts come together: no arrivals at random do
    that, and such a stage counts only where there is no other."""
    found = []
    for streams in sorted({stage.streams for stage in stages}):
        alike = [stage for stage in stages if stage.streams == streams]
        natural = [stage for stage in alike if np.ptp(stage.output_tokens) > 0]
        if sum(len(stage.ttft_s) for stage in natural) >= MIN_REQUESTS:
            alike = natural
        found.append(ClosedStage(streams, *(np.concatenate([stage[place] for stage in alike]) for place in range(1, 6))))
    return found


def _slots_seen(stages: Sequence[ClosedStage]) -> int | None:
    alone, most = stages[0], stages[-1]
    per_token = [float(np.nanmean(stage.tpot_s)) for stage in stages if not np.all(np.isnan(stage.tpot_s))]
    if len(stages) < 2 or (per_token and max(per_token) > _ALIKE * min(per_token)):
        return None
    # A closed loop completes streams / mean time of a request, and would complete streams / time of one alone.
    full = alone.e2e_s.mean() / most.e2e_s.mean()
    return max(1, round(most.streams * float(full))) if full < _FULL else None


def _prompt_share(stage: ClosedStage, mean_prompt: float) -> float:
    """The part of the time to the first token that is proportional to the prompt, by least squares; 0 where prompts are alike or the slope is noise."""
    prompts, ttft_s = stage.prompt_tokens, stage.ttft_s
    centred = prompts - prompts.mean()
    spread = float(centred @ centred)
    if spread == 0 or len(prompts) < MIN_REQUESTS:
        return 0.0
    slope = float(centred @ ttft_s) / spread
    rest = ttft_s - ttft_s.mean() - slope * centred
    error = float(np.sqrt(rest @ rest / (len(prompts) - 2) / spread))
    if slope <= 2 * error:
        return 0.0
    return float(min(1.0, slope * mean_prompt / ttft_s.mean()))


def _ratios(parts: Sequence[Floats]) -> tuple[float, ...]:
    """All ratios with mean 1, at most _MOST_RATIOS of them, spread evenly over their order."""
    found = np.sort(np.concatenate(parts)) if parts else np.ones(1)
    found = found[np.isfinite(found) & (found > 0)]
    if not len(found):
        return (1.0,)
    if len(found) > _MOST_RATIOS:
        found = found[np.linspace(0, len(found) - 1, _MOST_RATIOS).astype(int)]
    return tuple((found / found.mean()).tolist())
