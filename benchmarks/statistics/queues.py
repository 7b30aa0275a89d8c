"""Synthetic servers whose requests are not independent, many replications at a time: what the intervals are held against.

Times in units of one mean service. Each model returns, for `reps` replications of a stationary window of `n` requests, arrays of shape (reps, n) in order
of arrival: time in system, time of the end, and how many others were in flight when the request was sent.

    single       M/M/1: Poisson arrivals, one server, first come first served. Its time in system is Exponential(1 - rho): the truth is exact.
    slots        M/G/8: eight slots, gamma services (squared CV 1/4), first come first served.
    batch        continuous batching: all in flight share the server, at full speed up to 8, beyond that each slower in proportion; 32 slots, then a queue.
    closed       N streams on that batch, each sending as soon as its answer has ended.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SLOTS = 8
MOST = 32
"""Slots of a batch: more wait in the queue."""
SERVICE_SHAPE = 4.0


class Window(NamedTuple):
    """What the client sees of one stationary window; arrays of shape (reps, n)."""

    spent: Floats
    sent: Floats
    ended: Floats
    in_flight: Floats


def single(rng: np.random.Generator, reps: int, n: int, rho: float) -> Window:
    """M/M/1 by Lindley's recursion, begun in its stationary law."""
    gaps = rng.exponential(1 / rho, (reps, n))
    services = rng.exponential(1.0, (reps, n))
    spent = np.empty((reps, n))
    # The wait is 0 with probability 1 - rho, else Exponential(1 - rho).
    wait = np.where(rng.random(reps) < rho, rng.exponential(1 / (1 - rho), reps), 0.0)
    for k in range(n):
        spent[:, k] = wait + services[:, k]
        wait = np.maximum(0.0, spent[:, k] - gaps[:, k])
    sent = np.cumsum(gaps, axis=1) - gaps
    return _window(spent, sent)


def slots(rng: np.random.Generator, reps: int, n: int, rho: float) -> Window:
    """M/G/8, after a warm-up of 600 requests (at rho = 0.8 about 9 relaxation times)."""
    warm = 600
    sent = np.cumsum(rng.exponential(1 / (rho * SLOTS), (reps, n + warm)), axis=1)
    services = rng.gamma(SERVICE_SHAPE, 1 / SERVICE_SHAPE, (reps, n + warm))
    free, ended, rows = np.zeros((reps, SLOTS)), np.empty((reps, n + warm)), np.arange(reps)
    for k in range(n + warm):
        slot = free.argmin(axis=1)
        ended[:, k] = np.maximum(sent[:, k], free[rows, slot]) + services[:, k]
        free[rows, slot] = ended[:, k]
    whole = _window(ended - sent, sent)
    return Window(*(part[:, warm:] for part in whole))


def batch(rng: np.random.Generator, reps: int, n: int, rho: float) -> Window:
    """Open loop on the shared batch."""
    warm = 600
    sent = np.cumsum(rng.exponential(1 / (rho * SLOTS), (reps, n + warm)), axis=1)
    services = rng.gamma(SERVICE_SHAPE, 1 / SERVICE_SHAPE, (reps, n + warm))
    ended = _share(sent, services)
    whole = _window(ended - sent, sent)
    return Window(*(part[:, warm:] for part in whole))


def closed(rng: np.random.Generator, reps: int, n: int, streams: int) -> Window:
    """`streams` streams on the shared batch; the first 20 requests of each are warm-up."""
    warm = 20 * streams
    total = n + warm + 2 * streams  # what is in flight at the end is left out, and would leave out the long ones
    work = rng.gamma(SERVICE_SHAPE, 1 / SERVICE_SHAPE, (reps, streams))
    begun, now, rows = np.zeros((reps, streams)), np.zeros(reps), np.arange(reps)
    spent, sent = np.empty((reps, total)), np.empty((reps, total))
    speed = min(1.0, SLOTS / streams)
    for k in range(total):
        first = work.argmin(axis=1)
        least = work[rows, first]
        now = now + least / speed
        work -= least[:, None]
        sent[:, k], spent[:, k] = begun[rows, first], now - begun[rows, first]
        begun[rows, first] = now
        work[rows, first] = rng.gamma(SERVICE_SHAPE, 1 / SERVICE_SHAPE, reps)
    order = np.argsort(sent, axis=1, kind="stable")[:, warm : warm + n]
    spent, sent = np.take_along_axis(spent, order, 1), np.take_along_axis(sent, order, 1)
    return Window(spent, sent, sent + spent, np.full((reps, n), streams - 1.0))


def _share(sent: Floats, services: Floats) -> Floats:
    """Ends of requests that share a batch of MOST slots, whose speed is min(1, SLOTS / served); one event a step."""
    reps, total = sent.shape
    left, owner = np.full((reps, MOST), np.inf), np.full((reps, MOST), -1)
    ended, rows = np.empty((reps, total)), np.arange(reps)
    arrived, begun, now = np.zeros(reps, dtype=np.int64), np.zeros(reps, dtype=np.int64), np.zeros(reps)
    for _ in range(2 * total):
        served = np.isfinite(left).sum(axis=1)
        speed = np.minimum(1.0, SLOTS / np.maximum(served, 1))
        first = left.argmin(axis=1)
        ends_at = now + left[rows, first] / speed
        arrives_at = np.where(arrived < total, sent[rows, np.minimum(arrived, total - 1)], np.inf)
        arrival = arrives_at <= ends_at
        then = np.minimum(arrives_at, ends_at)
        left -= ((then - now) * speed)[:, None]
        now = then
        done = rows[~arrival]
        ended[done, owner[done, first[done]]] = now[done]
        left[done, first[done]] = np.inf
        arrived += arrival
        take = (begun < arrived) & (np.isfinite(left).sum(axis=1) < MOST)
        taking = rows[take]
        empty = np.isinf(left[taking]).argmax(axis=1)
        left[taking, empty] = services[taking, begun[taking]]
        owner[taking, empty] = begun[taking]
        begun[taking] += 1
    return ended


def _window(spent: Floats, sent: Floats) -> Window:
    ended = sent + spent
    in_flight = np.stack([number - np.searchsorted(np.sort(ends), starts, side="right") for number, starts, ends in _counted(sent, ended)])
    return Window(spent, sent, ended, in_flight.astype(np.float64))


def _counted(sent: Floats, ended: Floats) -> list[tuple[npt.NDArray[np.int64], Floats, Floats]]:
    number = np.arange(sent.shape[1])
    return [(number, starts, ends) for starts, ends in zip(sent, ended, strict=True)]
