"""The quick form of benchmarks/statistics/aa_ab.py: no difference claimed where there is none, a known one found."""

from __future__ import annotations

from benchmarks.statistics.aa_ab import Case, claims


def test_the_same_variant_twice_is_rarely_told_apart() -> None:
    """25 runs of 8 comparisons: at most 5% may claim a difference; 10% is the binomial's 3 sigma above it."""
    share = claims(25, Case(repeats=2), seed=1)
    assert share.comparisons == 200
    assert share.claims <= 0.10


def test_a_tenth_is_found_and_never_the_wrong_way() -> None:
    share = claims(10, Case(1.10, 4), seed=2)
    assert share.claims >= 0.6
    assert share.wrong_way == 0
