"""The short form of a scenario: the same parts in little time, to see that everything works before an hour is spent on it."""

from __future__ import annotations

from typing import TypeVar

from perfbench.scenario.model import Scenario, Stage
from perfbench.scenario.search import Search

_WARMUP_S = 1.0
_DURATION_S = 4.0
"""A closed loop whose streams have sent too few by then goes on (`trials.STRETCH_TO_S`): a server is not measured the less for being slow."""
_DRAIN_S = 15.0
"""It ends with the last request; so long for servers whose answers take many seconds."""
_PROBES = 4

Driven = TypeVar("Driven", Stage, Search)


def short_form(scenario: Scenario) -> Scenario:
    """The scenario with one repeat and short windows. Variants, stages, prompts and quality stay; the intervals widen accordingly."""
    stages = tuple(_short(stage) for stage in scenario.load.stages)
    search = tuple(_limited(search).model_copy(update={"max_probes": min(search.max_probes, _PROBES)}) for search in scenario.load.search)
    load = scenario.load.model_copy(update={"repeats": 1, "stages": stages, "search": search})
    return scenario.model_copy(update={"load": load, "name": f"{scenario.name[:58]}-quick"})


def _short(stage: Stage) -> Stage:
    """What happens inside a window keeps its place in it: a spike at half time stays there."""
    share = min(stage.duration_s, _DURATION_S) / stage.duration_s
    inside = {name: getattr(stage, name) for name in ("spike_at_s", "spike_s", "period_s")}
    scaled = {name: length_s * share for name, length_s in inside.items() if length_s is not None}
    return _limited(stage).model_copy(update={"requests": None, **scaled})


def _limited(driven: Driven) -> Driven:
    limits = {"warmup_s": _WARMUP_S, "duration_s": _DURATION_S, "drain_s": _DRAIN_S}
    return driven.model_copy(update={name: min(getattr(driven, name), limit) for name, limit in limits.items()})
