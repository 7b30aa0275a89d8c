"""A number with its interval."""

from __future__ import annotations

import msgspec


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number with its interval. `ci95_*` is None where n is too small for one."""

    value: float | None
    ci95_low: float | None = None
    ci95_high: float | None = None
