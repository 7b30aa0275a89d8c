"""Seconds by the number of requests that are served together, as measured at a few of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SHORTEST_S = 1e-12
"""A clock divides by it."""


@dataclass(frozen=True)
class Curve:
    """Seconds by the number of requests in service: linear between measured points, flat below the first, on the line of the last two above the last.

    Above the last it never falls: a line that points down is noise, not a server that is faster under load.
    """

    points: tuple[tuple[float, float], ...]

    def table(self, until: int) -> list[float]:
        """Seconds at 0, 1, ... until."""
        at = np.arange(until + 1, dtype=np.float64)
        places, values = (np.array(column, dtype=np.float64) for column in zip(*self.points, strict=True))
        found = np.interp(at, places, values)
        if len(places) > 1:
            slope = max(0.0, (values[-1] - values[-2]) / (places[-1] - places[-2]))
            found = np.where(at > places[-1], values[-1] + slope * (at - places[-1]), found)
        return [max(float(value), _SHORTEST_S) for value in found]
