"""Lengths in tokens drawn from a scenario's length distribution: seeded, whole numbers of at least 1. Pure.

    fixed n                    n
    uniform [a, b]             every whole number from a to b alike
    normal, lognormal          truncated to [min, max] by the inverse of the distribution function (no draw is clipped onto a limit, which would
                               pile up there), then rounded. `mean` of a lognormal is that of the whole distribution: ln X has the mean
                               ln(mean) - sigma^2 / 2; with `median`, ln(median)
    empirical                  the given values, each alike, drawn with replacement
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from perfbench.errors import Finding, ScenarioError
from perfbench.scenario.data_files import iter_rows
from perfbench.scenario.workload import EmpiricalLength, Length, LognormalLength, NormalLength

Ints = npt.NDArray[np.int64]


def draw_lengths(length: Length, count: int, seed: Sequence[int], *, key: str) -> list[int]:
    """`count` lengths in tokens. `seed` feeds numpy's SeedSequence; `key` is the scenario key, for findings about a file's values."""
    random = np.random.default_rng(np.random.SeedSequence(list(seed)))
    return [int(value) for value in _draw(length, count, random, key)]


def _draw(length: Length, count: int, random: np.random.Generator, key: str) -> Ints:
    if length.fixed is not None:
        return np.full(count, length.fixed, np.int64)
    if length.uniform is not None:
        low, high = length.uniform
        return random.integers(low, high, count, endpoint=True)
    if length.normal is not None:
        return _normal(length.normal, count, random)
    if length.lognormal is not None:
        return _lognormal(length.lognormal, count, random)
    assert length.empirical is not None
    seen = np.array(_values(length.empirical, key), np.int64)
    drawn: Ints = seen[random.integers(0, len(seen), count)]
    return drawn


def _normal(length: NormalLength, count: int, random: np.random.Generator) -> Ints:
    high = math.inf if length.max is None else length.max
    return np.rint(_truncated(length.mean, length.stddev, length.min, high, random.random(count))).astype(np.int64)


def _lognormal(length: LognormalLength, count: int, random: np.random.Generator) -> Ints:
    centre = math.log(length.median) if length.median is not None else math.log(length.mean or math.nan) - length.sigma**2 / 2
    high = math.inf if length.max is None else math.log(length.max)
    drawn: Ints = np.rint(np.exp(_truncated(centre, length.sigma, math.log(length.min), high, random.random(count)))).astype(np.int64)
    return drawn


def _truncated(mean: float, stddev: float, low: float, high: float, uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    from scipy.stats import truncnorm

    drawn: npt.NDArray[np.float64] = truncnorm.ppf(uniform, (low - mean) / stddev, (high - mean) / stddev, loc=mean, scale=stddev)
    return drawn


def _values(length: EmpiricalLength, key: str) -> list[int]:
    if length.values is not None:
        return list(length.values)
    assert length.data is not None and length.column is not None
    values = []
    for number, row in enumerate(iter_rows(length.data.path, length.data.limit, length.data.columns)):
        value = row[length.column]
        try:
            tokens = int(str(value))
        except ValueError:
            tokens = 0
        if tokens < 1:
            problem = f"row {number} of {length.data.path} has {value!r} in column `{length.column}`; expected a whole number of tokens, at least 1"
            raise ScenarioError("scenario", [Finding(f"{key}.empirical.column", problem)])
        values.append(tokens)
    return values
