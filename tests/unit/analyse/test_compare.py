"""Paired comparisons on hand-set trials: who is paired with whom, the exact difference, and each verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfbench.analyse.compare import pairs, pairs_to_decide, verdict_of
from perfbench.analyse.starts import start_sd
from perfbench.analyse.stats import Interval, PairedDifference, student_t975
from perfbench.analyse.summarise import summarise
from perfbench.records import Comparison

CLOSED = {"name": "one", "arrival": "closed", "concurrency": 1, "warmup_s": 2.0, "duration_s": 10.0, "drain_s": 8.0, "output": {"max_tokens": 64}}


def _compare(run: Any, by_variant: dict[str, list[Any]], *, stage: dict[str, Any] = CLOSED, **given: Any) -> dict[tuple[str, str, str], Comparison]:
    """Of variants on one server, where a difference holds no start of a server and is exact; or of one each."""
    outcomes, one_server = given.pop("outcomes", {}), given.pop("one_server", True)
    run.manifest([f"{variant}.one.r0" for variant in by_variant], variants=list(by_variant), load={"stages": [stage]}, **given)
    if one_server:
        run.server("both", list(by_variant))
    for variant, records in by_variant.items():
        run.trial(f"{variant}.one.r0", records, **outcomes.get(variant, {}))
    return {(one.left, one.right, one.metric): one for one in summarise(run.folder).comparisons}


def _requests(record: Any, variant: str, count: int = 16, **given: Any) -> list[Any]:
    return [record(f"{variant}.one.r0", 2.0 + k * 0.5, prompt_id=str(k), **given) for k in range(count)]


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        (
            ["base", "base+lora", "adapter", "merged"],
            [("base", "base+lora"), ("base", "adapter"), ("base", "merged"), ("base+lora", "adapter"), ("adapter", "merged")],
        ),
        (["adapter", "merged"], [("adapter", "merged")]),
        (["ours", "theirs"], [("ours", "theirs")]),
        (["merged", "base"], [("base", "merged")]),
        (["merged"], []),
        ([], []),
    ],
)
def test_pairs(variants: list[str], expected: list[tuple[str, str]]) -> None:
    assert pairs(variants) == expected


def test_a_certain_difference(run: Any, record: Any) -> None:
    """Every request of merged takes 0.05 s less a token: 20% less, and 0.2 s less in all."""
    found = _compare(run, {"adapter": _requests(record, "adapter", tpot=0.25), "merged": _requests(record, "merged", tpot=0.2)})
    tpot, e2e, ttft = (found["adapter", "merged", metric] for metric in ("tpot_s", "e2e_s", "ttft_s"))
    assert (tpot.difference, tpot.ci95_low, tpot.ci95_high, tpot.relative) == pytest.approx((-0.05, -0.05, -0.05, -0.2), abs=1e-9)
    assert (tpot.n, tpot.verdict, tpot.stage) == (16, "better", "one")
    assert (e2e.difference, e2e.relative, e2e.verdict) == (pytest.approx(-0.2), pytest.approx(-0.2 / 1.5), "better")
    assert (ttft.difference, ttft.verdict) == (pytest.approx(0.0, abs=1e-9), "same")


def test_one_start_of_each_server_is_allowed_for(run: Any, record: Any) -> None:
    """The same requests on two servers: t(8) x sqrt(2) x the deviation of the left figure on either side; a fifth is still told."""
    by_variant = {"adapter": _requests(record, "adapter", tpot=0.25), "merged": _requests(record, "merged", tpot=0.2)}
    found = _compare(run, by_variant, one_server=False)
    tpot, e2e, ttft = (found["adapter", "merged", metric] for metric in ("tpot_s", "e2e_s", "ttft_s"))
    allowed = student_t975(8) * 2**0.5 * start_sd("tpot_s", "closed")
    assert (tpot.ci95_low, tpot.ci95_high) == pytest.approx((-0.05 - allowed * 0.25, -0.05 + allowed * 0.25), rel=5e-3)
    assert (tpot.starts, tpot.verdict, ttft.verdict) == (1, "better", "cannot tell")
    assert e2e.from_length is not None and e2e.from_speed is not None
    assert (e2e.from_length.ci95_low, e2e.from_length.ci95_high) == (0.0, 0.0), "a start does not change how long answers are"
    assert e2e.from_speed.ci95_high == pytest.approx(-0.2 + allowed * 1.5, rel=5e-3)


def test_goodput_moves_by_the_requests_that_are_near_the_limit(run: Any, record: Any) -> None:
    """All requests at the limit, so that a slower start would lose them all: nothing can be told. Far below it, the rate is what moves."""
    by_variant = {"adapter": _requests(record, "adapter", ttft=0.5), "merged": _requests(record, "merged", ttft=0.5)}
    near = _compare(run, by_variant, one_server=False, slo={"ttft_s": {"p50": 0.505}})["adapter", "merged", "goodput_per_s"]
    assert near.relative == pytest.approx(0.0) and near.ci95_high is not None
    assert near.ci95_high > 0.15 * 1.6, "of 1.6 good requests a second"


def test_requests_are_paired_by_prompt_and_occurrence(run: Any, record: Any) -> None:
    """`a` is sent in the warm-up and twice in the window; adapter's second of these failed. `b` only one variant answered in the window.

    adapter TTFT: a: -, 0.5, x; c: 0.5.  merged: a: -, 0.75, 0.125; c: 0.25.  Pairs: a: +0.25, c: -0.25.
    """
    left = [
        record("adapter.one.r0", 1.0, prompt_id="a", ttft=9.0),
        record("adapter.one.r0", 3.0, prompt_id="a", ttft=0.5),
        record("adapter.one.r0", 4.0, prompt_id="a", status="failed", error="timeout"),
        record("adapter.one.r0", 5.0, prompt_id="b", ttft=0.5),
        record("adapter.one.r0", 6.0, prompt_id="c", ttft=0.5),
        *(record("adapter.one.r0", 6.0 + k / 4, prompt_id=f"only left {k}") for k in range(8)),  # one failure of twelve does not void
    ]
    right = [
        record("merged.one.r0", 0.5, prompt_id="a", ttft=7.0),
        record("merged.one.r0", 2.5, prompt_id="a", ttft=0.75),
        record("merged.one.r0", 3.5, prompt_id="a", ttft=0.125),
        record("merged.one.r0", 13.0, prompt_id="b", ttft=0.5),
        record("merged.one.r0", 7.0, prompt_id="c", ttft=0.25),
    ]
    ttft = _compare(run, {"adapter": left, "merged": right})["adapter", "merged", "ttft_s"]
    assert (ttft.difference, ttft.relative, ttft.n) == (pytest.approx(0.0, abs=1e-9), pytest.approx(0.0, abs=1e-9), 2)
    assert (ttft.ci95_low, ttft.verdict) == (None, "cannot tell")


def test_a_prompt_sent_often_counts_once(run: Any, record: Any) -> None:
    """`a` differs by 0.5 and 0.25 (mean 0.375), `b` by 0.125: the difference is (0.375 + 0.125) / 2."""
    sent = [("a", 0.5), ("a", 0.25), ("b", 0.125)]
    left = [record("adapter.one.r0", 3.0 + k, prompt_id=prompt, ttft=0.5) for k, (prompt, _) in enumerate(sent)]
    right = [record("merged.one.r0", 3.0 + k, prompt_id=prompt, ttft=0.5 + more) for k, (prompt, more) in enumerate(sent)]
    ttft = _compare(run, {"adapter": left, "merged": right})["adapter", "merged", "ttft_s"]
    assert (ttft.difference, ttft.n) == (pytest.approx(0.25), 2)


def test_void_trials_are_not_compared(run: Any, record: Any) -> None:
    by_variant = {name: _requests(record, name) for name in ("base", "adapter", "merged")}
    found = _compare(run, by_variant, outcomes={"adapter": {"client_cpu_s": 9.9}})
    assert {key[:2] for key in found} == {("base", "merged")}


def test_only_repeats_that_both_have(run: Any, record: Any) -> None:
    """Repeat 1 of merged is void, so repeat 1 of adapter, which was slow, is left out too."""
    trials = {f"{variant}.one.r{repeat}": 0.5 + repeat for variant in ("adapter", "merged") for repeat in range(2)}
    run.manifest(list(trials), variants=["adapter", "merged"])
    for trial, ttft in trials.items():
        records = [record(trial, 2.0 + k * 0.5, prompt_id=str(k), ttft=ttft) for k in range(16)]
        run.trial(trial, records, client_cpu_s=9.9 if trial == "merged.one.r1" else 0.1)
    ttft = next(one for one in summarise(run.folder).comparisons if one.metric == "ttft_s")
    assert (ttft.difference, ttft.n) == (pytest.approx(0.0, abs=1e-9), 16)


def test_rates_of_a_closed_stage(run: Any, record: Any) -> None:
    """adapter ends 10 answers of 5 tokens in 10 s, merged 20: 5 and 10 tokens a second, one request every slice and a bit."""
    left = [record("adapter.one.r0", 2.0 + k, prompt_id=str(k), ttft=0.25, tpot=0.0) for k in range(10)]
    right = [record("merged.one.r0", 2.0 + k / 2, prompt_id=str(k), ttft=0.25, tpot=0.0) for k in range(20)]
    found = _compare(run, {"adapter": left, "merged": right}, slo={"ttft_s": {"p50": 1.0}})
    tokens, goodput = found["adapter", "merged", "output_tokens_per_s"], found["adapter", "merged", "goodput_per_s"]
    assert (tokens.difference, tokens.relative, tokens.verdict) == (pytest.approx(5.0), pytest.approx(1.0), "better")
    assert (goodput.difference, goodput.relative) == (pytest.approx(1.0), pytest.approx(1.0))
    assert tokens.ci95_low is not None and 0 < tokens.ci95_low < 5.0


def test_rates_of_an_open_stage_are_the_schedules(run: Any, record: Any) -> None:
    stage = {**CLOSED, "arrival": "poisson", "concurrency": None, "rate_per_s": 2.0}
    found = _compare(run, {name: _requests(record, name) for name in ("adapter", "merged")}, stage=stage, slo={"ttft_s": {"p50": 1.0}})
    assert {metric for _, _, metric in found} == {"ttft_scheduled_s", "tpot_s", "e2e_scheduled_s"}


def test_an_open_stage_counts_what_waits_in_the_client(run: Any, record: Any) -> None:
    """merged answers each request as adapter does, once it is sent; it is sent a tenth of a second late."""
    stage = {**CLOSED, "arrival": "poisson", "concurrency": None, "rate_per_s": 2.0}
    late = [record("merged.one.r0", 2.1 + k * 0.5, scheduled_s=2.0 + k * 0.5, prompt_id=str(k)) for k in range(16)]
    found = _compare(run, {"adapter": [record("adapter.one.r0", 2.0 + k * 0.5, prompt_id=str(k)) for k in range(16)], "merged": late}, stage=stage)
    for metric in ("ttft_scheduled_s", "e2e_scheduled_s"):
        assert found["adapter", "merged", metric].difference == pytest.approx(0.1)
    whole = found["adapter", "merged", "e2e_scheduled_s"]
    assert (whole.from_length.value, whole.from_speed.value) == (0.0, pytest.approx(0.1))


def test_noise_is_not_told_from_nothing(run: Any, record: Any) -> None:
    rng = np.random.default_rng(0)
    ttfts = {name: rng.uniform(0.1, 0.9, 16) for name in ("adapter", "merged")}
    by_variant = {
        name: [record(f"{name}.one.r0", 2.0 + k * 0.5, prompt_id=str(k), ttft=float(one)) for k, one in enumerate(values)] for name, values in ttfts.items()
    }
    assert _compare(run, by_variant)["adapter", "merged", "ttft_s"].verdict == "cannot tell"


@pytest.mark.parametrize(
    ("metric", "difference", "interval", "p_value", "verdict"),
    [
        ("tpot_s", 0.1, (0.05, 0.15), 0.01, "worse"),
        ("tpot_s", -0.1, (-0.15, -0.05), 0.01, "better"),
        ("output_tokens_per_s", 0.1, (0.05, 0.15), 0.01, "better"),
        ("output_tokens_per_s", -0.1, (-0.15, -0.05), 0.01, "worse"),
        ("tpot_s", 0.1, (0.05, 0.15), 0.05, "cannot tell"),  # Holm took it back
        ("tpot_s", 0.1, (-0.05, 0.25), 0.2, "cannot tell"),
        ("tpot_s", 0.015, (0.011, 0.019), 0.001, "same"),  # certain, and too small to matter
        ("tpot_s", 0.015, (0.009, 0.021), 0.001, "worse"),
    ],
)
def test_verdicts(metric: str, difference: float, interval: tuple[float, float], p_value: float, verdict: str) -> None:
    """The left mean is 1: the margin is 0.02."""
    assert verdict_of(metric, PairedDifference(difference, Interval(*interval), p_value, 50), 1.0, p_value) == verdict


@pytest.mark.parametrize(
    ("difference", "half", "tests", "expected"),
    [
        # s = 0.05, n = 50, left mean 1. Away from 0: 50 x ((1.95996 + 0.84162) x 0.05 / 0.1)^2 = 98.1; inside +-0.02 it can never be.
        (0.1, 0.05 * 1.959964, 1, 99),
        # m = 10: z(0.9975) = 2.80703, so 50 x ((2.80703 + 0.84162) x 0.05 / 0.1)^2 = 166.4.
        (0.1, 0.05 * 1.959964, 10, 167),
        # No difference at all: it has to be told to lie inside the margin, 50 x (2.80159 x 0.05 / 0.02)^2 = 2452.8.
        (0.0, 0.05 * 1.959964, 1, 2453),
        (0.1, 1000.0, 1, None),  # no practical number
    ],
)
def test_pairs_that_would_decide(difference: float, half: float, tests: int, expected: int | None) -> None:
    paired = PairedDifference(difference, Interval(difference - half, difference + half), 0.5, 50)
    assert pairs_to_decide(paired, 1.0, tests) == expected


def test_without_an_interval_no_number_is_made_up() -> None:
    assert pairs_to_decide(PairedDifference(0.1, Interval(None, None), None, 3), 1.0, 1) is None
