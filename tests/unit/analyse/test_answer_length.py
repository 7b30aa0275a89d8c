"""A difference split into answer length and speed: by hand, without a rest, and through a whole analysed run."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.analyse.answer_length import ClosedLoop, e2e_from_length, rate_from_length
from perfbench.analyse.summarise import summarise

SECONDS = st.floats(0.001, 10)
TOKENS = st.integers(1, 500)


def _row(ttft: float, tpot: float, n: int, ttft_right: float, tpot_right: float, n_right: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "ttft_s": [ttft], "e2e_s": [ttft + tpot * (n - 1)], "output_tokens": [float(n)],
            "ttft_s_right": [ttft_right], "e2e_s_right": [ttft_right + tpot_right * (n_right - 1)], "output_tokens_right": [float(n_right)],
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("left", "right", "from_length"),
    [
        # 11 tokens at 0.1 s against 6 at 0.2 s: (6 - 11) x 0.15 = -0.75; speed: 0.5 + 0.1 x 7.5 = +1.25; together +0.5 = (1 + 1) - (0.5 + 1).
        ((0.5, 0.1, 11), (1.0, 0.2, 6), -0.75),
        ((0.5, 0.1, 11), (1.0, 0.2, 11), 0.0),
        ((0.5, 0.1, 1), (0.5, 0.2, 6), 1.0),  # one token has no time per token: all of the five gaps comes from length
        ((0.5, 0.1, 6), (0.75, 0.2, 1), -0.5),
        ((0.5, 0.1, 1), (0.75, 0.2, 1), 0.0),
    ],
)
def test_by_hand(left: tuple[float, float, int], right: tuple[float, float, int], from_length: float) -> None:
    assert _row(*left, *right).select(e2e_from_length()).item() == pytest.approx(from_length, abs=1e-12)


@given(SECONDS, SECONDS, TOKENS, SECONDS, SECONDS, TOKENS)
def test_turned_around_it_changes_its_sign_and_speed_is_what_equal_lengths_differ_by(a: float, p: float, n: int, b: float, q: float, m: int) -> None:
    there, back = _row(a, p, n, b, q, m).select(e2e_from_length()).item(), _row(b, q, m, a, p, n).select(e2e_from_length()).item()
    assert there == pytest.approx(-back, abs=1e-9)
    if n > 1 and m > 1:
        speed = (b - a) + (q - p) * ((n - 1) + (m - 1)) / 2
        assert there + speed == pytest.approx((b + q * (m - 1)) - (a + p * (n - 1)), rel=1e-9, abs=1e-9)


def test_a_closed_loop_by_hand() -> None:
    """One stream; left 0.5 s + 10 gaps of 0.1 s for 11 tokens, right the same speed and 6 tokens: all of the difference is length."""
    left = ClosedLoop(rate=1 / 1.5, ttft_s=0.5, s_per_token=0.1, tokens=11, counts_tokens=False)
    right = ClosedLoop(rate=1 / 1.0, ttft_s=0.5, s_per_token=0.1, tokens=6, counts_tokens=False)
    assert rate_from_length(left, right) == pytest.approx(1 / 1.0 - 1 / 1.5)
    slower = ClosedLoop(rate=1 / 3.0, ttft_s=1.0, s_per_token=0.2, tokens=11, counts_tokens=False)
    assert rate_from_length(left, slower) == pytest.approx(0.0)
    tokens = ClosedLoop(rate=11 / 1.5, ttft_s=0.5, s_per_token=0.1, tokens=11, counts_tokens=True)
    assert tokens.at_length(6) == pytest.approx(6.0)


def test_in_a_run(run: Any, record: Any) -> None:
    """merged decodes as fast and answers 3 tokens instead of 5: 2 x 0.25 s less, all of it length; tokens a second fall from 5 / 1.5 to 3 / 1."""
    run.manifest(["adapter.one.r0", "merged.one.r0"], variants=["adapter", "merged"])
    for variant, n, every in (("adapter", 5, 1.5), ("merged", 3, 1.0)):
        trial = f"{variant}.one.r0"
        run.trial(trial, [record(trial, every * k, prompt_id=str(k), n=n) for k in range(int(12 / every))])
    found = {one.metric: one for one in summarise(run.folder).comparisons}
    e2e = found["e2e_s"]
    assert e2e.from_length is not None and e2e.from_speed is not None
    assert (e2e.difference, e2e.from_length.value, e2e.from_speed.value) == pytest.approx((-0.5, -0.5, 0.0), abs=1e-9)
    for metric in ("requests_per_s", "output_tokens_per_s"):
        one = found[metric]
        assert one.from_length is not None and one.from_speed is not None and one.difference is not None
        assert one.from_length.value + one.from_speed.value == pytest.approx(one.difference)
    assert found["ttft_s"].from_length is None and found["tpot_s"].from_length is None


def test_without_usage_there_are_no_parts(run: Any, record: Any) -> None:
    run.manifest(["adapter.one.r0", "merged.one.r0"], variants=["adapter", "merged"])
    for variant in ("adapter", "merged"):
        trial = f"{variant}.one.r0"
        run.trial(trial, [record(trial, 2.0 + k / 2, prompt_id=str(k), output_tokens=None if k == 3 else 5) for k in range(16)])
    found = {one.metric: one for one in summarise(run.folder).comparisons}
    assert found["e2e_s"].difference is not None and found["e2e_s"].from_length is None
    assert "output_tokens_per_s" not in found and found["requests_per_s"].from_length is None
