"""How long the steps of a replica take, from its closed-loop stages: the figures that plan.steps needs. Pure and seeded.

A stream by itself shows the sum: its time to the first token is outside + prefill + decode(1), its time per token decode(1). With N streams a request waits for
the step that runs, and the prompts of the others stand in its own steps; so decode(N) is what makes a simulated closed loop of N streams have the measured
time per token, prefill what makes that of the fewest streams have the measured time to the first token, and `outside` what brings those of all others as
near as can be. The last is a fit of one figure to as many as there are stages: how far it is off says whether the server works in steps at all. Streams
whose answers are of one length go in lockstep in the simulation as they did on the server.
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
_ROUNDS = 6
_REQUESTS = 400
_LEAST_WORK = 0.05
_LEAST_S = 1e-5


class Loop(NamedTuple):
    """What a closed loop of so many streams showed: means, seconds, and the requests' lengths."""

    streams: int
    ttft_s: float
    tpot_s: float
    prompt_tokens: Floats
    output_tokens: Floats


def with_steps(service: Service, loops: Sequence[Loop], alone_ttft: Floats, *, batch_tokens: int | None) -> Service | None:
    """`service` with the steps that the loops show; None with fewer than two loops, and where steps do not explain them.

    `alone_ttft` are the times to the first token of a stream alone over those that their lengths ask for, 1 on average; empty where no stream was alone.
    """
    if len(loops) < 2:
        return None
    fewest = loops[0]
    best: tuple[float, Service] | None = None
    for share in _OUTSIDE:
        outside_s = share * fewest.ttft_s
        beyond_s = fewest.ttft_s - fewest.tpot_s - outside_s
        if beyond_s <= 0:
            break
        work = np.maximum((alone_ttft * fewest.ttft_s - outside_s - fewest.tpot_s) / beyond_s, _LEAST_WORK) if len(alone_ttft) else np.ones(1)
        steps = Steps(Curve(((float(fewest.streams), fewest.tpot_s),)), beyond_s / fewest.streams, outside_s, batch_tokens)
        off, found = _fitted(replace(service, first_work=tuple((work / work.mean()).tolist()), steps=steps), loops)
        if best is None or off < best[0]:
            best = off, found
    return best[1] if best is not None and best[0] <= math.log1p(MISFIT) else None


def _fitted(service: Service, loops: Sequence[Loop]) -> tuple[float, Service]:
    """decode(N) and the prompt's part for the measured times; and how far the times to the first token are off at worst, as a logarithm."""
    assert service.steps is not None
    points = [(float(loop.streams), loop.tpot_s) for loop in loops]
    prefill_s, outside_s, off = service.steps.prefill_s, service.steps.outside_s, math.inf
    for _ in range(_ROUNDS):
        points = _rising(points)
        service = replace(service, steps=replace(service.steps, decode=Curve(tuple(points)), prefill_s=prefill_s))
        found = [_simulated(service, loop) for loop in loops]
        off = max(abs(math.log(ttft_s / loop.ttft_s)) for (ttft_s, _), loop in zip(found, loops, strict=True))
        # What the step itself and the way take is no part of the prompt.
        rest_s = outside_s + points[0][1]
        prefill_s *= max(loops[0].ttft_s - rest_s, _LEAST_S) / max(found[0][0] - rest_s, _LEAST_S)
        points = [(place, max(value + loop.tpot_s - tpot_s, _LEAST_S)) for (place, value), (_, tpot_s), loop in zip(points, found, loops, strict=True)]
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
