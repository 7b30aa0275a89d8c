import math
import subprocess
import sys
from typing import Any

import pytest

from perfbench.prompts import RenderedPrompt
from perfbench.quality import reference as r
from perfbench.quality.ask import Answer
from perfbench.records import ReferenceCheck


def subject(**more: Any) -> r.Subject:
    return r.Subject(variant="adapter", model_path="/none", answers=[], **more)


def scored(cost: list[float], variance: float = 0.0) -> r.ScoredAnswer:
    return r.ScoredAnswer(logprobs=[-0.5 - value for value in cost], cost=cost, variance=[variance] * len(cost), top1=[value == 0 for value in cost])


def test_rounding_passes() -> None:
    """As measured: 648 tokens of vLLM in bfloat16, mean 0.0023, the largest 0.95."""
    check = r.judge(subject(), [scored([0.0] * 636 + [0.95, 0.2, 0.1] + [0.02] * 9)])
    assert check.verdict == "pass"
    assert check.tokens == 648
    assert check.top1_share == 636 / 648
    assert check.worst_logprob == -1.45


def test_one_near_tie_in_a_very_short_answer_is_still_rounding() -> None:
    assert r.judge(subject(), [scored([0.9, 0.0])]).verdict == "pass"


@pytest.mark.parametrize("cost", [[10.6] * 20, [0.18] * 60, [0.0] * 40 + [4.0], [math.nan] * 5, [math.inf, 0.0]])
def test_nonsense_fails(cost: list[float]) -> None:
    check = r.judge(subject(), [scored(cost)])
    assert check.verdict == "fail"
    assert check.mean_logprob is None or math.isfinite(check.mean_logprob)


def test_sampled_answers_are_allowed_their_chance_and_no_more() -> None:
    # 100 tokens with a variance of 4: the mean may be off by 3 * 2 / 10 = 0.6.
    sampled = subject(temperature=1.0)
    assert r.judge(sampled, [scored([0.6] * 100, 4.0)]).verdict == "pass"
    assert r.judge(sampled, [scored([0.7] * 100, 4.0)]).verdict == "fail"
    assert r.judge(sampled, [scored([-2.0] * 100, 4.0)]).verdict == "pass"


def test_no_tokens_is_skipped_not_passed() -> None:
    check = r.judge(subject(), [])
    assert check.verdict == "skipped"
    assert "only vLLM" in check.reason


def test_the_error_shows_both_texts() -> None:
    check = ReferenceCheck(
        variant="adapter", verdict="fail", reason="mean regret 9", examples=[{"prompt": "Why?", "served": "x " * 400, "reference": "Because\n of it"}]
    )
    error = r.mismatch_error(check)
    assert error.exit_code == 5
    assert "`adapter`" in error.message
    assert "served:    x x x" in error.message
    assert "reference: Because of it" in error.message
    assert max(len(line) for line in error.message.splitlines()[1:]) < 260


def test_the_costliest_answers_are_shown_first_and_nan_is_costliest() -> None:
    assert r.worst_answers([scored([0.1]), scored([3.0]), scored([1.0]), scored([math.nan])]) == [3, 1]


def test_only_answers_with_tokens_are_checked() -> None:
    prompts = [RenderedPrompt(prompt_id=str(n), messages=None, text="t", sha256="") for n in range(3)]
    answers = [
        Answer(prompt_id="0", output="a", prompt_token_ids=[1], token_ids=[2]),
        Answer(prompt_id="1", output="a"),
        Answer(prompt_id="2", output=None, error="timeout"),
    ]
    assert [answer.prompt_id for answer in r.served_answers(prompts, answers)] == ["0"]


def test_the_parent_never_loads_torch() -> None:
    code = "import sys, perfbench.quality.reference, perfbench.quality.decide, perfbench.quality.spot_check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_deciding_loads_no_heavy_library_until_it_computes() -> None:
    code = "import sys, perfbench.quality.decide; sys.exit(bool({'scipy', 'sklearn', 'statsmodels', 'rapidfuzz'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
