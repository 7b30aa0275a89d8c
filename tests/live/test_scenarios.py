"""Every shipped scenario in its short form against one vLLM with the demo's model: prompts, arrivals, answers and reports work. Some two minutes.

One server hosts base, base with LoRA enabled, and adapter; a scenario's variants become endpoints of it, since starting four servers for each
scenario would take an hour. What a scenario says of servers is tested by the demo and in test_serve.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from perfbench.prompts import RenderedPrompt
from perfbench.quality.ask import Target
from perfbench.quality.token_answers import ask_tokens
from perfbench.results import RunFolder
from perfbench.run import run_scenario
from perfbench.scenario import Scenario, load_scenario
from perfbench.scenario.model import Decoding, Endpoint
from perfbench.scenario.output import Output
from perfbench.scenario.short_form import short_form
from perfbench.serve.server import Server, installed_vllm

pytestmark = [pytest.mark.live, pytest.mark.skipif(installed_vllm() is None, reason="vLLM is not installed")]

SHIPPED = Path(__file__).parents[2] / "scenarios"
ELSEWHERE = ("demo", "trace-replay")
"""The demo is run whole by CI; trace replay has a test of its own, which needs a trace."""


def scenario_files() -> list[Path]:
    """Those at the top: the ones of a folder are run by that room's own live test."""
    found = [path for path in sorted(SHIPPED.glob("*.yaml")) if "load" in (yaml.safe_load(path.read_text()) or {})]
    return [path for path in found if path.stem not in ELSEWHERE]


@pytest.fixture
def served(demo_server: Server) -> dict[str, Endpoint]:
    models = {"base": "base", "base+lora": "base", "adapter": "adapter", "merged": "adapter"}
    return {name: Endpoint(url=demo_server.url, model=model) for name, model in models.items()}


def against(scenario: Scenario, served: dict[str, Endpoint]) -> Scenario:
    """The scenario with its variants as endpoints of the running server; only the last variant, few streams and short answers, to save time."""
    variant = scenario.variants[-1]
    stages = tuple(
        stage.model_copy(
            update={
                "warmup_s": 0.5,
                "duration_s": min(stage.duration_s, 1.5),
                "drain_s": 30.0,
                "concurrency": None if stage.concurrency is None else min(stage.concurrency, 2),
                "output": stage.output if stage.output.fixed is None else Output(fixed=min(stage.output.fixed, 12)),
            }
        )
        for stage in scenario.load.stages
    )
    load = scenario.load.model_copy(update={"adapters": None, "stages": stages})
    quality = None if scenario.quality is None else scenario.quality.model_copy(update={"data": scenario.quality.data.model_copy(update={"limit": 4})})
    return scenario.model_copy(update={"variants": (), "variations": {}, "endpoints": {variant: served[variant]}, "load": load, "quality": quality})


@pytest.mark.parametrize("path", scenario_files(), ids=lambda path: path.stem)
def test_a_scenario_runs_in_its_short_form(path: Path, served: dict[str, Endpoint], tmp_path: Path) -> None:
    scenario = against(short_form(load_scenario(path)), served)
    folder = run_scenario(scenario, scenario_file=path, parent=tmp_path, quiet=True, check_reference=False, measure_floor=False)
    summary = RunFolder.open(folder.path).summary()
    (variant,) = summary.variants.values()
    assert [trial.stage for trial in variant.trials] == [stage.name for stage in scenario.load.stages]
    records = folder.records().collect()
    assert (records["status"] == "ok").sum() > 0
    wrong = records.filter((records["status"] != "ok") & (records["error"] != "cancelled"))
    assert wrong.is_empty(), wrong.select("trial", "error", "error_message").unique().to_dicts()
    assert (folder.path / "report.html").stat().st_size > 100_000
    if scenario.quality is not None:
        assert variant.quality is not None
        assert variant.quality.n > 0


@pytest.mark.parametrize("chat", [True, False])
def test_greedy_answers_come_with_their_tokens_and_log_probabilities(served: dict[str, Endpoint], chat: bool) -> None:
    """What merge fidelity is told by: vLLM's own names for tokens in both of its forms of log-probabilities."""
    texts = ("turn on the lamp", "what time is it")
    prompts = [
        RenderedPrompt(prompt_id=text, messages=[{"role": "user", "content": text}] if chat else None, text=None if chat else text, sha256=text)
        for text in texts
    ]  # fmt: skip
    endpoint = served["adapter"]
    answers = ask_tokens(Target(url=endpoint.url, model=endpoint.model), prompts, Decoding(), max_tokens=12, concurrency=2)
    for answer in answers:
        assert answer.output and len(answer.token_ids) == len(answer.logprobs) == len(answer.runner_up_ids) > 0
        assert all(logprob <= 0 for logprob in answer.logprobs)
        # Greedy: at every position the token is the best one, and the runner-up another one.
        assert all(second is not None and second <= best for best, second in zip(answer.logprobs, answer.runner_up_logprobs, strict=True))
        assert all(one != other for one, other in zip(answer.token_ids, answer.runner_up_ids, strict=True))
