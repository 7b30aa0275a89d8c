"""Merge fidelity by hand: TOST on the task, flips, the first differing token, and drift on what both have read alike."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.analyse.fidelity import first_difference
from perfbench.analyse.summarise import summarise
from perfbench.quality.intervals import tango, wilson
from perfbench.records import FidelitySummary, TokenAnswer


def _answer(name: str, ids: list[int], logprobs: list[float], runner_up: tuple[int, float] = (99, -9.0), sha: str | None = None) -> TokenAnswer:
    return TokenAnswer(
        prompt_id=name, prompt_sha256=sha or f"sha {name}", output=" ".join(map(str, ids)), token_ids=ids, logprobs=logprobs,
        runner_up_ids=[runner_up[0]] * len(ids), runner_up_logprobs=[runner_up[1]] * len(ids),
    )  # fmt: skip


def _fidelity(
    run: Any, quality_block: dict[str, Any], *, adapter: list[bool], merged: list[bool], tokens: dict[str, list[TokenAnswer]] | None = None
) -> FidelitySummary:
    run.manifest([], variants=["adapter", "merged"], quality=quality_block)
    run.quality("adapter", adapter)
    run.quality("merged", merged)
    for variant, answers in (tokens or {}).items():
        run.folder.write_token_answers(variant, answers)
    (found,) = summarise(run.folder).fidelity
    return found


def test_equal_within_the_margin(run: Any, quality_block: dict[str, Any]) -> None:
    """100 samples, one lost and one won: difference 0, Tango's 90% interval inside +-0.1; two flips."""
    found = _fidelity(run, quality_block, adapter=[True] * 99 + [False], merged=[False] + [True] * 99)
    low, high = tango(1, 1, 100, 0.90)
    assert (found.verdict, found.metric, found.margin, found.samples) == ("equal", "accuracy", 0.1, 100)
    assert (found.difference, found.ci90_low, found.ci90_high) == pytest.approx((0.0, low, high))
    assert found.flip_rate is not None
    assert (found.flip_rate.value, found.flip_rate.ci95_high) == pytest.approx((0.02, wilson(2, 100)[1]))
    assert "tokens" in found.not_measured


def test_not_equal_and_cannot_tell(run: Any, make_run: Any, quality_block: dict[str, Any]) -> None:
    lost = _fidelity(run, quality_block, adapter=[True] * 100, merged=[True] * 60 + [False] * 40)
    assert (lost.verdict, lost.difference) == ("not equal", pytest.approx(-0.4))
    few = _fidelity(make_run("few"), quality_block, adapter=[True] * 10, merged=[True] * 9 + [False])
    assert few.verdict == "cannot tell" and "across" in few.reason


def test_tokens(run: Any, quality_block: dict[str, Any]) -> None:
    """p0 equal (2 tokens); p1 differs at place 1, a near-tie; p2 ends earlier, at 2; p3 had another prompt; p4 failed. Shared: 2 + 1 + 2 = 5 tokens.

    Drifts: p0 +0.1, -0.1; p1 -0.2; p2 0, +0.4: mean +0.04, mean of sizes 0.16, largest 0.4.
    """
    left = [
        _answer("p0", [1, 2], [-0.5, -0.5]),
        _answer("p1", [1, 2, 3], [-0.5, -0.70, -0.5], runner_up=(7, -0.75)),
        _answer("p2", [1, 2, 3], [-0.5, -0.5, -0.5]),
        _answer("p3", [1], [-0.5]),
        _answer("p4", [1], [-0.5]),
    ]
    right = [
        _answer("p0", [1, 2], [-0.4, -0.6]),
        _answer("p1", [1, 7, 8], [-0.7, -0.1, -0.1]),
        _answer("p2", [1, 2], [-0.5, -0.1]),
        _answer("p3", [2], [-0.5], sha="other"),
        _answer("p4", [], []),
    ]
    found = _fidelity(run, quality_block, adapter=[True] * 9, merged=[True] * 9, tokens={"adapter": left, "merged": right})
    assert (found.answers, found.first_differences, found.near_ties, found.drift_tokens) == (3, [1, 2], 1, 5)
    assert (found.drift_mean, found.drift_mean_abs, found.drift_max_abs) == pytest.approx((0.04, 0.16, 0.4))
    assert found.differing is not None
    assert (found.differing.value, found.differing.ci95_low, found.differing.ci95_high) == pytest.approx((2 / 3, *wilson(2, 3)))
    assert found.not_measured == ""


def test_what_the_adapter_differs_from_itself_by(run: Any, quality_block: dict[str, Any]) -> None:
    """The spot-check's answers are `yes` or `no`: of two greedy answers to the same prompt, one is another."""
    answers = [
        TokenAnswer(
            prompt_id=f"q{k}", prompt_sha256=f"{k:064x}", output=output, token_ids=[1], logprobs=[-0.1], runner_up_ids=[None], runner_up_logprobs=[None]
        )
        for k, output in enumerate(("yes", "maybe"))
    ]  # fmt: skip
    found = _fidelity(run, quality_block, adapter=[True] * 9, merged=[True] * 9, tokens={"adapter": answers, "merged": answers})
    assert found.asked_again_differing is not None and found.asked_again_differing.value == 0.5
    assert found.differing is not None and found.differing.value == 0.0


def test_endpoints_that_serve_both_are_held_against_each_other(run: Any, quality_block: dict[str, Any]) -> None:
    endpoint = {"url": "http://127.0.0.1:9", "model": "m"}
    run.manifest([], variants=[], endpoints={"adapter": endpoint, "merged": endpoint}, quality=quality_block)
    run.quality("adapter", [True] * 100)
    run.quality("merged", [True] * 100)
    (found,) = summarise(run.folder).fidelity
    assert (found.left, found.right, found.dtype, found.verdict) == ("adapter", "merged", None, "equal")


def test_a_summary_from_before_fidelity_said_it_all_can_be_read(run: Any, quality_block: dict[str, Any]) -> None:
    run.manifest([], variants=["adapter", "merged"], quality=quality_block)
    stored = {**msgspec.to_builtins(summarise(run.folder)), "equivalence": {"left": "adapter", "right": "merged", "verdict": "same"}}
    run.folder.write_text("summary.json", msgspec.json.encode(stored).decode())
    assert len(run.folder.summary().fidelity) == 1


def test_a_task_that_was_not_measured_says_so(run: Any, quality_block: dict[str, Any]) -> None:
    run.manifest([], variants=["adapter", "merged"], quality=quality_block)
    (found,) = summarise(run.folder).fidelity
    assert (found.verdict, found.difference) == ("cannot tell", None)
    assert "no quality check of both" in found.not_measured and "tokens: " in found.not_measured


def test_without_held_out_samples_there_is_nothing_to_tell(run: Any) -> None:
    run.manifest([], variants=["adapter", "merged"])
    assert summarise(run.folder).fidelity == []


@pytest.mark.parametrize("variants", [["merged"], ["adapter"], ["base", "base+lora"]])
def test_a_run_without_both_has_none(run: Any, variants: list[str]) -> None:
    run.manifest([], variants=variants)
    assert summarise(run.folder).fidelity == []


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_first_difference(left: list[int], right: list[int]) -> None:
    place = first_difference(left, right)
    if place is None:
        assert left == right
    else:
        assert left[:place] == right[:place] and left[place : place + 1] != right[place : place + 1]
