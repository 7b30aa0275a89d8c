"""Every YAML file under scenarios/: a valid scenario, in its long and in its short form, that says what it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from perfbench.scenario import Scenario, load_scenario
from perfbench.scenario.combinations import combination_findings
from perfbench.scenario.short_form import short_form

SHIPPED = Path(__file__).parents[3] / "scenarios"
OTHERS = ("gate", "demand")
"""Begin the names of files that are no scenarios: rules of a gate, a demand to plan for. Their own rooms test them."""


def scenario_files() -> list[Path]:
    return [path for path in sorted(SHIPPED.rglob("*.yaml")) if not path.name.startswith(OTHERS) and "data" not in path.parts]


@pytest.fixture
def demo_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for what `perfbench demo` makes: reading a scenario asks only whether they are there, and which columns rows have."""
    demo = tmp_path / "demo"
    for name in ("base", "adapter", "adapter-rank-16", "adapter-rank-64", "merged"):
        (demo / name).mkdir(parents=True)
    row = json.dumps({"id": "1", "command": "turn on the light", "expected": {"intent": "HassTurnOn"}})
    for name in ("load", "heldout", "train"):
        (demo / f"{name}.jsonl").write_text(row + "\n")
    (demo / "schema.json").write_text('{"type": "object"}')
    monkeypatch.setenv("PERFBENCH_CACHE", str(tmp_path))


def test_there_are_scenarios_for_what_people_serve() -> None:
    names = {path.stem for path in scenario_files()}
    wanted = {"demo", "chat", "rag", "summarisation", "code-completion", "json-extraction", "batch", "agent", "spike", "soak", "merged-vs-adapter"}
    assert wanted <= names


@pytest.mark.parametrize("path", scenario_files(), ids=lambda path: str(path.relative_to(SHIPPED)))
@pytest.mark.usefixtures("demo_assets")
def test_it_is_valid_in_both_forms_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# "), "the first line says what the scenario is for"
    scenario = load_scenario(path)
    assert scenario.name == yaml.safe_load(text)["name"]
    short = short_form(scenario)
    # model_copy checks nothing, so the short form is put through all checks again.
    assert Scenario.model_validate_json(short.model_dump_json()) == short
    assert combination_findings(short.model_dump()) == []
    assert all(stage.duration_s <= 4 for stage in short.load.stages)


@pytest.mark.usefixtures("demo_assets")
def test_what_happens_inside_a_window_keeps_its_place_in_the_short_form() -> None:
    long = load_scenario(SHIPPED / "spike.yaml").load.stages[0]
    short = short_form(load_scenario(SHIPPED / "spike.yaml")).load.stages[0]
    assert long.spike_at_s is not None and short.spike_at_s is not None
    assert short.spike_at_s / short.duration_s == pytest.approx(long.spike_at_s / long.duration_s)
