"""Everything that can be found wrong before anything starts: models, prompts, held-out rows, server arguments, schedules.

`prepare` turns a Scenario into a Prepared: all that the main path needs, resolved and checked. The only work it does is to merge
an adapter (cached); it starts no server and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perfbench.errors import ScenarioError
from perfbench.prompts import RenderedPrompt, hash_all, sha256_of
from perfbench.quality import spot_check
from perfbench.quality.model_scores import check_models
from perfbench.quality.spot_check import HeldOut
from perfbench.records import ModelInfo, TrialPlan
from perfbench.scenario import Scenario
from perfbench.scenario.quality import Quality
from perfbench.scenario.references import Data
from perfbench.serve.command import serve_findings
from perfbench.trials import plan_trials
from perfbench.variants import ResolvedModels, ServerPlan, plan_servers
from perfbench.workload.sources import load_prompts as make_load_prompts
from perfbench.workload.stage_traces import StageTrace, stage_traces


@dataclass(frozen=True)
class Prepared:
    """A scenario with everything resolved and checked."""

    scenario: Scenario
    models: ResolvedModels
    model_infos: dict[str, ModelInfo]
    servers: tuple[ServerPlan, ...]
    trials: tuple[TrialPlan, ...]
    load_prompts: tuple[RenderedPrompt, ...]
    """Of all stages that replay no trace."""
    traces: dict[str, StageTrace]
    """By stage."""
    held_out: HeldOut | None
    """None where the scenario has no quality block."""
    load_rows: HeldOut | None
    """The load's rows, ready to be scored; None where `quality.under_load` is not asked for."""
    hashes: dict[str, str]
    """What must be equal for two runs to have asked the same."""

    @property
    def driven_prompts(self) -> tuple[RenderedPrompt, ...]:
        """Every prompt that some stage sends."""
        return (*self.load_prompts, *(prompt for trace in self.traces.values() for prompt in trace.prompts))


def prepare(scenario: Scenario, *, say: Callable[[str], None]) -> Prepared:
    """Resolve and check all parts; `say` is told what takes long. Raises InputError with everything it can name at once."""
    findings = serve_findings(scenario.serve, scenario.variations) if scenario.kinds else []
    if findings:
        raise ScenarioError(scenario.name, findings)
    load_prompts, traces = make_load_prompts(scenario, say=say), stage_traces(scenario, say=say)
    held_out = None
    if scenario.quality is not None:
        check_models(scenario.quality.task)
        held_out = spot_check.prepare(scenario.quality, scenario.prompt, scenario.decoding)
    load_rows = None
    if scenario.quality is not None and scenario.quality.under_load is not None and scenario.load.data is not None:
        load_rows = spot_check.prepare(of_load(scenario.quality, scenario.load.data), scenario.prompt, scenario.decoding)
    models, infos = _resolve(scenario, say)
    return Prepared(
        scenario=scenario,
        models=models,
        model_infos=infos,
        servers=tuple(plan_servers(scenario, models)),
        trials=tuple(plan_trials(scenario)),
        load_prompts=tuple(load_prompts),
        traces=traces,
        held_out=held_out,
        load_rows=load_rows,
        hashes={
            "load_prompts": hash_all(load_prompts),
            **{f"trace.{stage}": trace.sha256 for stage, trace in traces.items()},
            "template": sha256_of(scenario.prompt.model_dump(mode="json")),
            "decoding": sha256_of(scenario.decoding.model_dump(mode="json")),
            **(held_out.hashes if held_out else {}),
        },
    )


def of_load(quality: Quality, data: Data) -> Quality:
    """The quality block over the load's rows, decided by its first metric; slices, groups and training data belong to the held-out ones."""
    first = quality.metrics[0].metric if quality.metrics else quality.metric
    held_out = {"slices": (), "groups": None, "train_data": None, "train_column": None}
    return quality.model_copy(update={"data": data, "metrics": None, "metric": first, **held_out})


def _resolve(scenario: Scenario, say: Callable[[str], None]) -> tuple[ResolvedModels, dict[str, ModelInfo]]:
    from perfbench.models.fit import check_adapter_fits, check_adapter_serves
    from perfbench.models.inspect import inspect_adapter, inspect_model
    from perfbench.models.merge import merge_adapter
    from perfbench.models.resolve import resolve_model

    refs = scenario.models
    found: dict[str, Path] = {}
    infos: dict[str, ModelInfo] = {}
    kinds = set(scenario.kinds.values())
    if not kinds:
        return ResolvedModels(base=None, adapter=None, merged=None, lora_rank=None), infos
    for name, ref in (("base", refs.base), ("adapter", refs.adapter), ("merged", refs.merged)):
        if ref is not None:
            say(f"models: {name}")
            found[name] = resolve_model(ref)
            inspect = inspect_adapter if name == "adapter" else inspect_model
            infos[name] = inspect(found[name], revision=ref.revision)
    if "base" in found and "adapter" in found:
        for finding in check_adapter_fits(found["base"], found["adapter"]):
            say(f"warning: {finding}")
        if {"adapter", "base+lora"} & kinds:
            check_adapter_serves(found["adapter"])
        if "merged" in kinds and "merged" not in found:
            say(f"models: merging the adapter in {refs.merge_dtype}")
            found["merged"] = merge_adapter(found["base"], found["adapter"], refs.merge_dtype, trust_remote_code=refs.trust_remote_code)
            infos["merged"] = inspect_model(found["merged"])
    further = _further_adapters(scenario, found, infos, say)
    own = _variations(scenario, found, infos, say)
    ranks = [info.lora_rank for name, info in infos.items() if info.lora_rank is not None and name not in own]
    rank = max(ranks) if "adapter" in infos and ranks else None
    own_ranks = {name: own_rank for name in own if (own_rank := infos[name].lora_rank) is not None}
    models = ResolvedModels(
        base=found.get("base"), adapter=found.get("adapter"), merged=found.get("merged"), lora_rank=rank, adapters=further, variations=own,
        variation_ranks=own_ranks,
    )  # fmt: skip
    return models, infos


def _further_adapters(scenario: Scenario, found: dict[str, Path], infos: dict[str, ModelInfo], say: Callable[[str], None]) -> dict[str, Path]:
    """`models.adapters` by name, where the LoRA-enabled server is started; their infos are added as `adapters.NAME`."""
    from perfbench.models.fit import check_adapter_fits, check_adapter_serves
    from perfbench.models.inspect import inspect_adapter
    from perfbench.models.resolve import resolve_model

    further: dict[str, Path] = {}
    if not {"adapter", "base+lora"} & set(scenario.kinds.values()):
        return further
    for name, ref in scenario.models.adapters.items():
        say(f"models: adapter {name}")
        further[name] = resolve_model(ref)
        infos[f"adapters.{name}"] = inspect_adapter(further[name], revision=ref.revision)
        for finding in check_adapter_fits(found["base"], further[name]):
            say(f"warning: {finding}")
        check_adapter_serves(further[name])
    return further


def _variations(scenario: Scenario, found: dict[str, Path], infos: dict[str, ModelInfo], say: Callable[[str], None]) -> dict[str, Path]:
    """What variations serve instead of the scenario's own: an adapter, or weights merged in another type. Their infos are added by the variation's name."""
    from perfbench.models.fit import check_adapter_fits, check_adapter_serves
    from perfbench.models.inspect import inspect_adapter, inspect_model
    from perfbench.models.merge import merge_adapter
    from perfbench.models.resolve import resolve_model

    own: dict[str, Path] = {}
    for name, variation in scenario.variations.items():
        if variation.adapter is not None:
            say(f"models: adapter of {name}")
            own[name] = resolve_model(variation.adapter)
            infos[name] = inspect_adapter(own[name], revision=variation.adapter.revision)
            for finding in check_adapter_fits(found["base"], own[name]):
                say(f"warning: {finding}")
            check_adapter_serves(own[name])
        elif variation.merge_dtype is not None:
            say(f"models: merging the adapter in {variation.merge_dtype} for {name}")
            trusted = scenario.models.trust_remote_code
            own[name] = merge_adapter(found["base"], found["adapter"], variation.merge_dtype, trust_remote_code=trusted)
            infos[name] = inspect_model(own[name])
    return own
