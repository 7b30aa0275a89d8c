"""Which servers a scenario needs and which variants each one hosts. Pure.

    base                  -> server `base`
    base+lora, adapter    -> server `base-lora`: the base model with LoRA enabled and the adapter loaded. `base+lora` asks for the
                             base by its name (what enabling LoRA costs), `adapter` for the adapter by its own (what using it costs)
    merged                -> server `merged`
    a variation           -> a server by its name; the one of another variant where the two would be equal
    an endpoint           -> a server of its own that is driven and never started

`variant_order` alternates over repeats (ABBA), so that a drift of the machine meets every variant alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from perfbench.errors import Finding, ScenarioError
from perfbench.scenario.model import Endpoint, Scenario
from perfbench.scenario.strict import Scalar

Item = TypeVar("Item")

VLLM_MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for --max-lora-rank: MaxLoRARanks in vllm/config/lora.py of vLLM 0.32."""


@dataclass(frozen=True)
class ResolvedModels:
    """Where the models of a run lie on this machine: absolute folders, None for what the scenario does not use."""

    base: Path | None
    adapter: Path | None
    merged: Path | None
    lora_rank: int | None
    """Rank of the adapter; the largest one where its modules, or adapters, differ."""
    adapters: dict[str, Path] = field(default_factory=dict)
    """Further adapters by name."""
    variations: dict[str, Path] = field(default_factory=dict)
    """Variation -> its own adapter, or weights merged in its own type; variations that change neither are missing."""
    variation_ranks: dict[str, int] = field(default_factory=dict)
    """Rank of a variation's own adapter."""


@dataclass(frozen=True)
class ServerPlan:
    """One server: what to start, or the endpoint to drive, and the model name that each of its variants asks for."""

    name: str
    variants: tuple[str, ...]
    served_names: dict[str, str]
    """variant -> `model` of its requests."""
    model_path: Path | None = None
    """None for an endpoint."""
    lora: Path | None = None
    """The adapter that a LoRA-enabled server loads."""
    adapters: dict[str, Path] = field(default_factory=dict)
    """Further adapters that it loads, by the names it serves them under."""
    max_lora_rank: int | None = None
    endpoint: Endpoint | None = None
    args: dict[str, Scalar] = field(default_factory=dict)
    """vLLM's flags for this server alone, on top of the scenario's."""


def plan_servers(scenario: Scenario, models: ResolvedModels) -> list[ServerPlan]:
    """One ServerPlan for each server, in the order of the scenario's variants; every variant stands in exactly one.

    Raises ScenarioError for an adapter whose rank vLLM cannot serve and for an endpoint named like a server that we start.
    """
    plans: dict[str, ServerPlan] = {}
    for variant in scenario.variants:
        if variant == "base":
            plans["base"] = ServerPlan("base", ("base",), {"base": "base"}, model_path=_present(models.base, variant))
        elif variant == "merged":
            plans["merged"] = ServerPlan("merged", ("merged",), {"merged": "merged"}, model_path=_present(models.merged, variant))
        elif "base-lora" not in plans:
            plans["base-lora"] = _lora_server(scenario, models)
    for name in scenario.variations:
        _add_variation(plans, name, scenario, models)
    for name, endpoint in scenario.endpoints.items():
        if name in plans:
            raise ScenarioError(scenario.name, [Finding(f"endpoints.{name}", "a server that we start has the same name; rename the endpoint")])
        plans[name] = ServerPlan(name, (name,), {name: endpoint.model}, endpoint=endpoint)
    return list(plans.values())


def _lora_server(scenario: Scenario, models: ResolvedModels) -> ServerPlan:
    asks_for = {"base+lora": "base", "adapter": "adapter"}
    variants = tuple(variant for variant in scenario.variants if variant in asks_for)
    return ServerPlan(
        "base-lora",
        variants,
        {variant: asks_for[variant] for variant in variants},
        model_path=_present(models.base, "base+lora"),
        lora=_present(models.adapter, "adapter"),
        adapters=models.adapters,
        max_lora_rank=_max_lora_rank(models.lora_rank, "models.adapter", scenario, {}),
    )


def _add_variation(plans: dict[str, ServerPlan], name: str, scenario: Scenario, models: ResolvedModels) -> None:
    """A server for a variation, or a place on one that has been planned and is no different."""
    variation = scenario.variations[name]
    own = models.variations.get(name)
    if variation.of in ("base", "merged"):
        path = own or _present(models.base if variation.of == "base" else models.merged, name)
        plan = ServerPlan(name, (name,), {name: variation.of}, model_path=path, args=variation.args)
    else:
        rank = models.variation_ranks.get(name, models.lora_rank)
        asks_for = "base" if variation.of == "base+lora" else "adapter"
        plan = ServerPlan(
            name, (name,), {name: asks_for}, model_path=_present(models.base, name), lora=own or _present(models.adapter, name),
            adapters={} if own is not None else models.adapters, max_lora_rank=_max_lora_rank(rank, f"variations.{name}", scenario, variation.args),
            args=variation.args,
        )  # fmt: skip
    for other in plans.values():
        if replace(other, name=name, variants=plan.variants, served_names=plan.served_names) == plan:
            served = {**other.served_names, **plan.served_names}
            plans[other.name] = replace(other, variants=(*other.variants, name), served_names=served)
            return
    plans[name] = plan


def _max_lora_rank(rank: int | None, key: str, scenario: Scenario, args: Mapping[str, Scalar]) -> int:
    """The smallest size of LoRA slots that holds the adapter. Raises ScenarioError where vLLM has none, or where a given one is too small."""
    if rank is None:
        raise ValueError("the adapter's rank is needed to size the server's LoRA slots")
    given = {**scenario.serve.args, **args}.get("max-lora-rank")
    if isinstance(given, int) and given < rank:
        where = f"{key}.args.max-lora-rank" if "max-lora-rank" in args else "serve.args.max-lora-rank"
        raise ScenarioError(scenario.name, [Finding(where, f"the adapter has rank {rank}, which slots of rank {given} cannot hold; give {rank} or more")])
    sufficient = [allowed for allowed in VLLM_MAX_LORA_RANKS if allowed >= rank]
    if not sufficient:
        problem = f"the adapter has rank {rank}, vLLM serves at most {VLLM_MAX_LORA_RANKS[-1]}; leave out `base+lora` and `adapter`, and serve it merged"
        raise ScenarioError(scenario.name, [Finding(key, problem)])
    return sufficient[0]


def _present(path: Path | None, variant: str) -> Path:
    """Validation has seen to it that a variant's models are there; this names the programmer's mistake if not."""
    if path is None:
        raise ValueError(f"variant `{variant}` has no model folder")
    return path


def variant_order(variants: Sequence[Item], repeat: int) -> tuple[Item, ...]:
    """Variants in the order in which repeat number `repeat` (from 0) runs them: even as in the file, odd reversed (A B, B A)."""
    return tuple(variants) if repeat % 2 == 0 else tuple(reversed(variants))


def server_order(plans: Sequence[ServerPlan], repeat: int) -> tuple[ServerPlan, ...]:
    """Servers in the order of repeat number `repeat`, each with its variants in that order too."""
    return tuple(_turned(plan, repeat) for plan in variant_order(plans, repeat))


def _turned(plan: ServerPlan, repeat: int) -> ServerPlan:
    return replace(plan, variants=variant_order(plan.variants, repeat))
