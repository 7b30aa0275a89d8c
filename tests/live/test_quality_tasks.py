"""Every kind of task, from its shipped scenario to a verdict, against one real vLLM that serves the demo's base and adapter. About a minute.

The model answers badly, which is fine: what is tested is the way from a question to a verdict, a judge that is a real server included.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from perfbench.quality.labels import LABELS
from perfbench.run import run_scenario
from perfbench.scenario import Scenario, load_scenario
from perfbench.scenario.model import Endpoint
from perfbench.scenario.quality import Judge
from perfbench.scenario.quality_metrics import QUALITY_METRICS
from perfbench.serve.server import Server, installed_vllm

SCENARIOS = Path(__file__).parents[2] / "scenarios" / "quality"
TASKS = ("classification", "extraction", "qa", "domain-qa", "summarisation", "translation", "chat", "instructions", "rag")
ROWS, TOKENS = 2, 24

pytestmark = [pytest.mark.live, pytest.mark.skipif(installed_vllm() is None, reason="vLLM is not installed")]


def against(name: str, url: str, rows: int = ROWS, tokens: int = TOKENS) -> Scenario:
    """A shipped scenario, short, with the running server's two models as its variants and its base as judge."""
    shipped = load_scenario(SCENARIOS / f"{name}.yaml")
    assert shipped.quality is not None
    judged = shipped.quality.task.task in ("chat", "rag", "summarisation", "domain_qa")
    quality = shipped.quality.model_copy(
        update={
            "data": shipped.quality.data.model_copy(update={"limit": rows}),
            "max_tokens": min(tokens, shipped.quality.max_tokens),
            "judge": Judge(url=url, model="base", retries=1, max_tokens=48) if judged else None,
        }
    )
    if quality.must_refuse is not None:  # none of the first rows must be refused, so nothing would be scored by that
        quality = quality.model_copy(update={"must_refuse": None, "metrics": None})
    first = shipped.load.stages[0]
    streams = None if first.concurrency is None else min(first.concurrency, 2)  # a closed window goes on until each has sent two requests
    stage = first.model_copy(update={"warmup_s": 0.5, "duration_s": 1.0, "drain_s": 10.0, "concurrency": streams})
    return shipped.model_copy(
        update={
            "variants": (),
            "endpoints": {variant: Endpoint(url=url, model=variant) for variant in ("base", "adapter")},
            "load": shipped.load.model_copy(update={"stages": (stage,)}),
            "quality": quality,
        }
    )


@pytest.mark.parametrize("name", TASKS)
def test_a_task_from_question_to_verdict(name: str, demo_server: Server, tmp_path: Path) -> None:
    scenario = against(name, demo_server.url)
    assert scenario.quality is not None
    folder = run_scenario(scenario, scenario_file=None, parent=tmp_path, quiet=True, check_reference=False, measure_floor=False)
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
        assert all(verdict.prompt for verdict in folder.judged("adapter") if verdict.answer is not None)
    assert (folder.path / "report.html").is_file()
