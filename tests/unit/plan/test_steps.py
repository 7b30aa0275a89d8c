"""Replicas in steps: what can be worked out by hand, and that their figures are found again from closed loops."""

from __future__ import annotations

import numpy as np
import pytest

from perfbench.plan.curve import Curve
from perfbench.plan.service import ClosedStage, fit_service
from perfbench.plan.simulate import Requests, Service, simulate, step_work
from perfbench.plan.steps import Steps, closed_loop

DECODE = Curve(((1.0, 0.020), (2.0, 0.020), (3.0, 0.030)))


def _served(arrival_s: list[float], outputs: list[int], *, prompts: list[int] | None = None, slots: int | None = None, batch_tokens: int | None = None):  # type: ignore[no-untyped-def]
    steps = Steps(DECODE, prefill_s=0.050, outside_s=0.005, batch_tokens=batch_tokens)
    service = Service(DECODE, DECODE, slots=slots, mean_prompt_tokens=100, prompt_share=1.0, steps=steps)
    requests = Requests(np.array(arrival_s), np.array(prompts or [100] * len(outputs), float), np.array(outputs, float))
    return simulate(service, requests, replicas=1, router="random", seed=0)


def test_a_request_alone() -> None:
    """Outside, its prompt's step, then a step a token."""
    served = _served([1.0], [5])
    assert served.ttft_s == pytest.approx([0.005 + 0.020 + 0.050]) and served.tpot_s == pytest.approx([0.020])
    assert served.e2e_s == pytest.approx([0.075 + 4 * 0.020])
    assert np.isnan(_served([0.0], [1]).tpot_s[0])


def test_prompts_that_come_together_wait_for_each_other() -> None:
    """The second and third come while the first prompt's step of 70 ms runs: both are computed in the next one, of 30 + 2 x 50 ms, which holds the first up."""
    served = _served([0.0, 0.010, 0.020], [2, 1, 1])
    assert served.ttft_s == pytest.approx([0.075, 0.070 - 0.010 + 0.130 + 0.005, 0.070 - 0.020 + 0.130 + 0.005])
    assert served.e2e_s[0] == pytest.approx(0.070 + 0.130 + 0.005)


def test_an_arrival_waits_for_the_end_of_the_step() -> None:
    """Steps of 20 ms from 70 ms on: what comes at 95 ms begins at 110 ms."""
    served = _served([0.0, 0.095], [100, 1])
    assert served.ttft_s[1] == pytest.approx(0.015 + 0.020 + 0.050 + 0.005)


def test_slots_and_the_tokens_of_a_step_bound_it() -> None:
    """One slot: first come, first served. A prompt of 250 tokens in steps of 100: three of them, of which the last has room for half of the next prompt."""
    one = _served([0.0, 0.0], [1, 1], slots=1)
    assert one.ttft_s == pytest.approx([0.075, 0.145])
    chunked = _served([0.0, 0.0], [1, 1], prompts=[250, 100], batch_tokens=100)
    assert chunked.ttft_s == pytest.approx([0.070 + 0.070 + 0.070 + 0.005, 0.210 + 0.045 + 0.005])


def _loops(service: Service, outputs: np.ndarray, every: tuple[int, ...] = (1, 2, 4, 8)) -> list[ClosedStage]:  # type: ignore[type-arg]
    requests = Requests(np.zeros(len(outputs)), np.full(len(outputs), 100.0), outputs)
    stages = []
    for streams in every:
        assert service.steps is not None
        work = step_work(service.steps, np.ones(len(outputs)), requests)
        first, done = (np.array(times) for times in closed_loop(service.steps, 32, work, streams))
        stages.append(ClosedStage(streams, first, (done - first) / (outputs - 1), done, requests.prompt_tokens, outputs))
    return stages


def test_steps_are_found_again_from_closed_loops() -> None:
    """And predict Poisson arrivals as the server itself would serve them, within 5%."""
    steps = Steps(Curve(((1.0, 0.024), (8.0, 0.030))), prefill_s=0.040, outside_s=0.006)
    truth = Service(steps.decode, steps.decode, slots=32, mean_prompt_tokens=100, steps=steps)
    outputs = np.random.default_rng(1).integers(8, 32, 800).astype(float)
    fitted = fit_service(_loops(truth, outputs), slots=32, in_steps=True, batch_tokens=1024)
    assert fitted is not None and fitted.steps is not None and fitted.steps.batch_tokens == 1024
    assert fitted.steps.prefill_s == pytest.approx(0.040, rel=0.1)
    assert dict(fitted.steps.decode.points)[8.0] == pytest.approx(0.030, rel=0.05)
    arrivals = np.cumsum(np.random.default_rng(2).exponential(1 / 5, 3000))
    requests = Requests(arrivals, np.full(3000, 100.0), np.random.default_rng(3).integers(8, 32, 3000).astype(float))
    p95 = [np.quantile(simulate(one, requests, replicas=1, router="random", seed=0).ttft_s, 0.95) for one in (truth, fitted)]
    assert p95[1] == pytest.approx(p95[0], rel=0.05)


def test_streams_in_lockstep_show_the_steps_too_and_none_has_to_be_alone() -> None:
    """Answers of one length: four prompts stand in one step, which is what four streams show and arrivals at random do not."""
    steps = Steps(Curve(((4.0, 0.030), (16.0, 0.050))), prefill_s=0.044, outside_s=0.010)
    truth = Service(steps.decode, steps.decode, slots=32, mean_prompt_tokens=100, steps=steps)
    fitted = fit_service(_loops(truth, np.full(400, 8.0), (4, 8, 16)), slots=32, in_steps=True)
    assert fitted is not None and fitted.steps is not None
    assert fitted.steps.prefill_s == pytest.approx(0.044, rel=0.15)
    assert dict(fitted.steps.decode.points)[4.0] == pytest.approx(0.030, rel=0.1)


def test_a_server_that_makes_nobody_wait_is_not_taken_for_one_in_steps() -> None:
    """First tokens as fast beside seven others as alone; and one stream's stage has to be there."""
    ones = np.ones(40)
    stages = [ClosedStage(n, 0.07 * ones, 0.02 * ones, 0.25 * ones, 100 * ones, 10 * ones) for n in (1, 8)]
    service = fit_service(stages, in_steps=True)
    assert service is not None and service.steps is None
    assert (alone := fit_service(stages[1:], in_steps=True)) is not None and alone.steps is None
