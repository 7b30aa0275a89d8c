"""Every kind of task, from its shipped scenario to a verdict, against one real vLLM that serves the demo's base and adapter. About two minutes.

The model answers badly, which is fine: what is tested is the way from a question to a verdict, a judge that is a real server included.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from perfbench.quality.labels import LABELS
from perfbench.run import run_scenario
from perfbench.scenario import Scenario, load_scenario
from perfbench.scenario.model import Endpoint, Serve
from perfbench.scenario.paths import cache_folder
from perfbench.scenario.quality import Judge
from perfbench.scenario.quality_metrics import QUALITY_METRICS
from perfbench.serve.server import Server, installed_vllm
from perfbench.variants import ServerPlan

SCENARIOS = Path(__file__).parents[2] / "scenarios" / "quality"
TASKS = ("classification", "extraction", "qa", "domain-qa", "summarisation", "translation", "chat", "instructions", "rag")
ROWS, TOKENS = 2, 24

pytestmark = [pytest.mark.live, pytest.mark.skipif(installed_vllm() is None, reason="vLLM is not installed")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    demo = cache_folder() / "demo"
    if not (demo / "base" / "config.json").is_file():
        pytest.skip("the demo's model is not on this machine; `perfbench demo` makes it")
    args = {"dtype": "float32", "enforce-eager": True, "max-model-len": 1024, "max-num-seqs": 32, "max-num-batched-tokens": 1024}
    plan = ServerPlan("lora", ("base", "adapter"), {"base": "base", "adapter": "adapter"}, model_path=demo / "base", lora=demo / "adapter", max_lora_rank=8)
    serve = Serve.model_validate({"args": args, "env": {"VLLM_CPU_KVCACHE_SPACE": "1"}, "ready_timeout_s": 300.0})
    with Server(plan, serve, log=tmp_path_factory.mktemp("server") / "server.log") as started:
        yield started


def against(name: str, url: str, rows: int = ROWS, tokens: int = TOKENS) -> Scenario:
    """A shipped scenario, short, with the running server's two models as its variants and its base as judge."""
    shipped = load_scenario(SCENARIOS / f"{name}.yaml")
    assert shipped.quality is not None
    judged = shipped.quality.task.task in ("chat", "rag", "summarisation", "domain_qa")
    quality = shipped.quality.model_copy(
        update={
            "data": shipped.quality.data.model_copy(update={"limit": rows}),
            "max_tokens": min(tokens, shipped.quality.max_tokens),
            "judge": Judge(url=url, model="base", retries=1, max_tokens=96) if judged else None,
        }
    )
    stage = shipped.load.stages[0].model_copy(update={"warmup_s": 0.5, "duration_s": 1.0, "drain_s": 10.0})
    return shipped.model_copy(
        update={
            "variants": (),
            "endpoints": {variant: Endpoint(url=url, model=variant) for variant in ("base", "adapter")},
            "load": shipped.load.model_copy(update={"stages": (stage,)}),
            "quality": quality,
        }
    )


@pytest.mark.parametrize("name", TASKS)
def test_a_task_from_question_to_verdict(name: str, server: Server, tmp_path: Path) -> None:
    scenario = against(name, server.url)
    assert scenario.quality is not None
    folder = run_scenario(scenario, scenario_file=None, parent=tmp_path, quiet=True)
    summary = folder.summary()
    base, adapter = (summary.variants[variant].quality for variant in ("base", "adapter"))
    assert base is not None
    assert adapter is not None
    assert base.verdict == "reference"
    assert adapter.verdict in ("pass", "fail", "inconclusive")
    records = folder.quality("adapter")
    assert len(records) == ROWS
    assert all(record.output is not None for record in records)
    assert {record.label for record in records} <= set(LABELS)
    assert set(adapter.metrics) & set(QUALITY_METRICS[scenario.quality.task.task])
    if scenario.quality.judge is None:
        assert adapter.judge is None
        assert all(gate.metric in adapter.metrics for gate in adapter.gates)
    else:
        assert adapter.judge is not None
        assert adapter.judge.verdicts + adapter.judge.unread == len(folder.judged("adapter"))
        assert (adapter.judge.prompt_tokens or 0) > 0
        assert all(verdict.prompt for verdict in folder.judged("adapter") if verdict.reason != "the answers are equal")
    assert (folder.path / "report.html").is_file()
