"""One check of the audit, from what was measured and where it becomes a doubt."""

from __future__ import annotations

from typing import Literal

from perfbench.records import AuditCheck

Thresholds = tuple[float, float | None]
"""Suspect above the first, void above the second (None: never)."""


def graded(name: str, measured: float, thresholds: Thresholds, sentence: str, unit: str = "share") -> AuditCheck:
    """Valid, suspect or void by its thresholds."""
    suspect, void = thresholds
    verdict: Literal["valid", "suspect", "void"] = "valid"
    if void is not None and measured > void:
        verdict = "void"
    elif measured > suspect:
        verdict = "suspect"
    return AuditCheck(name=name, verdict=verdict, sentence=sentence, measured=measured, unit=unit, suspect_above=suspect, void_above=void)
