"""What each request of a trial is: which prompt, which adapter, how long an answer. Seeded, and the same for every variant. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np

from perfbench.scenario.workload import AdapterSpread

_ADAPTERS = 7
"""Tells the seed of adapters from the one of prompts."""
_REQUESTS_PER_PART = 100
_REQUESTS_PER_ADAPTER = 64
"""So many at least before the sequence of requests begins again, so that shares come out as asked for."""


def sending_order(parts: Sequence[int], weights: Sequence[float] | None, seed: Sequence[int]) -> list[int]:
    """Indices of the prompts in sending order; a trial that needs more begins again.

    `parts` says of every prompt which part of the mixture it belongs to. Without a mixture: a seeded shuffle of all. With one: each place is drawn from
    the parts by weight, and each part goes through its own prompts in a shuffled order of its own.
    """
    random = np.random.default_rng(list(seed))
    if weights is None:
        return [int(index) for index in random.permutation(len(parts))]
    of_part: dict[int, list[int]] = defaultdict(list)
    for index, part in enumerate(parts):
        of_part[part].append(index)
    turns = {part: cycle([of_part[part][int(place)] for place in random.permutation(len(of_part[part]))]) for part in range(len(weights))}
    share = np.array(weights) / sum(weights)
    drawn = random.choice(len(weights), max(len(parts), _REQUESTS_PER_PART * len(weights)), p=share)
    return [next(turns[int(part)]) for part in drawn]


def adapter_shares(spread: AdapterSpread, names: Sequence[str]) -> list[float]:
    """The share of requests that each adapter gets. zipf: 1 / k^exponent for the k-th name, from 1."""
    if spread.spread == "zipf":
        assert spread.exponent is not None
        raw = [place**-spread.exponent for place in range(1, len(names) + 1)]
    elif spread.spread == "weighted":
        assert spread.weights is not None
        raw = [spread.weights[name] for name in names]
    else:
        raw = [1.0] * len(names)
    return [one / sum(raw) for one in raw]


def with_adapters(order: Sequence[int], spread: AdapterSpread, names: Sequence[str], seed: Sequence[int]) -> list[tuple[int, str]]:
    """(prompt, adapter) of every request: the order, whole and as often as there must be requests for every adapter, each with a drawn adapter."""
    rounds = -(-_REQUESTS_PER_ADAPTER * len(names) // len(order))
    prompts = list(islice(cycle(order), max(1, rounds) * len(order)))
    random = np.random.default_rng([*seed, _ADAPTERS])
    drawn = random.choice(len(names), len(prompts), p=adapter_shares(spread, names))
    return [(prompt, names[int(place)]) for prompt, place in zip(prompts, drawn, strict=True)]
