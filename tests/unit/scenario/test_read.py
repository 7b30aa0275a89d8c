"""Every kind of bad scenario gets its sentence, all findings of a file come at once, and good ones are frozen."""

import json
import textwrap
from pathlib import Path

import pydantic
import pytest

from perfbench.errors import ScenarioError
from perfbench.scenario import Scenario, json_schema, load_scenario
from perfbench.scenario.reference import scenario_markdown

GOOD = """
name: demo
models: {base: ./base, adapter: ./adapter}
variants: [base, base+lora, adapter, merged]
load:
  data: ./rows.jsonl
  stages:
    - {name: one, arrival: closed, concurrency: 1, output: {max_tokens: 8}}
    - {name: poisson, arrival: poisson, rate_per_s: 2, output: {fixed: 8}}
slo: {ttft_s: {p95: 0.5}}
quality: {data: rows.jsonl, task: {task: extraction, expected: answer}, margin: 0.05}
cost: {server_hour_usd: 1}
"""


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "base").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "answer": {}}\n{"prompt": "b", "answer": {}}\n')

    def write_scenario(text: str) -> Path:
        path = tmp_path / "scenario.yaml"
        path.write_text(textwrap.dedent(text))
        return path

    return write_scenario


def findings(path: Path) -> dict[str, str]:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    return {finding.key: finding.problem for finding in caught.value.findings}


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("{task: extraction, expected: answer}", "{task: extractoin, expected: answer}", "quality.task.task", "did you mean `extraction`?"),
        ("{task: extraction, expected: answer}", "{expected: answer}", "quality.task.task", "missing; add one of classification"),
        ("{task: extraction, expected: answer}", "extraction", "quality.task", 'expected a block of keys, got "extraction"'),
        ("{task: extraction, expected: answer}", "{task: summarisation, expected: answer, min_words: 9, max_words: 3}", "quality.task", "no summary"),
        ("margin: 0.05}", 'margin: 0.05, judge: {url: "gpu-box:8000", model: m}}', "quality.judge.url", "expected an address, as in http://127.0.0.1:8000"),
        ("name: demo", "name: my demo", "name", "expected a name of at most 64 letters"),
    ],
)
def test_what_a_quality_block_gets_wrong_is_said_in_words(write, old, new, key, says):
    assert says in findings(write(GOOD.replace(old, new)))[key]


def test_a_good_file_is_read_resolved_and_frozen(write, tmp_path):
    scenario = load_scenario(write(GOOD))
    assert scenario.models.base is not None
    assert scenario.models.base.path == str(tmp_path / "base")
    assert scenario.load.data.path == str(tmp_path / "rows.jsonl")
    assert scenario.variant_names == ("base", "base+lora", "adapter", "merged")
    assert (scenario.slo["ttft_s"].percentile, scenario.slo["ttft_s"].limit_s) == (95, 0.5)
    with pytest.raises(pydantic.ValidationError):
        scenario.name = "other"  # type: ignore[misc]


def test_a_dumped_scenario_is_the_same_scenario(write):
    scenario = load_scenario(write(GOOD))
    again = Scenario.model_validate_json(json.dumps(scenario.model_dump(mode="json")))
    assert again == scenario


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("concurrency: 1", "concurency: 1", "load.stages[0].concurency", "did you mean `concurrency`?"),
        ("rate_per_s: 2", "rate_per_s: 0", "load.stages[1].rate_per_s", "greater than 0"),
        ("rate_per_s: 2", "rate_per_s: -3", "load.stages[1].rate_per_s", "greater than 0"),
        ("rate_per_s: 2", "rate_per_s: .inf", "load.stages[1].rate_per_s", "finite"),
        ("rate_per_s: 2", 'rate_per_s: "2"', "load.stages[1].rate_per_s", 'valid number, got "2"'),
        ("rate_per_s: 2", "concurrency: 2", "load.stages[1].rate_per_s", "arrivals per second"),
        ("arrival: poisson", "arrival: poison", "load.stages[1].arrival", "did you mean `poisson`?"),
        ("name: poisson", "name: one", "load.stages[1].name", "another stage is named `one`"),
        ("ttft_s", "ttft", "slo.ttft", "did you mean `ttft_s`?"),
        ("p95: 0.5", "p95: 0.5, p50: 0.1", "slo.ttft_s", "exactly one"),
        ("margin: 0.05", "margin: 5", "quality.margin", "less than 1"),
        ("expected: answer", "expectd: answer", "quality.task.expectd", "did you mean `expected`?"),
        ("margin: 0.05", "margin: 0.05, metric: accuracy", "quality.metric", "does not fit task `extraction`"),
        ("output: {fixed: 8}", "output: {fixed: 8, max_tokens: 9}", "load.stages[1].output", "exactly one"),
        ("base: ./base, ", "", "models.adapter", "without its base"),
        ("adapter: ./adapter", "revision: x", "models.revision", "unknown key"),
        (", adapter: ./adapter", "", "models.adapter", "variants `base+lora` and `adapter` need it"),
        ("variants: [base, base+lora, adapter, merged]", "", "variants", "nothing to measure"),
        ("[base, base+lora", "[base, base", "variants", "stands there twice"),
        ("./base,", "./bose,", "models.base.path", "does not exist"),
        ("data: ./rows.jsonl", "data: ./none.jsonl", "load.data.path", "does not exist"),
        ("server_hour_usd: 1", "server_hour_usd: -1", "cost.server_hour_usd", "greater than or equal to 0"),
        ("server_hour_usd: 1", "server_hour_usd: 1, gpu_hour_usd: 1", "cost", "exactly one of `server_hour_usd`"),
        ("server_hour_usd: 1", "gpu_hour_usd: 1, currency: euro", "cost.currency", "match pattern"),
    ],
)  # fmt: skip
def test_each_kind_of_mistake_has_its_key_and_sentence(write, old, new, key, says):
    assert old in GOOD
    found = findings(write(GOOD.replace(old, new, 1)))
    assert says in found[key], found


def test_all_findings_come_at_once(write):
    text = GOOD.replace("concurrency: 1", "concurency: 1").replace("rate_per_s: 2", "rate_per_s: 0").replace("ttft_s", "ttft").replace("base: ./base, ", "")
    assert set(findings(write(text))) >= {"load.stages[0].concurency", "load.stages[1].rate_per_s", "slo.ttft", "models.adapter"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b'{"prompt": "caf\xe9"}\n', "line 1 is not UTF-8"),
        (b'{"prompt": "a"}\nnot json\n', "line 2 is no JSON object"),
        (b"[1]\n", "line 1 is no JSON object"),
    ],
)
def test_a_data_file_that_cannot_be_used_is_refused(write, tmp_path, content, says):
    path = write(GOOD)
    (tmp_path / "rows.jsonl").write_bytes(content)
    assert says in findings(path)["load.data.path"]


@pytest.mark.parametrize(
    ("text", "says"),
    [("name: [", "not YAML"), ("- a", "expected a mapping"), ("name: a\nname: b", "stands there twice"), ("? [a]\n: b", "plain word")],
)
def test_a_file_that_is_no_scenario(write, text, says):
    path = write(text)
    with pytest.raises(ScenarioError, match=says):
        load_scenario(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ScenarioError, match="does not exist"):
        load_scenario(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path)


def test_a_hub_id_is_told_from_a_folder(write):
    scenario = load_scenario(write(GOOD.replace("./base", "owner/name")))
    assert scenario.models.base is not None
    assert (scenario.models.base.hub, scenario.models.base.path) == ("owner/name", None)


def test_the_published_schema_is_the_models_schema():
    published = json.loads(Path("scenarios/scenario.schema.json").read_text())
    assert published == json_schema(), "run `perfbench schema > scenarios/scenario.schema.json`"


def test_the_reference_page_is_the_models():
    made = "from perfbench.scenario.reference import scenario_markdown as s; open('docs/scenario.md', 'w').write(s())"
    assert Path("docs/scenario.md").read_text() == scenario_markdown(), f'run: python -c "{made}"'


def test_every_key_says_what_it_means():
    rows = [line for line in scenario_markdown().splitlines() if line.startswith("| `")]
    undocumented = [row for row in rows if row.rstrip().endswith("|  |") and not any(name in row for name in ("`p50`", "`p90`", "`p95`", "`p99`", "`task`"))]
    assert undocumented == []


def test_vllm_flags_are_written_with_dashes_and_json_fields_are_left_alone(write):
    given = "serve: {args: {max_model_len: 8, --enforce-eager: true, compilation-config.cudagraph_mode: NONE}}\n"
    assert load_scenario(write(GOOD + given)).serve.args == {"max-model-len": 8, "enforce-eager": True, "compilation-config.cudagraph_mode": "NONE"}
