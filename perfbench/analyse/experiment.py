"""What the manifest says a run was to do, in the scenario's own types.

The manifest holds the scenario as resolved. A finished run is analysed on other machines, and there its data files need not exist: the parts are
validated again without looking at files; a trace is put together as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from perfbench.errors import RunFolderError
from perfbench.records import Manifest, TrialPlan
from perfbench.scenario.model import Cost, SloLimit, Stage
from perfbench.scenario.probes import probe_stage
from perfbench.scenario.quality import Quality
from perfbench.scenario.search import Search
from perfbench.scenario.strict import STORED
from perfbench.scenario.trace import Trace

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Experiment:
    """The parts of a scenario that decide how its records are read."""

    variants: tuple[str, ...]
    """In the order of the scenario: those we started, variations, then endpoints."""
    endpoints: frozenset[str]
    variations: dict[str, str]
    """Variation -> the variant that it is made of."""
    stages: dict[str, Stage]
    slo: dict[str, SloLimit]
    cost: Cost | None
    quality: Quality | None
    shares_prefix: bool
    """Requests begin alike on purpose (system prompt, shared prefix, conversation), so that hits in the prefix cache are asked for."""
    serve_args: dict[str, Any]
    search: tuple[Search, ...] = ()
    variation_args: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Variation -> what its server is started with beside, or instead of, `serve_args`."""

    def serve_args_of(self, variant: str) -> dict[str, Any]:
        """vLLM's arguments of a variant's server."""
        return {**self.serve_args, **self.variation_args.get(variant, {})}

    def stage_of(self, plan: TrialPlan) -> Stage:
        """What a trial drove: a stage of the scenario, or that of a probe."""
        if plan.search is None:
            return self.stages[plan.stage]
        search = next(search for search in self.search if search.find == plan.search)
        return probe_stage(plan, search, next(iter(self.stages.values()), None))


def experiment_of(manifest: Manifest) -> Experiment:
    """Read the scenario that a manifest holds. Raises RunFolderError for a manifest that was changed by hand."""
    try:
        return _experiment(manifest.scenario)
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        reason = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()) if isinstance(error, ValidationError) else repr(error)
        where = f"manifest.json of run {manifest.run_id} holds a scenario that cannot be read: {reason}"
        raise RunFolderError(where, hint="it was written by another version, or changed by hand") from None


def _experiment(scenario: Mapping[str, Any]) -> Experiment:
    stages = [_stage(stage) for stage in scenario["load"]["stages"]]
    quality, cost = scenario.get("quality"), scenario.get("cost")
    endpoints, variations = scenario.get("endpoints") or {}, scenario.get("variations") or {}
    return Experiment(
        variants=(*(scenario.get("variants") or ()), *variations, *endpoints),
        endpoints=frozenset(endpoints),
        variations={name: variation["of"] for name, variation in variations.items()},
        variation_args={name: variation.get("args") or {} for name, variation in variations.items()},
        stages={stage.name: stage for stage in stages},
        slo={metric: _validated(SloLimit, limit) for metric, limit in (scenario.get("slo") or {}).items()},
        cost=_validated(Cost, cost) if cost else None,
        quality=_validated(Quality, quality) if quality else None,
        shares_prefix=bool((scenario.get("prompt") or {}).get("system")) or _load_shares(scenario["load"]),
        serve_args=(scenario.get("serve") or {}).get("args") or {},
        search=tuple(_validated(Search, search) for search in scenario["load"].get("search") or ()),
    )


def _load_shares(load: dict[str, Any]) -> bool:
    """A shared prefix, or turns that carry those before them, in any source of prompts."""
    sources = load.get("mixture") or [load]
    return any(source.get("conversation") or (source.get("synthetic") or {}).get("shared_prefix") for source in sources)


def _validated(kind: type[Model], value: dict[str, Any]) -> Model:
    return kind.model_validate_json(msgspec.json.encode(value), context=STORED)


def _stage(value: dict[str, Any]) -> Stage:
    trace = value.get("trace")
    stage = _validated(Stage, {**value, "trace": None})
    return stage.model_copy(update={"trace": Trace.model_construct(**trace)}) if trace else stage


