"""Variations: which server hosts them, what they ask for, what they are compared with, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfbench.analyse.compare import pairs
from perfbench.checks import fidelity_variants
from perfbench.errors import ScenarioError
from perfbench.scenario import Scenario
from perfbench.scenario.combinations import combination_findings
from perfbench.serve.command import serve_findings, server_command
from perfbench.trials import plan_trials, trial_bodies
from perfbench.variants import ResolvedModels, plan_servers

BASE, ADAPTER, MERGED, RANK_64, FLOAT_16 = (Path(f"/{name}") for name in ("base", "adapter", "merged", "rank-64", "float16"))
MODELS = ResolvedModels(
    base=BASE, adapter=ADAPTER, merged=MERGED, lora_rank=4, adapters={"b": ADAPTER},
    variations={"rank-64": RANK_64, "merged-16": FLOAT_16}, variation_ranks={"rank-64": 64},
)  # fmt: skip
STAGE = {"name": "one", "arrival": "closed", "concurrency": 1, "output": {"fixed": 4}}


def _raw(variations: dict[str, Any], **given: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "sweep", "variants": ["base+lora", "adapter", "merged"], "variations": variations,
        "models": {"base": {"hub": "a/base"}, "adapter": {"hub": "a/adapter"}, "adapters": {"b": {"hub": "a/b"}}},
        "load": {"synthetic": {"input_tokens": {"fixed": 8}, "output_tokens": 4}, "stages": [STAGE]},
    }  # fmt: skip
    return {**values, **given}


def _scenario(variations: dict[str, Any], tmp_path: Path, **given: Any) -> Scenario:
    import json

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"say {k}"}) + "\n" for k in range(16)))
    raw = _raw(variations, **given)
    load = {"data": {"path": str(tmp_path / "rows.jsonl")}, "stages": [STAGE], **given.get("load", {})}
    return Scenario.model_validate_json(json.dumps({**raw, "load": load}))


SWEEP = {
    "idle-64": {"of": "base+lora", "args": {"max_lora_rank": 64}},
    "slots-64": {"of": "adapter", "args": {"max-lora-rank": 64}},
    "rank-64": {"of": "adapter", "adapter": {"hub": "a/rank-64"}},
    "merged-16": {"of": "merged", "merge_dtype": "float16"},
    "again": {"of": "adapter"},
}


def test_equal_servers_are_shared_and_others_started(tmp_path: Path) -> None:
    plans = {plan.name: plan for plan in plan_servers(_scenario(SWEEP, tmp_path), MODELS)}
    assert {name: plan.variants for name, plan in plans.items()} == {
        "base-lora": ("base+lora", "adapter", "again"), "merged": ("merged",), "idle-64": ("idle-64", "slots-64"), "rank-64": ("rank-64",),
        "merged-16": ("merged-16",),
    }  # fmt: skip
    assert plans["idle-64"].served_names == {"idle-64": "base", "slots-64": "adapter"}
    assert (plans["rank-64"].lora, plans["rank-64"].adapters, plans["rank-64"].max_lora_rank) == (RANK_64, {}, 64)
    assert (plans["merged-16"].model_path, plans["merged-16"].served_names) == (FLOAT_16, {"merged-16": "merged"})


def test_the_command_holds_what_was_changed(tmp_path: Path) -> None:
    scenario = _scenario(SWEEP, tmp_path, serve={"args": {"max-loras": 2, "dtype": "float32"}})
    plans = {plan.name: plan for plan in plan_servers(scenario, MODELS)}

    def flag(name: str, key: str) -> str | None:
        argv = server_command(plans[name], scenario.serve, port=1, trust_remote_code=False, cpu_build=True).argv
        return argv[argv.index(key) + 1] if key in argv else None

    assert [flag(name, "--max-lora-rank") for name in ("base-lora", "idle-64", "rank-64", "merged-16")] == ["8", "64", "64", None]
    assert [flag(name, "--max-loras") for name in ("base-lora", "idle-64", "merged-16")] == ["2", "2", None]
    assert [flag(name, "--served-model-name") for name in ("idle-64", "merged-16")] == ["base", "merged"]
    assert scenario.serve.args == {"max-loras": 2, "dtype": "float32"}


def test_slots_that_cannot_hold_the_adapter_are_refused_before_a_server_starts(tmp_path: Path) -> None:
    small = {"rank-64": {"of": "adapter", "adapter": {"hub": "a/rank-64"}, "args": {"max-lora-rank": 16}}}
    with pytest.raises(ScenarioError) as caught:
        plan_servers(_scenario(small, tmp_path), MODELS)
    (finding,) = caught.value.findings
    assert finding.key == "variations.rank-64.args.max-lora-rank" and "rank 64" in finding.problem


def test_a_key_in_a_variation_is_refused_as_in_serve(tmp_path: Path) -> None:
    scenario = _scenario({"own-port": {"of": "base", "args": {"port": 8000}}}, tmp_path)
    assert [finding.key for finding in serve_findings(scenario.serve, scenario.variations)] == ["variations.own-port.args.port"]


def test_requests_are_spread_over_the_adapters_in_use(tmp_path: Path) -> None:
    from perfbench.prompts import RenderedPrompt

    variations = {"one": {"of": "adapter", "adapters_in_use": 1}, "two": {"of": "adapter", "adapters_in_use": 2}, "alone": SWEEP["rank-64"]}
    scenario = _scenario(variations, tmp_path, load={"adapters": {"spread": "uniform"}})
    prompts = [RenderedPrompt(prompt_id=str(k), messages=[{"role": "user", "content": "x"}], text=None, sha256="") for k in range(40)]
    asked = {
        trial.variant: {body.adapter for body in trial_bodies(trial, scenario, prompts, None, model="m", cache_salt=None)} for trial in plan_trials(scenario)
    }  # fmt: skip
    assert asked == {
        "base+lora": {None}, "adapter": {"adapter", "b"}, "merged": {None}, "one": {"adapter"}, "two": {"adapter", "b"}, "alone": {None},
    }  # fmt: skip


def test_variations_are_compared_with_what_they_are_made_of() -> None:
    variations = {"slots-64": "adapter", "merged-16": "merged", "merged-32": "merged"}
    found = pairs(["base", "adapter", *variations], variations)
    assert found == [("base", "adapter"), ("adapter", "slots-64"), ("merged-16", "merged-32")]
    assert pairs(["base", "adapter", "merged"]) == pairs(["base", "adapter", "merged"], {})


def test_every_merge_is_held_against_the_adapter(tmp_path: Path) -> None:
    assert fidelity_variants(_scenario(SWEEP, tmp_path)) == {"adapter", "merged", "merged-16"}
    assert fidelity_variants(_scenario(SWEEP, tmp_path, variants=["base"])) == frozenset()


@pytest.mark.parametrize(
    ("variations", "given", "key", "problem"),
    [
        ({"x": {"of": "base", "merge_dtype": "float16"}}, {}, "variations.x.merge_dtype", "belongs to `of: merged`"),
        ({"x": {"of": "merged", "adapters_in_use": 2}}, {}, "variations.x.adapters_in_use", "belongs to `of: adapter`"),
        ({"x": {"of": "adapter", "adapters_in_use": 2}}, {}, "variations.x.adapters_in_use", "say how in `load.adapters`"),
        ({"x": {"of": "adapter", "adapters_in_use": 3}}, {"load": {"adapters": {"spread": "uniform"}}}, "variations.x.adapters_in_use", "has 2 adapters"),
        ({"merged": {"of": "merged"}}, {}, "variations.merged", "give the variation another one"),
        ({"x": {"of": "adapter"}}, {"models": {"base": {"hub": "a/b"}}, "variants": ["base"]}, "variations.x", "needs `models.base` and `models.adapter`"),
        ({"x": {"of": "merged"}}, {"models": {"base": {"hub": "a/b"}}, "variants": ["base"]}, "variations.x", "to merge"),
    ],
)
def test_what_does_not_fit_together(variations: dict[str, Any], given: dict[str, Any], key: str, problem: str) -> None:
    found = {finding.key: finding.problem for finding in combination_findings(_raw(variations, **given))}
    assert problem in found[key]
