"""Arrivals: every combination of keys that cannot be driven has its finding, and every arrival that can is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfbench.analyse.experiment import experiment_of
from perfbench.errors import ScenarioError
from perfbench.records import Manifest
from perfbench.scenario import Scenario, load_scenario
from perfbench.scenario.combinations import ARRIVAL_KEYS
from perfbench.scenario.model import Stage

GOOD = {
    "closed": "concurrency: 2, think_time_s: 1.5",
    "constant": "rate_per_s: 2",
    "poisson": "rate_per_s: 2",
    "gamma": "rate_per_s: 2, burstiness: 0.5",
    "ramp": "rate_per_s: 2, to_rate_per_s: 9",
    "step": "rate_per_s: 2, to_rate_per_s: 9, steps: 3",
    "spike": "rate_per_s: 2, to_rate_per_s: 9, spike_at_s: 10, spike_s: 20",
    "sine": "rate_per_s: 2, amplitude: 1, period_s: 86400",
    "trace": "trace: {path: trace.jsonl, time_scale: 2, from_s: 1, until_s: 90}",
}


@pytest.fixture
def load(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "trace.jsonl").write_text('{"offset_s": 0, "prompt": "a"}\n')

    def load_stage(arrival: str, keys: str, output: str = "fixed: 4", data: str = "data: rows.jsonl,") -> Scenario:
        second = "" if not data else ", {name: other, arrival: closed, concurrency: 1, output: {fixed: 1}}"
        stages = f"[{{name: s, arrival: {arrival}, {keys}, output: {{{output}}}}}{second}]"
        path = tmp_path / "scenario.yaml"
        path.write_text(f"name: x\nendpoints: {{e: {{url: 'http://127.0.0.1:1', model: m}}}}\nload: {{{data} stages: {stages}}}\n")
        return load_scenario(path)

    return load_stage


def findings(load, *arguments, **options) -> dict[str, str]:
    with pytest.raises(ScenarioError) as caught:
        load(*arguments, **options)
    return {finding.key.removeprefix("load.stages[0]."): finding.problem for finding in caught.value.findings}


def test_the_table_names_every_arrival_and_only_keys_of_a_stage():
    assert set(ARRIVAL_KEYS) == set(GOOD)
    assert {name for keys in ARRIVAL_KEYS.values() for part in keys for name in part} <= set(Stage.model_fields)


@pytest.mark.parametrize(("arrival", "keys"), GOOD.items())
def test_every_arrival_can_be_said(load, arrival, keys):
    assert load(arrival, keys).load.stages[0].arrival == arrival


@pytest.mark.parametrize(("arrival", "keys"), GOOD.items())
def test_every_needed_key_is_missed(load, arrival, keys):
    needed, _ = ARRIVAL_KEYS[arrival]
    found = findings(load, arrival, "drain_s: 5")
    assert set(found) == set(needed)
    assert all(f"arrival `{arrival}` needs it: " in problem for problem in found.values())


@pytest.mark.parametrize("arrival", GOOD)
@pytest.mark.parametrize(
    "stray",
    ["concurrency: 3", "think_time_s: 1", "rate_per_s: 3", "burstiness: 2", "to_rate_per_s: 3", "steps: 2", "spike_at_s: 1", "spike_s: 1", "amplitude: 0.5",
     "period_s: 9", "requests: 9", "trace: {path: trace.jsonl}"],
)  # fmt: skip
def test_a_key_of_another_arrival_is_refused_and_its_owners_are_named(load, arrival, stray):
    name = stray.partition(":")[0]
    if any(name in part for part in ARRIVAL_KEYS[arrival]):
        return
    found = findings(load, arrival, f"{GOOD[arrival]}, {stray}")
    assert set(found) == {name}
    assert f"arrival `{arrival}` has no use for it, it belongs to " in found[name]
    assert all((f"`{owner}`" in found[name].partition("belongs to")[2]) == any(name in part for part in keys) for owner, keys in ARRIVAL_KEYS.items())


@pytest.mark.parametrize(
    ("arrival", "old", "new", "key", "says"),
    [
        ("gamma", "rate_per_s: 2", "rate_per_s: 0", "rate_per_s", "greater than 0"),
        ("gamma", "burstiness: 0.5", "burstiness: -1", "burstiness", "greater than 0"),
        ("gamma", "burstiness: 0.5", "burstiness: 0", "burstiness", "greater than 0"),
        ("gamma", "burstiness: 0.5", "burstiness: .nan", "burstiness", "finite number"),
        ("ramp", "to_rate_per_s: 9", "to_rate_per_s: 0", "to_rate_per_s", "greater than 0"),
        ("step", "steps: 3", "steps: 1", "steps", "greater than or equal to 2"),
        ("sine", "amplitude: 1", "amplitude: 1.01", "amplitude", "less than or equal to 1"),
        ("sine", "amplitude: 1", "amplitude: 0", "amplitude", "greater than 0"),
        ("sine", "period_s: 86400", "period_s: 0", "period_s", "greater than 0"),
        ("spike", "spike_s: 20", "spike_s: 20.5", "spike_s", "would end 30.5 s after the start of a window of 30 s"),
        ("spike", "spike_s: 20", "spike_s: 5, duration_s: 14", "spike_s", "would end 15 s after the start of a window of 14 s"),
        ("spike", "spike_at_s: 10", "spike_at_s: -1", "spike_at_s", "greater than or equal to 0"),
        ("closed", "think_time_s: 1.5", "requests: 0", "requests", "greater than or equal to 1"),
        ("closed", "think_time_s: 1.5", "requests: 9, duration_s: 5", "requests", "ends with so many requests or after `duration_s`; give one"),
        ("closed", "think_time_s: 1.5", "think_time_s: -1", "think_time_s", "greater than or equal to 0"),
        ("trace", "until_s: 90", "until_s: 1", "trace.until_s", "1 s is not after `from_s` (1 s)"),
        ("trace", "path: trace.jsonl", "path: none.jsonl", "trace.path", "does not exist"),
        ("trace", "time_scale: 2", "time_scale: 0", "trace.time_scale", "greater than 0"),
        ("trace", "time_scale: 2", "time_scal: 2", "trace.time_scal", "did you mean `time_scale`?"),
        ("trace", "path: trace.jsonl", "path: trace.jsonl, format: azur", "trace.format", "did you mean `azure`?"),
    ],
)
def test_an_arrival_that_cannot_be_is_refused(load, arrival, old, new, key, says):
    assert old in GOOD[arrival]
    found = findings(load, arrival, GOOD[arrival].replace(old, new))
    assert set(found) == {key}
    assert says in found[key]


def test_lengths_of_answers_come_from_a_trace_only_where_there_is_one(load):
    assert "arrival `poisson` replays no trace" in findings(load, "poisson", GOOD["poisson"], "trace: fixed")["output.trace"]
    assert "has lengths of its own" in findings(load, "trace", GOOD["trace"], "distribution: {uniform: [1, 2]}")["output.distribution"]
    assert load("trace", GOOD["trace"], "trace: max_tokens").load.stages[0].output.trace == "max_tokens"


def test_traces_alone_need_no_other_prompts_and_allow_none(load, tmp_path):
    assert load("trace", GOOD["trace"], data="").load.data is None
    text = (tmp_path / "scenario.yaml").read_text()
    (tmp_path / "scenario.yaml").write_text(text.replace("load: {", "load: {data: rows.jsonl, "))
    with pytest.raises(ScenarioError, match="no stage would send these prompts"):
        load_scenario(tmp_path / "scenario.yaml")


@pytest.mark.parametrize(("arrival", "keys"), GOOD.items())
def test_a_run_is_analysed_where_its_files_are_not(load, tmp_path, arrival, keys):
    scenario = load(arrival, keys)
    manifest = Manifest(
        schema_version=1, run_id="r", scenario_name="x", scenario=scenario.model_dump(mode="json"), scenario_file=None, scenario_text="", command=[],
        started_utc="", perfbench_version="0", versions={}, hardware={}, git=None, hashes={}, models={}, trials=[],
    )  # fmt: skip
    for file in ("rows.jsonl", "trace.jsonl"):
        (tmp_path / file).unlink()
    stage = experiment_of(manifest).stages["s"]
    assert stage == scenario.load.stages[0]
