"""Whether merged weights answer as base and adapter do: what was asked for it, and what it came to."""

from __future__ import annotations

from typing import Literal

import msgspec

from perfbench.records.estimate import Estimate


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One greedy answer, token by token, with the server's own log-probabilities (nats)."""

    prompt_id: str
    prompt_sha256: str
    output: str | None
    """None when the request failed."""
    token_ids: list[int]
    logprobs: list[float]
    """Of each token of `token_ids`."""
    runner_up_ids: list[int | None]
    """The second choice at each position; None where the server did not say."""
    runner_up_logprobs: list[float | None]


class FidelitySummary(msgspec.Struct, frozen=True, kw_only=True):
    """One merged variant against the adapter that was merged. Parts that were not measured are None, and `not_measured` says why."""

    left: str
    right: str
    dtype: str | None
    """Of the merged weights."""
    verdict: Literal["equal", "not equal", "cannot tell"]
    """By TOST on the task's metric: the 90% interval of the difference inside, outside or across +-margin."""
    reason: str
    metric: str | None = None
    margin: float | None = None
    samples: int = 0
    """Held-out samples that both answered."""
    difference: float | None = None
    """right - left in `metric`."""
    ci90_low: float | None = None
    ci90_high: float | None = None
    n_to_decide: int | None = None
    flip_rate: Estimate | None = None
    """Share of samples that one passes and the other does not, with Wilson's 95% interval."""
    answers: int = 0
    """Prompts that both answered greedily, token by token."""
    differing: Estimate | None = None
    """Share of these answers that differ in any token, with Wilson's 95% interval."""
    asked_again_differing: Estimate | None = None
    """The same share between two greedy answers of the left variant itself, where the spot-check asked it the same: what batching alone does."""
    first_differences: list[int] = []
    """Place of the first differing token, from 0, of each answer that differs, ascending."""
    near_ties: int | None = None
    """Of those, how many the left variant itself nearly chose: its two best tokens lay within NEAR_TIE_NATS, and the right one took the second."""
    drift_tokens: int = 0
    """Tokens on shared prefixes: all before the first difference."""
    drift_mean: float | None = None
    """Mean of logp(right) - logp(left) of these tokens, nats."""
    drift_mean_abs: float | None = None
    drift_max_abs: float | None = None
    not_measured: str = ""
