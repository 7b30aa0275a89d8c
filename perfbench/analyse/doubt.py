"""A doubt of the audit: how bad, and the sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple


class Doubt(NamedTuple):
    """One check that is not valid."""

    verdict: Literal["suspect", "void"]
    sentence: str


def graded(value: float, thresholds: tuple[float, float | None], sentence: str) -> Iterator[Doubt]:
    """A doubt when `value` lies above the first threshold, void above the second (None: never)."""
    suspect, void = thresholds
    if void is not None and value > void:
        yield Doubt("void", sentence)
    elif value > suspect:
        yield Doubt("suspect", sentence)
