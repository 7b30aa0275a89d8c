"""The words of a search: its short forms, and a sentence for everything that cannot be searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from perfbench.errors import ScenarioError
from perfbench.records import TrialPlan
from perfbench.scenario import Scenario, load_scenario
from perfbench.scenario.probes import probe_stage
from perfbench.scenario.short_form import short_form

STAGE = {"name": "one", "arrival": "closed", "concurrency": 1, "output": {"max_tokens": 8}}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')

    def read(search: Any, *, slo: Any = None, **load: Any) -> Scenario:
        scenario = {
            "name": "s", "endpoints": {"e": {"url": "http://x", "model": "m"}}, "load": {"data": "rows.jsonl", "stages": [STAGE], "search": search, **load},
            "slo": {"ttft_s": {"p95": 0.5}} if slo is None else slo,
        }  # fmt: skip
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump(scenario))
        return load_scenario(path)

    return read


def _findings(load: Any, *arguments: Any, **more: Any) -> dict[str, str]:
    with pytest.raises(ScenarioError) as caught:
        load(*arguments, **more)
    return {finding.key: finding.problem for finding in caught.value.findings}


def test_short_forms_mean_the_same(load: Any) -> None:
    long = load([{"find": "max_rate"}]).load.search
    assert load("max_rate").load.search == load({"find": "max_rate"}).load.search == load(["max_rate"]).load.search == long
    assert [search.find for search in load(["max_rate", "max_concurrency"]).load.search] == ["max_rate", "max_concurrency"]
    assert load([]).load.search == ()


def test_a_search_alone_needs_no_stage(load: Any) -> None:
    found = load({"find": "max_rate", "output": {"fixed": 4}}, stages=[])
    assert found.load.stages == ()
    assert _findings(load, "max_rate", stages=[]) == {
        "load.search[0].output": "there is no stage to take it from; say how long answers are, for example `output: {max_tokens: 128}`"
    }
    assert _findings(load, [], stages=[]) == {"load.stages": "nothing to drive; give at least one stage, or a `search` with an `output`"}


@pytest.mark.parametrize(
    ("search", "more", "key", "words"),
    [
        ("max_rate", {"slo": {}}, "load.search", "there is no SLO to meet"),
        ("fastest", {}, "load.search[0].find", "`fastest` is not known; expected one of max_rate, max_concurrency"),
        (["max_rate", "max_rate"], {}, "load.search", "`max_rate` is looked for twice"),
        ({"find": "max_concurrency", "arrival": "constant"}, {}, "load.search[0].arrival", "a closed loop and has no use for it"),
        ({"find": "max_rate", "arrival": "gamma"}, {}, "load.search[0].burstiness", "belongs to `arrival: gamma`, which needs it"),
        ({"find": "max_rate", "burstiness": 2.0}, {}, "load.search[0].burstiness", "belongs to `arrival: gamma`, which needs it"),
        ({"find": "max_rate", "streams": 9, "max_in_flight": 8}, {}, "load.search[0].streams", "9 is more than `max_in_flight`, 8"),
        ({"find": "max_rate", "output": {"trace": "fixed"}}, {}, "load.search[0].output", "a search replays no trace"),
        ({"find": "max_rate", "precison": 0.1}, {}, "load.search[0].precison", "did you mean `precision`?"),
        ("max_rate", {"stages": [{**STAGE, "name": "search-rate-1"}]}, "load.stages[0].name", "names that begin with `search-` belong to the probes"),
    ],
)
def test_what_cannot_be_searched_gets_its_sentence(load: Any, search: Any, more: dict[str, Any], key: str, words: str) -> None:
    assert words in _findings(load, search, **more)[key]


def test_probes_are_stages_with_the_load_that_was_chosen(load: Any) -> None:
    scenario = load([{"find": "max_rate", "arrival": "gamma", "burstiness": 0.5, "duration_s": 7.0}, "max_concurrency"])
    plan = TrialPlan(trial="e.search-rate-2.r0", variant="e", stage="search-rate-2", repeat=0, arrival="gamma", search="max_rate", probe=2, rate_per_s=3.5)
    stage = probe_stage(plan, scenario.load.search[0], scenario.load.stages[0])
    assert (stage.arrival, stage.rate_per_s, stage.burstiness, stage.duration_s, stage.output.max_tokens) == ("gamma", 3.5, 0.5, 7.0, 8)
    closed = TrialPlan(trial="", variant="e", stage="search-streams-0", repeat=0, arrival="closed", search="max_concurrency", probe=0, concurrency=4)
    assert probe_stage(closed, scenario.load.search[1], scenario.load.stages[0]).concurrency == 4


def test_the_short_form_shortens_searches_too(load: Any) -> None:
    (search,) = short_form(load("max_rate")).load.search
    assert (search.warmup_s, search.duration_s, search.max_probes) == (1.0, 4.0, 4)
