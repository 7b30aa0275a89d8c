"""ABBA: over repeats every variant stands early as often as late, whether servers run side by side or are restarted."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from perfbench.scenario import Scenario
from perfbench.trials import plan_trials, plan_visits
from perfbench.variants import ResolvedModels, ServerPlan, plan_servers

MODELS = ResolvedModels(base=Path("/base"), adapter=Path("/adapter"), merged=Path("/merged"), lora_rank=4)


def _scenario(tmp_path: Path, repeats: int) -> Scenario:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "x"}\n')
    stages = [{"name": name, "arrival": "closed", "concurrency": 1, "output": {"fixed": 4}} for name in ("one", "two", "three")]
    raw = {
        "name": "order", "models": {"base": {"hub": "a/base"}, "adapter": {"hub": "a/adapter"}}, "variants": ["base", "base+lora", "adapter", "merged"],
        "load": {"data": {"path": str(tmp_path / "rows.jsonl")}, "repeats": repeats, "stages": stages},
    }  # fmt: skip
    return Scenario.model_validate_json(json.dumps(raw))


@pytest.mark.parametrize("repeats", [2, 4])
def test_side_by_side_every_variant_has_the_same_mean_place_in_each_stage(tmp_path: Path, repeats: int) -> None:
    scenario = _scenario(tmp_path, repeats)
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for repeat in range(repeats):
        for stage in ("one", "two", "three"):
            order = [trial.variant for trial in plan_trials(scenario) if (trial.repeat, trial.stage) == (repeat, stage)]
            for place, variant in enumerate(order):
                places[stage, variant].append(place)
    assert {sum(found) / len(found) for found in places.values()} == {1.5}


@pytest.mark.parametrize("repeats", [2, 4])
def test_restarted_every_server_has_the_same_mean_place_and_none_is_restarted_without_need(tmp_path: Path, repeats: int) -> None:
    scenario = _scenario(tmp_path, repeats)
    servers = plan_servers(scenario, MODELS)
    visits = plan_visits(servers, plan_trials(scenario), side_by_side=False)
    places: dict[str, list[int]] = defaultdict(list)
    for repeat in range(repeats):
        order: list[ServerPlan] = [visit.servers[0] for visit in visits if any(trial.repeat == repeat for trial in visit.trials)]
        for place, server in enumerate(order):
            places[server.name].append(place)
    assert {sum(found) / len(found) for found in places.values()} == {1.0}
    assert all(one.servers != other.servers for one, other in pairwise(visits))
    assert sorted(trial.trial for visit in visits for trial in visit.trials) == sorted(trial.trial for trial in plan_trials(scenario))
