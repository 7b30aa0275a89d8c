"""The simulation predicts stages that it was not fitted on, of a server whose speed depends on its batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perfbench.load.engine import LoadProcess
from perfbench.plan.service import ClosedStage, fit_service
from perfbench.plan.simulate import poisson_requests, predict
from perfbench.records import Record
from tests.truth.conftest import TruthServer, make_spec, read_records, request_body

LIMITS_S = {"ttft_s": 0.060, "tpot_s": 0.016}


def _measured(records: list[Record]) -> list[tuple[float, float, float, float, float]]:
    return [
        (
            (one.first_token_ns - one.sent_ns) / 1e9, (one.last_token_ns - one.first_token_ns) / 1e9 / (one.output_tokens - 1),
            (one.last_token_ns - one.sent_ns) / 1e9, float(one.prompt_tokens), float(one.output_tokens),
        )
        for one in records if one.status == "ok"
    ]  # type: ignore[operator, arg-type]  # fmt: skip


def test_open_loops_are_predicted_from_closed_ones(load_process: LoadProcess, capacity_server: Callable[..., TruthServer], tmp_path: Path) -> None:
    """A batch that is flat up to 4 and stretched beyond: 25 ms and 14 tokens of 7 ms alone, in answers of 5 and of 25 tokens. It can do 4 / 123 ms = 32/s.

    Fitted on closed loops of 1 to 24 streams; held to Poisson arrivals at 55% and 80% of what it can do.
    """
    server = capacity_server("--knee", "4")
    bodies = [request_body(ttft_ms=25, gap_ms=7, tokens=tokens) for tokens in (5, 25)]
    stages = []
    for streams in (1, 4, 12, 24):
        spec = make_spec(tmp_path / f"closed-{streams}", server.url, bodies, concurrency=streams, warmup_s=0.3, duration_s=1.2)
        load_process.run(spec)
        columns = np.array(_measured(read_records(Path(spec.records_path)))).T
        stages.append(ClosedStage(streams, *columns))
    service = fit_service(stages)
    assert service is not None
    assert service.slots is None
    for rate_per_s in (18.0, 26.0):
        rng = np.random.default_rng(int(rate_per_s))
        offsets_s = np.cumsum(rng.exponential(1 / rate_per_s, int(7 * rate_per_s)))
        spec = make_spec(tmp_path / f"open-{rate_per_s}", server.url, bodies, offsets_s=offsets_s.tolist(), duration_s=float(offsets_s[-1]) + 0.1)
        load_process.run(spec)
        ttft_s, tpot_s, e2e_s, prompts, outputs = np.array(_measured(read_records(Path(spec.records_path)))).T
        # The arrivals that were sent, so that chance in them is no part of the comparison; many drawings of what else is drawn.
        requests = poisson_requests([(1, 1)], rate_per_s=rate_per_s, count=len(offsets_s), seed=0)._replace(
            arrival_s=offsets_s[: len(outputs)], prompt_tokens=prompts, output_tokens=outputs
        )
        found = [predict(service, requests, replicas=1, router="random", seed=seed, limits_s=LIMITS_S) for seed in range(20)]
        begin = len(ttft_s) // 10
        assert np.mean([one.ttft_p95_s for one in found]) == pytest.approx(np.percentile(ttft_s[begin:], 95, method="inverted_cdf"), rel=0.15)
        assert np.mean([one.tpot_p95_s for one in found if one.tpot_p95_s]) == pytest.approx(np.percentile(tpot_s[begin:], 95, method="inverted_cdf"), rel=0.15)
        assert np.mean([one.e2e_p95_s for one in found]) == pytest.approx(np.percentile(e2e_s[begin:], 95, method="inverted_cdf"), rel=0.15)
        # A limit cuts through the bulk of a distribution, so a few per cent in time are many in share.
        good = (ttft_s <= LIMITS_S["ttft_s"]) & (tpot_s <= LIMITS_S["tpot_s"])
        assert np.mean([one.good_share for one in found if one.good_share is not None]) == pytest.approx(good[begin:].mean(), abs=0.2)
