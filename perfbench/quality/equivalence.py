"""Whether two variants that should be the same (adapter and merged) are. Pure.

TOST: two one-sided tests at alpha 0.05 each, as a 90% paired interval of the deciding metric inside +-margin. Byte equality is no criterion: adapter and
merged add in another order, so even greedy answers differ (vllm#5148, peft#1904). That no difference was found is no criterion either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from perfbench.quality.decide import gates_of
from perfbench.quality.fairness import not_comparable
from perfbench.quality.intervals import n_to_decide, wilson
from perfbench.quality.measures import WIN_RATE, paired_difference, reading_of
from perfbench.records import Estimate, QualityRecord
from perfbench.scenario.quality import Quality


class Equivalence(NamedTuple):
    """What the test comes to."""

    verdict: Literal["equal", "not equal", "cannot tell"]
    """equal: the 90% interval of the difference lies inside +-margin. not equal: outside of it. cannot tell: across."""
    metric: str
    margin: float
    n: int
    flip_rate: Estimate
    """Share of samples that one passes and the other does not, with Wilson's interval."""
    difference: float
    """right - left."""
    low: float
    high: float
    n_to_decide: int | None


def equivalent(left: Sequence[QualityRecord], right: Sequence[QualityRecord], quality: Quality) -> Equivalence:
    """right held against left in the first deciding metric. Samples that also stand in the training text count here: both saw the same.

    Raises ValueError where the two were not asked the same samples, or neither has the metric.
    """
    problem = not_comparable(left, right)
    if problem is not None or not left:
        raise ValueError(problem or "there are no samples")
    metric, margin = gates_of(quality)[0]
    if metric == WIN_RATE:
        raise ValueError("a win rate against base says nothing of the two")
    pair = paired_difference(left, right, metric, reading_of(quality, left))
    low, high = pair.interval(0.90)
    by_id = {record.sample_id: record for record in left}
    pairs = [(by_id[record.sample_id], record) for record in right]
    known = [(before.passed, after.passed) for before, after in pairs if before.passed is not None and after.passed is not None]
    flips = sum(before != after for before, after in known)
    flip_low, flip_high = wilson(flips, len(known))
    inside, outside = -margin < low and high < margin, high < -margin or low > margin
    return Equivalence(
        verdict="equal" if inside else "not equal" if outside else "cannot tell",
        metric=metric,
        margin=margin,
        n=pair.n,
        flip_rate=Estimate(value=flips / len(known), ci95_low=flip_low, ci95_high=flip_high) if known else Estimate(value=None),
        difference=pair.value,
        low=low,
        high=high,
        n_to_decide=n_to_decide(-abs(pair.value), pair.variance, margin) if not inside and not outside else None,
    )
