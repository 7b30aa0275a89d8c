"""How much of a difference comes from answers of another length. Pure.

A fine-tuned model that answers in fewer tokens is done earlier, and that says nothing of how fast it is served. One request takes

    e2e = ttft + p (n - 1)          n tokens, p seconds a token after the first

so for two answers to the same prompt the difference splits without a rest, each part at the mean of the other's two values (Shapley's value of two
players; Marshall and Edgeworth split price from quantity so):

    from length = (n_R - n_L) (p_L + p_R) / 2
    from speed  = (ttft_R - ttft_L) + (p_R - p_L) ((n_L - 1) + (n_R - 1)) / 2

An answer of one token has no p: the other's is taken, and all of its decoding then comes from length.

A closed loop keeps k requests in flight, so that it serves f(n) = k / (ttft + p (n - 1)) requests, or n times as many tokens, a second; with the means of a
trial, and with k as the figure that makes this equal what was measured. From length is what changing n alone does, averaged over the speeds of both:

    from length = ((f_L(n_R) - f_L(n_L)) + (f_R(n_R) - f_R(n_L))) / 2
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from perfbench.analyse.trials import AnalysedTrial


def e2e_from_length(suffix: str = "_right") -> pl.Expr:
    """Seconds of e2e_s(right) - e2e_s(left) that come from length, for rows that hold `ttft_s`, `e2e_s` and `output_tokens` of both; null without usage."""
    left, right = _seconds_a_token(""), _seconds_a_token(suffix)
    grown = pl.col(f"output_tokens{suffix}") - pl.col("output_tokens")
    a_token = (left.fill_null(right) + right.fill_null(left)) / 2
    return pl.when(grown == 0).then(0.0).otherwise(grown * a_token)


def _seconds_a_token(suffix: str) -> pl.Expr:
    gaps = pl.col(f"output_tokens{suffix}") - 1
    return pl.when(gaps > 0).then((pl.col(f"e2e_s{suffix}") - pl.col(f"ttft_s{suffix}")) / gaps)


@dataclass(frozen=True)
class ClosedLoop:
    """One trial of a closed stage as its means: what `f` needs. Every field is of requests scheduled in the window but the rate."""

    rate: float
    """Measured: requests or output tokens a second."""
    ttft_s: float
    s_per_token: float
    """Seconds of decoding over tokens after the first, all requests together."""
    tokens: float
    counts_tokens: bool

    def at_length(self, tokens: float) -> float:
        """The rate that answers of another mean length would be served at."""
        return self.rate * self._model(tokens) / self._model(self.tokens)

    def _model(self, tokens: float) -> float:
        return (tokens if self.counts_tokens else 1.0) / (self.ttft_s + self.s_per_token * (tokens - 1))


def closed_loop(trial: AnalysedTrial, rate: float, *, counts_tokens: bool) -> ClosedLoop | None:
    """None where an answer came without usage, or where no answer has a second token."""
    answered = trial.measured.filter(pl.col("status") == "ok").select("ttft_s", "e2e_s", "output_tokens")
    if answered.is_empty() or answered.null_count().sum_horizontal().item():
        return None
    sums = answered.sum().row(0)
    after_first = sums[2] - len(answered)
    if after_first <= 0 or sums[0] <= 0:
        return None
    return ClosedLoop(
        rate=rate,
        ttft_s=sums[0] / len(answered),
        s_per_token=(sums[1] - sums[0]) / after_first,
        tokens=sums[2] / len(answered),
        counts_tokens=counts_tokens,
    )


def rate_from_length(left: ClosedLoop, right: ClosedLoop) -> float:
    """The part of right.rate - left.rate that comes from length."""
    if left.tokens == right.tokens:
        return 0.0  # and not what rounding leaves
    with_left = left.at_length(right.tokens) - left.rate
    with_right = right.rate - right.at_length(left.tokens)
    return (with_left + with_right) / 2
