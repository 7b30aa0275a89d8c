"""How the answer is shown: the reasons that fit a first screen, and the sentences behind them."""

from __future__ import annotations

from perfbench.records import Recommendation

FIRST_REASONS = 5
"""As many as a person reads in ten seconds."""


def first_reasons(recommendation: Recommendation) -> list[str]:
    """The reasons that decided, the weightiest first."""
    return recommendation.reasons[:FIRST_REASONS]


def further_reasons(recommendation: Recommendation) -> list[str]:
    """What stands behind them; empty where the first reasons say it all."""
    return [*recommendation.reasons[FIRST_REASONS:], *recommendation.details]
