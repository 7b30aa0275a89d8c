"""From a scenario's variants to servers, and the order in which they run."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.errors import ScenarioError
from perfbench.scenario import Scenario
from perfbench.variants import ResolvedModels, ServerPlan, plan_servers, server_order, variant_order

BASE, ADAPTER, MERGED = Path("/m/base"), Path("/m/adapter"), Path("/m/merged")
MODELS = ResolvedModels(base=BASE, adapter=ADAPTER, merged=MERGED, lora_rank=16)


def scenario_of(tmp_path: Path, variants: tuple[str, ...], endpoints: dict[str, dict[str, str]] | None = None) -> Scenario:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "hello"}\n')
    for name in ("base", "adapter", "merged"):
        (tmp_path / name).mkdir(exist_ok=True)
    given: dict[str, Any] = {
        "name": "x",
        "models": {name: {"path": str(tmp_path / name)} for name in ("base", "adapter", "merged")},
        "variants": variants,
        "endpoints": endpoints or {},
        "load": {"data": str(rows), "stages": ({"name": "s", "arrival": "closed", "concurrency": 1, "output": {"fixed": 4}},)},
    }
    return Scenario.model_validate(given)


def test_four_variants_need_three_servers(tmp_path: Path) -> None:
    plans = plan_servers(scenario_of(tmp_path, ("base", "base+lora", "adapter", "merged")), MODELS)
    assert plans == [
        ServerPlan("base", ("base",), {"base": "base"}, model_path=BASE),
        ServerPlan("base-lora", ("base+lora", "adapter"), {"base+lora": "base", "adapter": "adapter"}, model_path=BASE, lora=ADAPTER, max_lora_rank=16),
        ServerPlan("merged", ("merged",), {"merged": "merged"}, model_path=MERGED),
    ]


@pytest.mark.parametrize(("variant", "asks_for"), [("base+lora", "base"), ("adapter", "adapter")])
def test_each_lora_variant_alone_gets_the_adapter_loaded(variant: str, asks_for: str, tmp_path: Path) -> None:
    [plan] = plan_servers(scenario_of(tmp_path, (variant,)), MODELS)
    assert (plan.name, plan.variants, plan.served_names, plan.lora) == ("base-lora", (variant,), {variant: asks_for}, ADAPTER)


def test_servers_and_their_variants_keep_the_order_of_the_file(tmp_path: Path) -> None:
    plans = plan_servers(scenario_of(tmp_path, ("merged", "adapter", "base", "base+lora")), MODELS)
    assert [plan.name for plan in plans] == ["merged", "base-lora", "base"]
    assert plans[1].variants == ("adapter", "base+lora")


@pytest.mark.parametrize(("rank", "slots"), [(1, 1), (2, 8), (8, 8), (9, 16), (64, 64), (257, 320), (512, 512)])
def test_lora_slots_are_the_smallest_that_hold_the_adapter(rank: int, slots: int, tmp_path: Path) -> None:
    models = ResolvedModels(base=BASE, adapter=ADAPTER, merged=None, lora_rank=rank)
    [plan] = plan_servers(scenario_of(tmp_path, ("adapter",)), models)
    assert plan.max_lora_rank == slots


def test_a_rank_that_vllm_cannot_serve_is_refused(tmp_path: Path) -> None:
    models = ResolvedModels(base=BASE, adapter=ADAPTER, merged=None, lora_rank=513)
    with pytest.raises(ScenarioError, match=r"models.adapter: the adapter has rank 513, vLLM serves at most 512"):
        plan_servers(scenario_of(tmp_path, ("adapter",)), models)


def test_an_endpoint_is_a_server_of_its_own_that_is_not_started(tmp_path: Path) -> None:
    endpoints = {"live": {"url": "http://h:1", "model": "m"}, "other": {"url": "http://h:2", "model": "m"}}
    plans = plan_servers(scenario_of(tmp_path, ("base",), endpoints), MODELS)
    assert [(plan.name, plan.variants, plan.served_names, plan.model_path) for plan in plans[1:]] == [
        ("live", ("live",), {"live": "m"}, None),
        ("other", ("other",), {"other": "m"}, None),
    ]
    assert plans[1].endpoint is not None and plans[1].endpoint.url == "http://h:1"


def test_an_endpoint_must_not_be_named_like_a_server_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"endpoints\.base-lora: a server that we start has the same name"):
        plan_servers(scenario_of(tmp_path, ("adapter",), {"base-lora": {"url": "http://h:1", "model": "m"}}), MODELS)


def test_a_plan_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        ServerPlan("base", ("base",), {}).name = "other"  # type: ignore[misc]


def test_odd_repeats_run_backwards() -> None:
    assert [variant_order(("a", "b", "c"), repeat) for repeat in range(3)] == [("a", "b", "c"), ("c", "b", "a"), ("a", "b", "c")]


@given(st.lists(st.integers(), unique=True, min_size=1, max_size=8), st.integers(1, 6))
def test_over_pairs_of_repeats_every_variant_has_the_same_mean_position(variants: list[int], pairs: int) -> None:
    """What ABBA is for: a linear drift adds the same to each."""
    positions = dict.fromkeys(variants, 0)
    for repeat in range(2 * pairs):
        for position, variant in enumerate(variant_order(variants, repeat)):
            positions[variant] += position
    assert len(set(positions.values())) == 1


def test_servers_turn_with_their_variants(tmp_path: Path) -> None:
    plans = plan_servers(scenario_of(tmp_path, ("base", "base+lora", "adapter")), MODELS)
    assert server_order(plans, 0) == tuple(plans)
    assert [plan.variants for plan in server_order(plans, 1)] == [("adapter", "base+lora"), ("base",)]
