"""How long the steps of a replica take, from its closed-loop stages: the figures that plan.steps needs. Pure and seeded.

A stream by itself shows the sum: its time to the first token is outside + prefill + decode(1), its time per token decode(1). With N streams a request waits for
the step that runs, and the prompts of the others stand in its own steps; so decode(N) is what makes a simulated closed loop of N streams have the measured
time per token, and `outside` what makes those of all stages have the measured times to the first token. The second is a fit of one figure to as many as there
are stages: how far it is off says whether the server works in steps at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from perfbench.plan.curve import Curve
from perfbench.plan.simulate import Floats, Requests, Service, step_work
from perfbench.plan.steps import Steps, closed_loop

MISFIT = 0.15
"""A time to the first token that is further off in any stage is not that of a server in steps."""
_OUTSIDE = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
"""Shares of the time to the first token of a stream alone that are tried."""
_ROUNDS = 4
_REQUESTS = 400
_LEAST_WORK = 0.05


class Loop(NamedTuple):
    """What a closed loop of so many streams showed: means, seconds, and the requests' lengths."""

    streams: int
    ttft_s: float
    tpot_s: float
    prompt_tokens: Floats
    output_tokens: Floats


def with_steps(service: Service, loops: Sequence[Loop], alone_ttft: Floats, *, batch_tokens: int | None) -> Service | None:
    """`service` with the steps that the loops show; None without a loop of one stream and another, and where steps do not explain them.

    `alone_ttft` are the times to the first token of a stream alone over those that their lengths ask for: 1 on average.
    """
    if len(loops) < 2 or loops[0].streams != 1:
        return None
    alone = loops[0]
    best: tuple[float, Service] | None = None
    for share in _OUTSIDE:
        outside_s = share * alone.ttft_s
        prefill_s = alone.ttft_s - alone.tpot_s - outside_s
        if prefill_s <= 0:
            break
        work = np.maximum((alone_ttft * alone.ttft_s - outside_s - alone.tpot_s) / prefill_s, _LEAST_WORK)
        steps = Steps(Curve(((1.0, alone.tpot_s),)), prefill_s, outside_s, batch_tokens)
        off, found = _fitted(replace(service, first_work=tuple((work / work.mean()).tolist()), steps=steps), loops)
        if best is None or off < best[0]:
            best = off, found
    return best[1] if best is not None and best[0] <= math.log1p(MISFIT) else None


def _fitted(service: Service, loops: Sequence[Loop]) -> tuple[float, Service]:
    """decode(N) for the measured times per token; and how far the times to the first token are off at worst, as a logarithm."""
    assert service.steps is not None
    points = [(float(loop.streams), loop.tpot_s) for loop in loops]
    off = math.inf
    for _ in range(_ROUNDS):
        points = _rising(points)
        service = replace(service, steps=replace(service.steps, decode=Curve(tuple(points))))
        found = [_simulated(service, loop) for loop in loops]
        off = max(abs(math.log(ttft_s / loop.ttft_s)) for (ttft_s, _), loop in zip(found, loops, strict=True))
        points = [(place, value + loop.tpot_s - tpot_s) for (place, value), (_, tpot_s), loop in zip(points, found, loops, strict=True)]
    return off, service


def _rising(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """More requests never make a step shorter."""
    values = np.maximum.accumulate([value for _, value in points])
    return [(place, float(value)) for (place, _), value in zip(points, values, strict=True)]


def _simulated(service: Service, loop: Loop) -> tuple[float, float]:
    """Mean times to the first token and per token of the loop."""
    assert service.steps is not None
    rng = np.random.default_rng(loop.streams)
    places = rng.integers(0, len(loop.prompt_tokens), _REQUESTS)
    requests = Requests(np.zeros(_REQUESTS), loop.prompt_tokens[places], loop.output_tokens[places])
    lengths = 1 + service.prompt_share * (requests.prompt_tokens / service.mean_prompt_tokens - 1)
    first_work = rng.choice(np.array(service.first_work), _REQUESTS) * lengths
    first, done = (np.array(times) for times in closed_loop(service.steps, service.slots, step_work(service.steps, first_work, requests), loop.streams))
    begin = 2 * loop.streams  # until the streams are out of step
    more = requests.output_tokens[begin:] - 1
    told = more > 0
    return float(first[begin:].mean()), float(((done - first)[begin:][told] / more[told]).mean()) if told.any() else 0.0
