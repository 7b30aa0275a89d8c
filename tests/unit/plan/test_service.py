"""What a fit recovers from closed loops that were made from a known service."""

from __future__ import annotations

import numpy as np
import pytest

from perfbench.plan.service import ClosedStage, fit_service
from perfbench.plan.simulate import poisson_requests, simulate


def _stage(streams: int, *, count: int = 400, ttft_s: float = 0.1, tpot_s: float = 0.01, noise: float = 0.0, prompt_share: float = 0.0) -> ClosedStage:
    rng = np.random.default_rng(streams)
    prompts, outputs = rng.integers(50, 150, count).astype(float), np.full(count, 21.0)
    first = ttft_s * (1 + prompt_share * (prompts / prompts.mean() - 1)) * rng.normal(1, noise, count)
    decode = tpot_s * rng.normal(1, noise, count)
    return ClosedStage(streams, first, decode, first + 20 * decode, prompts, outputs)


def test_curves_are_the_stages_means() -> None:
    service = fit_service([_stage(8, ttft_s=0.4, tpot_s=0.04), _stage(1), _stage(4, ttft_s=0.2, tpot_s=0.02)])
    assert service is not None
    assert [n for n, _ in service.first.points] == [1, 4, 8]
    assert [s for _, s in service.first.points] == pytest.approx([0.1, 0.2, 0.4])
    assert [s for _, s in service.decode.points] == pytest.approx([0.01, 0.02, 0.04])
    assert (service.slots, service.prompt_share) == (None, 0.0)


def test_repeats_of_a_stage_are_one_point() -> None:
    service = fit_service([_stage(2, ttft_s=0.1), _stage(2, ttft_s=0.3)])
    assert service is not None
    assert service.first.points == ((2.0, pytest.approx(0.2)),)


def test_streams_in_lockstep_count_only_where_there_are_no_others() -> None:
    """All answers of one length end together, so all prompts come together: 0.3 s instead of 0.1."""
    natural = _stage(4, ttft_s=0.1)
    natural = natural._replace(output_tokens=np.where(np.arange(400) % 2, 10.0, 30.0))
    service = fit_service([natural, _stage(4, ttft_s=0.3)])
    assert service is not None
    assert service.first.points == ((4.0, pytest.approx(0.1)),)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_what_grows_with_the_prompt_is_told_from_what_does_not(share: float) -> None:
    service = fit_service([_stage(1, noise=0.02, prompt_share=share)])
    assert service is not None
    assert service.prompt_share == pytest.approx(share, abs=0.03)


def test_the_spread_is_kept_with_mean_one() -> None:
    service = fit_service([_stage(1, noise=0.1, count=20_000)])
    assert service is not None
    assert len(service.first_work) == 4096
    assert np.mean(service.first_work) == pytest.approx(1.0)
    assert np.std(service.first_work) == pytest.approx(0.1, rel=0.05)
    assert service.prompt_share == 0.0


def test_slots_show_where_a_closed_loop_waits_and_its_tokens_do_not() -> None:
    """4 slots of 0.3 s: 8 streams wait one service time for their first token, 16 wait three."""
    alone = _stage(1)
    service = fit_service([alone, _stage(4), _stage(8, ttft_s=0.1 + 0.3), _stage(16, ttft_s=0.1 + 0.9)])
    assert service is not None
    assert service.slots == 4
    assert [n for n, _ in service.first.points] == [1, 4]
    assert fit_service([alone, _stage(4, tpot_s=0.04)]).slots is None  # type: ignore[union-attr]
    assert fit_service([alone, _stage(8)], slots=2).slots == 2  # type: ignore[union-attr]


def test_too_few_requests_make_no_service() -> None:
    assert fit_service([]) is None
    assert fit_service([_stage(1, count=7)]) is None


def test_answers_of_one_token_have_no_decoding() -> None:
    stage = _stage(1)
    service = fit_service([stage._replace(tpot_s=np.full(400, np.nan), output_tokens=np.ones(400))])
    assert service is not None
    assert service.decode.points == ((1.0, 0.0),)
    assert service.decode_work == (1.0,)


def test_answers_that_come_in_one_piece_take_no_time_per_token() -> None:
    """A stage whose every tpot is 0 is a point at 0 and says nothing of the spread; the simulation ends such an answer with its first token."""
    whole, streamed = _stage(1, tpot_s=0.0), _stage(4, noise=0.1)
    service = fit_service([whole])
    assert service is not None
    assert (service.decode.points, service.decode_work, service.slots) == (((1.0, 0.0),), (1.0,), None)
    served = simulate(service, poisson_requests([(100, 21)], rate_per_s=1, count=50, seed=0), replicas=1, router="random", seed=0)
    assert served.e2e_s == pytest.approx(served.ttft_s)
    both, alone = fit_service([whole, streamed]), fit_service([streamed])
    assert both is not None and alone is not None
    assert both.decode.points[0] == (1.0, 0.0) and both.decode_work == alone.decode_work
