import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perfbench.quality import intervals as i


@st.composite
def pairs(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 400))
    b = draw(st.integers(0, n))
    return b, draw(st.integers(0, n - b)), n


# Published examples state `first - second`; here b and c are exchanged for that. As found in the tests of the R packages contingencytables
# (the first) and ratesci (the others):
#   (59, 6, 16, 80)  Fagerland, Lydersen, Laake, Statistical Analysis of Contingency Tables (2017), chapter 8 (Cavo et al. 2012)
#   (4, 9, 3, 16) and, at 90%, (43, 0, 1, 0)  Tango, Stat Med 17 (1998) 891-908
#   (53, 16, 8, 9)   Agresti, Min, Stat Med 24 (2005) 729-740
#   (1, 1, 7, 12)    Fagerland, Lydersen, Laake, Stat Med 33 (2014) 2850-2875 (Bentur et al. 2009)
@pytest.mark.parametrize(
    ("c", "b", "n", "level", "published", "digits"),
    [
        (6, 16, 161, 0.95, (-0.1240, -0.0054), 4),
        (9, 3, 32, 0.95, (-0.027, 0.390), 3),
        (0, 1, 44, 0.90, (-0.096, 0.037), 3),
        (16, 8, 86, 0.95, (-0.020, 0.207), 3),
        (1, 7, 21, 0.95, (-0.517, -0.026), 3),
    ],
)
def test_tango_against_published_examples(c: int, b: int, n: int, level: float, published: tuple[float, float], digits: int) -> None:
    low, high = i.tango(b, c, n, level)
    assert (round(low, digits), round(high, digits)) == published


def test_newcombe_against_a_published_example() -> None:
    # Method 10 for the same table in the same book: -0.1186 to -0.0046.
    assert i.newcombe(59, 16, 6, 161) == pytest.approx((-0.1186, -0.0046), abs=5.1e-5)


def test_exact_mcnemar_against_a_published_example() -> None:
    assert i.mcnemar_p(16, 6) == pytest.approx(0.052479, abs=5e-7)  # the same book, the same table
    assert i.mcnemar_p(0, 0) == 1.0


def test_wilson_against_published_examples() -> None:
    # Newcombe, Stat Med 17 (1998) 857-872, table I, method 3.
    assert i.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5.1e-5)
    assert i.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5.1e-5)
    assert i.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5.1e-5)
    assert i.wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5.1e-5)


@given(pairs(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(max_examples=200, deadline=None)
def test_tango_bounds(counts: tuple[int, int, int], level: float) -> None:
    b, c, n = counts
    low, high = i.tango(b, c, n, level)
    assert -1 <= low <= (c - b) / n <= high <= 1
    assert low < high
    mirrored = i.tango(c, b, n, level)
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)
    wider = i.tango(b, c, n, 0.995)
    assert wider[0] <= low + 1e-12
    assert wider[1] >= high - 1e-12


@given(pairs())
@settings(max_examples=200, deadline=None)
def test_tango_limits_are_where_the_score_test_decides(counts: tuple[int, int, int]) -> None:
    """By its definition: a difference inside the interval is not rejected, one outside is."""
    b, c, n = counts
    z = i.normal_quantile(0.95)
    low, high = i.tango(b, c, n)
    for limit, outwards in ((low, -1e-6), (high, 1e-6)):
        if abs(limit) < 1 - 1e-5:
            assert abs(i._tango_score(limit - outwards, b, c, n)) < z + 1e-9
            assert abs(i._tango_score(limit + outwards, b, c, n)) > z - 1e-9


def test_tango_without_a_discordant_pair_has_its_closed_form() -> None:
    z = i.normal_quantile(0.95)
    for n in (1, 10, 250):
        assert i.tango(0, 0, n) == pytest.approx((-z * z / (n + z * z), z * z / (n + z * z)), abs=1e-9)
    assert i.tango(5, 0, 5)[0] == -1
    assert i.tango(0, 5, 5)[1] == 1
    assert i.tango(0, 0, 0) == (-1, 1)


@given(pairs())
@settings(max_examples=100, deadline=None)
def test_tango_and_newcombe_are_about_the_same(counts: tuple[int, int, int]) -> None:
    b, c, n = counts
    if n >= 50:
        both = (n - b - c) // 2
        first, second = i.tango(b, c, n), i.newcombe(both, b, c, n)
        assert first == pytest.approx(second, abs=0.06)


@given(st.integers(1, 1000), st.data())
def test_wilson_bounds(n: int, data: st.DataObject) -> None:
    passed = data.draw(st.integers(0, n))
    low, high = i.wilson(passed, n)
    assert 0 <= low <= passed / n <= high <= 1
    mirror = i.wilson(n - passed, n)
    assert mirror == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_of_nothing_says_nothing() -> None:
    assert i.wilson(0, 0) == (0.0, 1.0)


def test_bca_agrees_with_theory_on_a_normal_sample() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.1, 200)
    low, high = i.mean_interval(values)
    half = 1.96 * values.std() / math.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.0015)
    assert high == pytest.approx(values.mean() + half, abs=0.0015)
    assert i.mean_interval(values) == (low, high)


def test_bca_is_skewed_where_the_sample_is() -> None:
    values = np.random.default_rng(2).exponential(1.0, 40)
    low, high = i.mean_interval(values)
    assert high - values.mean() > values.mean() - low


def test_equal_values_are_not_certainty() -> None:
    low, high = i.mean_interval(np.zeros(20))
    assert (low, high) == pytest.approx(i.tango(0, 0, 20), abs=1e-9)
    ((low, high),) = i.Draws(lambda weights: np.zeros((len(weights), 1)), 20, np.zeros(1)).intervals()
    assert (low, high) == pytest.approx(i.tango(0, 0, 20), abs=1e-9)


def test_no_interval_holds_what_no_difference_of_shares_can_be() -> None:
    assert i.mean_interval(-np.ones(20)) == (-1.0, pytest.approx(-1 - i.tango(0, 0, 20)[0]))
    assert i.Draws(lambda weights: np.ones((len(weights), 1)), 20, np.ones(1)).intervals()[0][1] == 1.0


def test_the_weighted_bootstrap_of_a_mean_agrees_with_theory() -> None:
    values = np.random.default_rng(3).uniform(0, 1, 300)
    ((low, high),) = i.Draws(lambda weights: weights @ values[:, None] / 300, 300, values.mean(keepdims=True)).intervals()
    half = 1.96 * values.std() / math.sqrt(300)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)


def test_n_to_decide_is_the_text_book_number() -> None:
    assert i.n_to_decide(0.0, 0.10, 0.05) == 248  # 6.1826 * 0.10 / 0.0025, rounded up
    assert i.n_to_decide(-0.05, 0.10, 0.05) is None
    assert (i.n_to_decide(0.02, 0.10, 0.05) or 0) < 248 < (i.n_to_decide(-0.02, 0.10, 0.05) or 0)


def test_the_n_to_decide_has_the_power_it_promises() -> None:
    """Simulation: with that many samples and no true difference, about 80% of runs pass a margin of 0.05."""
    n = i.n_to_decide(0.0, 0.10, 0.05) or 0
    random = np.random.default_rng(4)
    draws = random.multinomial(n, [0.05, 0.05, 0.90], size=400)
    passed = np.mean([i.tango(int(b), int(c), n, 0.90)[0] > -0.05 for b, c, _ in draws])
    assert 0.74 <= passed <= 0.88


def test_tango_covers_what_it_claims() -> None:
    """Simulation, 95% interval, n = 100, true difference -0.06: exact coverage lies near 95%."""
    random = np.random.default_rng(5)
    draws = random.multinomial(100, [0.12, 0.06, 0.82], size=1000)
    covered = 0
    for b, c, _ in draws:
        low, high = i.tango(int(b), int(c), 100)
        covered += low <= -0.06 <= high
    assert 0.93 <= covered / 1000 <= 0.975


@pytest.mark.parametrize(("n", "level"), [(3, 0.9), (12, 0.9), (24, 0.95), (250, 0.9)])
def test_a_bootstrap_of_few_units_is_read_further_out(n: int, level: float) -> None:
    """Hesterberg 2015: at the quantile where Student's t of n - 1 degrees, times sqrt(n / (n - 1)), lies on the normal curve."""
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(0.5 + level / 2, n - 1))
    assert i.expanded(level, n) == pytest.approx(min(1 - 2 * tail, 1 - 2 / i.RESAMPLES), abs=1e-12)
    assert i.expanded(level, n) > level


def test_a_limit_over_few_units_is_missed_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve units: percentiles as they are miss 8% on each side, where 5% are promised."""
    monkeypatch.setattr(i, "RESAMPLES", 800)
    random, runs, missed, plain = np.random.default_rng(4), 1200, 0, 0
    for _ in range(runs):
        values = random.normal(size=12)
        draws = i.Draws(i.weighted_mean(values), 12, i.as_floats([values.mean()]))
        missed += draws.intervals(0.9)[0][1] < 0
        plain += float(np.quantile(draws._drawn, 0.95)) < 0
    assert plain / runs > 0.065
    assert 0.035 < missed / runs < 0.065


def test_a_statistic_that_hardly_ever_moves_claims_no_certainty() -> None:
    """As precision does: 1 in nearly every resample, and 0 in the few that hold one sample more than five times."""
    ((low, high),) = i.Draws(lambda weights: 1.0 - (weights[:, :1] > 5), 400, np.ones(1)).intervals()
    assert low < high == 1.0


@pytest.mark.parametrize("margin", [0.02, 0.05, 0.1, 0.3])
def test_where_nothing_differs_as_many_samples_decide_as_the_interval_says(margin: float) -> None:
    n = i.n_to_decide(0.0, i.share_variance(0, 0, 16), margin) or 0
    assert n > 2
    for at, passes in ((n, True), (n - 1, False)):
        assert (i.tango(0, 0, at, 0.90)[0] > -margin) == passes
        assert (i.mean_interval(np.zeros(at), 0.90)[0] > -margin) == passes
        assert (i.wilson(at, at, 0.90)[0] >= 1 - margin) == passes  # against a minimum, with nothing wrong
    assert i.n_to_decide(0.0, 0.0, 0.05) == 52
