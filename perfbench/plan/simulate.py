"""What a number of replicas behind a router would answer: a discrete-event simulation with service times that were measured. Pure and seeded.

A replica serves at most `slots` requests at once, first come first served; the others wait. A request in service first works for its first token, then
for the others. How fast depends on how many are in service with it: at n of them a first token takes first(n) and every further one decode(n), curves
that closed-loop stages measure (plan.service). When n changes, all go on at the new speed from where they are: processor sharing with a speed that
depends on the load (Cohen 1979, "The multiple phase service network with generalized processor sharing"), the fluid limit of continuous batching.

A server that is known to work in steps is simulated step by step instead (plan.steps): there prompts hold each other up, which no share of a processor shows.

Two virtual clocks make the sharing cheap: one runs at 1 / first(n), the other at 1 / decode(n). A request is done with a phase when its clock has advanced by
the request's own work, so a change of speed moves no request in the queue of events: three events a request, each O(log n).

Routers: `random`, `round-robin`, and `least-outstanding`, which asks the replica with the fewest requests that wait or are served.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from perfbench.plan.curve import Curve
from perfbench.plan.steps import StepReplica, Steps

Floats = npt.NDArray[np.float64]
Router = Literal["random", "round-robin", "least-outstanding"]
ROUTERS: tuple[Router, ...] = ("random", "round-robin", "least-outstanding")
_TABLE = 64


@dataclass(frozen=True)
class Service:
    """How one replica serves. Work is 1 for the mean request: `first_work` and `decode_work` say how requests differ from it beyond their lengths."""

    first: Curve
    """To the first token of a prompt of `mean_prompt_tokens`."""
    decode: Curve
    """For each further token."""
    slots: int | None = None
    """Requests in service at once; None: no limit."""
    mean_prompt_tokens: float = 1.0
    prompt_share: float = 0.0
    """Of the time to the first token, what grows in proportion to the prompt's length."""
    first_work: tuple[float, ...] = (1.0,)
    """Measured times to the first token over the curve's, to be drawn from."""
    decode_work: tuple[float, ...] = (1.0,)
    steps: Steps | None = None
    """How long its steps take, where it is known to work in steps: then curves and `decode_work` are not used, and `first_work` is that of a prompt."""


class Requests(NamedTuple):
    """What arrives, in order: seconds, tokens, tokens."""

    arrival_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats


class Served(NamedTuple):
    """What each request got; `tpot_s` is NaN for an answer of one token."""

    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    replica: npt.NDArray[np.int64]


class _Replica:
    """One replica between events. `work` holds, by request, its work before and after the first token; `first_s` and `done_s` are filled in."""

    __slots__ = ("_clock", "_curves", "_heaps", "_now_s", "_seconds", "_serving", "_slots", "_waiting", "_work", "done_s", "first_s")

    def __init__(self, service: Service, work: tuple[list[float], list[float]], first_s: list[float], done_s: list[float]) -> None:
        self._slots = math.inf if service.slots is None else service.slots
        self._curves = (service.first, service.decode)
        self._seconds = [curve.table(_TABLE) for curve in self._curves]
        self._work = work
        self.first_s, self.done_s = first_s, done_s
        self._clock = [0.0, 0.0]
        self._heaps: tuple[list[tuple[float, int]], list[tuple[float, int]]] = ([], [])
        self._now_s = 0.0
        self._serving = 0
        self._waiting: deque[int] = deque()

    @property
    def outstanding(self) -> int:
        """Requests that wait or are served."""
        return self._serving + len(self._waiting)

    def arrive(self, request: int, at_s: float) -> None:
        self.advance(at_s)
        if self._serving < self._slots:
            self._begin(request)
        else:
            self._waiting.append(request)

    def advance(self, until_s: float) -> None:
        """Let time pass, through all events up to `until_s`."""
        while self._serving:
            first_s, decode_s = self._seconds[0][self._serving], self._seconds[1][self._serving]
            first, decode = self._heaps
            to_first = (first[0][0] - self._clock[0]) * first_s if first else math.inf
            to_done = (decode[0][0] - self._clock[1]) * decode_s if decode else math.inf
            step_s = max(0.0, min(to_first, to_done))
            if self._now_s + step_s > until_s:
                step_s = until_s - self._now_s
                self._clock[0] += step_s / first_s
                self._clock[1] += step_s / decode_s
                break
            self._now_s += step_s
            self._clock[0] += step_s / first_s
            self._clock[1] += step_s / decode_s
            if to_first <= to_done:
                self._have_first(heappop(first)[1])
            else:
                self._end(heappop(decode)[1])
        self._now_s = max(self._now_s, until_s) if until_s < math.inf else self._now_s

    def _begin(self, request: int) -> None:
        self._serving += 1
        if self._serving >= len(self._seconds[0]):
            self._seconds = [curve.table(2 * self._serving) for curve in self._curves]
        heappush(self._heaps[0], (self._clock[0] + self._work[0][request], request))

    def _have_first(self, request: int) -> None:
        self.first_s[request] = self._now_s
        if self._work[1][request] > 0:
            heappush(self._heaps[1], (self._clock[1] + self._work[1][request], request))
        else:
            self._end(request)

    def _end(self, request: int) -> None:
        self.done_s[request] = self._now_s
        self._serving -= 1
        if self._waiting:
            self._begin(self._waiting.popleft())


def simulate(service: Service, requests: Requests, *, replicas: int, router: Router, seed: int) -> Served:
    """Serve all requests, in the order of their arrival. Raises ValueError for no replica, or arrivals that go back in time."""
    count = len(requests.arrival_s)
    if replicas < 1 or np.any(np.diff(requests.arrival_s) < 0):
        raise ValueError(f"expected at least one replica and arrivals in order, got {replicas} replicas")
    rng = np.random.default_rng(np.random.SeedSequence([seed, replicas]))
    lengths = 1 + service.prompt_share * (requests.prompt_tokens / service.mean_prompt_tokens - 1)
    first_work = rng.choice(np.array(service.first_work), count) * lengths
    first_s, done_s = [0.0] * count, [0.0] * count
    pool: list[_Replica] | list[StepReplica]
    if service.steps is not None:
        work = step_work(service.steps, first_work, requests)
        pool = [StepReplica(service.steps, service.slots, work, first_s, done_s) for _ in range(replicas)]
    else:
        decode_work = rng.choice(np.array(service.decode_work), count) * np.maximum(requests.output_tokens - 1, 0)
        pool = [_Replica(service, (first_work.tolist(), decode_work.tolist()), first_s, done_s) for _ in range(replicas)]
    drawn = rng.integers(0, replicas, count).tolist()
    chosen = np.zeros(count, dtype=np.int64)
    for request, at_s in enumerate(requests.arrival_s.tolist()):
        place = drawn[request] if router == "random" else request % replicas
        if router == "least-outstanding":
            for replica in pool:
                replica.advance(at_s)
            # Ties go round from a place drawn at random: always the first of them would be a router of its own.
            place = min(range(replicas), key=lambda place: (pool[place].outstanding, (place - drawn[request]) % replicas))
        chosen[request] = place
        pool[place].arrive(request, at_s)
    for replica in pool:
        replica.advance(math.inf)
    firsts, ends = np.array(first_s), np.array(done_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = np.where(requests.output_tokens > 1, (ends - firsts) / (requests.output_tokens - 1), np.nan)
    return Served(firsts - requests.arrival_s, tpot_s, ends - requests.arrival_s, chosen)


def step_work(steps: Steps, first_work: Floats, requests: Requests) -> tuple[list[float], list[int], list[int]]:
    """Of every request: what its prompt adds to steps, its tokens, and the tokens that follow the first."""
    more = np.maximum(requests.output_tokens - 1, 0).astype(int)
    return (steps.prefill_s * first_work).tolist(), np.maximum(requests.prompt_tokens, 1).astype(int).tolist(), more.tolist()


def poisson_requests(lengths: Sequence[tuple[float, float]], *, rate_per_s: float, count: int, seed: int) -> Requests:
    """Poisson arrivals whose (prompt, output) tokens are drawn from measured pairs."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, count]))
    pairs = np.array(lengths, dtype=np.float64)[rng.integers(0, len(lengths), count)]
    return Requests(np.cumsum(rng.exponential(1 / rate_per_s, count)), pairs[:, 0], pairs[:, 1])
