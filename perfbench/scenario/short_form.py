"""The short form of a scenario: the same parts in little time, to see that everything works before an hour is spent on it."""

from __future__ import annotations

from perfbench.scenario.model import Scenario, Stage

_WARMUP_S = 1.0
_DURATION_S = 4.0
_DRAIN_S = 5.0


def short_form(scenario: Scenario) -> Scenario:
    """The scenario with one repeat and short windows. Variants, stages, prompts and quality stay; the intervals widen accordingly."""
    stages = tuple(_short(stage) for stage in scenario.load.stages)
    load = scenario.load.model_copy(update={"repeats": 1, "stages": stages})
    return scenario.model_copy(update={"load": load, "name": f"{scenario.name[:58]}-quick"})


def _short(stage: Stage) -> Stage:
    """What happens inside a window keeps its place in it: a spike at half time stays there."""
    duration_s = min(stage.duration_s, _DURATION_S)
    share = duration_s / stage.duration_s
    inside = {name: getattr(stage, name) for name in ("spike_at_s", "spike_s", "period_s")}
    return stage.model_copy(
        update={
            "warmup_s": min(stage.warmup_s, _WARMUP_S),
            "duration_s": duration_s,
            "requests": None,
            "drain_s": min(stage.drain_s, _DRAIN_S),
            **{name: length_s * share for name, length_s in inside.items() if length_s is not None},
        }
    )
