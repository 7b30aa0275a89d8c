"""The simulation against queues whose waits have formulas, and against itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfbench.plan.curve import Curve
from perfbench.plan.simulate import ROUTERS, Requests, Router, Service, poisson_requests, simulate

SERVICE_S = 0.1


def _one(seconds: float) -> Curve:
    return Curve(((1.0, seconds),))


def _queue(slots: int, *, exponential: bool) -> Service:
    """Servers of a fixed or an exponential service time: the prompt's length is the work, and the only token is the first."""
    return Service(first=_one(SERVICE_S), decode=_one(0.0), slots=slots, prompt_share=1.0 if exponential else 0.0)


def _mean_wait(slots: int, load: float, *, exponential: bool, count: int = 200_000) -> float:
    rng = np.random.default_rng(7)
    arrivals = np.cumsum(rng.exponential(SERVICE_S / slots / load, count))
    work = rng.exponential(1.0, count) if exponential else np.ones(count)
    served = simulate(_queue(slots, exponential=exponential), Requests(arrivals, work, np.ones(count)), replicas=1, router="random", seed=0)
    return float((served.ttft_s - SERVICE_S * work)[count // 10 :].mean())


def _erlang_c(servers: int, offered: float) -> float:
    """Probability of waiting in M/M/c (Erlang 1917)."""
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.85])
def test_m_m_1(load: float) -> None:
    assert _mean_wait(1, load, exponential=True) == pytest.approx(load / (1 - load) * SERVICE_S, rel=0.06)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.85])
def test_m_d_1(load: float) -> None:
    """Pollaczek-Khinchine: half the wait of M/M/1."""
    assert _mean_wait(1, load, exponential=False) == pytest.approx(load / (1 - load) * SERVICE_S / 2, rel=0.05)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.7), (5, 0.8)])
def test_m_m_c(servers: int, load: float) -> None:
    expected = _erlang_c(servers, servers * load) * SERVICE_S / servers / (1 - load)
    assert _mean_wait(servers, load, exponential=True) == pytest.approx(expected, rel=0.06)


def test_processor_sharing() -> None:
    """M/G/1-PS: the mean time in the system is service / (1 - load), whatever the distribution; n at once take n times as long."""
    service = Service(first=Curve(((1.0, SERVICE_S), (2.0, 2 * SERVICE_S))), decode=_one(0.0))
    rng = np.random.default_rng(3)
    count, load = 100_000, 0.6
    for work in (np.ones(count), rng.exponential(1.0, count)):
        arrivals = np.cumsum(rng.exponential(SERVICE_S / load, count))
        shared = Service(first=service.first, decode=service.decode, prompt_share=1.0)
        served = simulate(shared, Requests(arrivals, work, np.ones(count)), replicas=1, router="random", seed=0)
        assert served.e2e_s[count // 10 :].mean() == pytest.approx(SERVICE_S / (1 - load), rel=0.05)


def test_by_hand() -> None:
    """First token 1 s alone and 2 s in company, tokens 0.5 s and 1 s. The second arrives after 1 s, when the first has its first token and 2 to go.

    Together until 3 s: then the first request has made its 2 tokens and the second its first one. Alone, 2 more tokens take 1 s.
    """
    service = Service(first=Curve(((1.0, 1.0), (2.0, 2.0))), decode=Curve(((1.0, 0.5), (2.0, 1.0))))
    served = simulate(service, Requests(np.array([0.0, 1.0]), np.ones(2), np.array([3.0, 3.0])), replicas=1, router="random", seed=0)
    assert served.ttft_s.tolist() == pytest.approx([1.0, 2.0])
    assert served.e2e_s.tolist() == pytest.approx([3.0, 3.0])
    assert served.tpot_s.tolist() == pytest.approx([1.0, 0.5])


def test_routers_in_the_order_that_theory_has_them() -> None:
    """With equal work, turns beat chance, and looking beats turns when work differs."""
    rng = np.random.default_rng(5)
    requests = Requests(np.cumsum(rng.exponential(SERVICE_S / 4 / 0.8, 40_000)), rng.exponential(1.0, 40_000), np.ones(40_000))
    queue = _queue(1, exponential=True)
    waits = {router: np.percentile(simulate(queue, requests, replicas=4, router=router, seed=0).ttft_s, 95) for router in ROUTERS}
    assert waits["least-outstanding"] < waits["round-robin"] < waits["random"]


@settings(max_examples=30, deadline=None)
@given(
    replicas=st.integers(1, 5), router=st.sampled_from(ROUTERS), slots=st.one_of(st.none(), st.integers(1, 8)), rate=st.floats(1, 200),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_every_request_is_served_and_none_before_its_time(replicas: int, router: Router, slots: int | None, rate: float, seed: int) -> None:
    service = Service(first=Curve(((1.0, 0.02), (8.0, 0.05))), decode=Curve(((1.0, 0.01), (8.0, 0.03))), slots=slots)
    requests = poisson_requests([(10, 5), (20, 1), (5, 40)], rate_per_s=rate, count=400, seed=seed)
    served = simulate(service, requests, replicas=replicas, router=router, seed=seed)
    assert np.all(served.ttft_s >= 0.02 - 1e-9)
    assert np.all(served.e2e_s >= served.ttft_s + 0.01 * (requests.output_tokens - 1) - 1e-9)
    assert set(served.replica.tolist()) <= set(range(replicas))
    again = simulate(service, requests, replicas=replicas, router=router, seed=seed)
    assert np.array_equal(served.e2e_s, again.e2e_s)


def test_an_overload_falls_behind_all_the_time() -> None:
    """15 a second where 10 can be served: the last of 3000 requests comes after 200 s and is served after 300 s."""
    requests = poisson_requests([(1, 1)], rate_per_s=15, count=3000, seed=0)
    served = simulate(_queue(1, exponential=False), requests, replicas=1, router="random", seed=0)
    assert requests.arrival_s[-1] + served.e2e_s[-1] == pytest.approx(300.0, rel=0.01)


def test_poisson_requests_are_poisson_and_keep_pairs_together() -> None:
    requests = poisson_requests([(10, 1), (20, 2)], rate_per_s=4, count=40_000, seed=1)
    gaps = np.diff(requests.arrival_s)
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() == pytest.approx(0.25, rel=0.03)
    assert np.array_equal(requests.prompt_tokens, 10 * requests.output_tokens)
    assert requests.output_tokens.mean() == pytest.approx(1.5, rel=0.02)


def test_a_curve_is_flat_below_and_goes_on_above_but_never_down() -> None:
    assert Curve(((2.0, 1.0), (4.0, 3.0))).table(6) == [1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert Curve(((2.0, 3.0), (4.0, 1.0))).table(6) == [3.0, 3.0, 3.0, 2.0, 1.0, 1.0, 1.0]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one replica and arrivals in order"):
        simulate(_queue(1, exponential=False), Requests(np.array([1.0, 0.5]), np.ones(2), np.ones(2)), replicas=1, router="random", seed=0)
