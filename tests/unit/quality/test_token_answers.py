"""Tokens and log-probabilities out of vLLM's two forms of `logprobs`, and out of answers that have none."""

from __future__ import annotations

from typing import Any

import pytest

from perfbench.quality.token_answers import greedy, read_logprobs
from perfbench.scenario.model import Decoding

# As vLLM 0.32 answers with return_tokens_as_token_ids and two logprobs.
CHAT: dict[str, Any] = {
    "content": [
        {"token": "token_id:5", "logprob": -0.1, "bytes": [65],
         "top_logprobs": [{"token": "token_id:5", "logprob": -0.1}, {"token": "token_id:9", "logprob": -2.4}]},
        {"token": "token_id:7", "logprob": -0.7, "bytes": None, "top_logprobs": [{"token": "token_id:7", "logprob": -0.7}]},
    ]
}  # fmt: skip
COMPLETIONS: dict[str, Any] = {
    "tokens": ["token_id:5", "token_id:7"], "token_logprobs": [-0.1, -0.7], "text_offset": [0, 1],
    "top_logprobs": [{"token_id:5": -0.1, "token_id:9": -2.4}, {"token_id:7": -0.7}],
}  # fmt: skip


@pytest.mark.parametrize("given", [CHAT, COMPLETIONS])
def test_both_forms_say_the_same(given: dict[str, Any]) -> None:
    assert read_logprobs(given) == [(5, -0.1, 9, -2.4), (7, -0.7, None, None)]


TEXT = {"content": [{"token": "the", "logprob": -1.0, "top_logprobs": []}]}


@pytest.mark.parametrize("given", [{}, {"content": None}, TEXT, {"tokens": ["a"]}, {"content": 3}])
def test_what_is_no_token_ids_is_not_measured(given: dict[str, Any]) -> None:
    assert read_logprobs(given) == []


def test_greedy_keeps_what_else_the_scenario_says() -> None:
    decoding = greedy(Decoding(temperature=0.8, top_p=0.9, seed=3, stop=("\n",)))
    assert (decoding.temperature, decoding.top_p, decoding.seed, decoding.stop) == (0.0, 1.0, 3, ("\n",))
