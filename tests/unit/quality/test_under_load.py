"""Quality under load: a server that answers worse when it is busy is caught, one that does not is not blamed, in a real run over HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answering_server import AnsweringServer, chat

from perfbench.errors import ScenarioError
from perfbench.quality.under_load import BusyAnswer, sampled, under_load
from perfbench.records import QualityRecord
from perfbench.results import RunFolder
from perfbench.run import run_scenario
from perfbench.scenario import load_scenario
from perfbench.scenario.quality import Quality

ROWS = 60


def reply(worse_when_busy: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Answers every question with its right label; a damaged server is wrong whenever it works on more than one request."""
    lock, working = threading.Lock(), [0]

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        with lock:
            working[0] += 1
        time.sleep(0.03)
        with lock:
            busy = working[0] > 1
            working[0] -= 1
        question = body["messages"][-1]["content"]
        right = "odd" if question.isdigit() and int(question) % 2 else "even"
        return chat("neither" if busy and worse_when_busy else right)

    return answer


def scenario_file(folder: Path, url: str, stages: str, under_load: str = "under_load: 40") -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"id": f"q{n}", "prompt": str(n), "label": "odd" if n % 2 else "even"}) + "\n" for n in range(ROWS)))
    file = folder / "busy.yaml"
    file.write_text(
        f"""
name: busy
endpoints: {{served: {{url: "{url}", model: m}}}}
load: {{data: rows.jsonl, stages: [{stages}]}}
quality:
  data: rows.jsonl
  task: {{task: classification, expected: label}}
  margin: 0.3
  minimum: 0.5
  max_tokens: 8
  concurrency: 1
  {under_load}
"""
    )
    return file


STAGES = """
  {name: one, arrival: closed, concurrency: 1, warmup_s: 0, duration_s: 2, drain_s: 2, output: {max_tokens: 8}},
  {name: eight, arrival: closed, concurrency: 8, warmup_s: 0, duration_s: 2, drain_s: 2, output: {max_tokens: 8}},
  {name: longer, arrival: closed, concurrency: 8, warmup_s: 0, duration_s: 0.5, drain_s: 2, output: {max_tokens: 9}}
"""


@pytest.mark.parametrize("worse", [True, False])
def test_a_server_that_answers_worse_when_busy_is_caught_and_no_other(tmp_path: Path, worse: bool) -> None:
    with AnsweringServer(reply(worse)) as server:
        folder = run_scenario(load_scenario(scenario_file(tmp_path, server.url, STAGES)), scenario_file=None, parent=tmp_path / "results", quiet=True)
    summary = folder.summary()
    found = {one.stage: one for one in summary.under_load}
    assert set(found) == {"one", "eight"}  # `longer` may answer longer than the spot-check: not comparable
    assert (found["one"].verdict, found["one"].idle, found["one"].busy) == ("pass", 1.0, 1.0)
    assert found["eight"].verdict == ("fail" if worse else "pass")
    assert found["eight"].n >= 5
    assert (found["eight"].busy or 0) < 0.5 if worse else found["eight"].busy == 1.0
    quality = summary.variants["served"].quality
    assert quality is not None
    assert quality.metrics["accuracy"].value == 1.0  # asked one at a time: the check alone cannot see it
    assert "Quality under load" in (folder.path / "report.html").read_text()
    records = folder.under_load("served")
    assert {record.slices["asked"] for record in records} == {"idle", "one", "eight"}
    assert len({record.sample_id for record in records}) == 40
    assert RunFolder.open(folder.path).finished("under_load")["served"]["prompts"] == 40


def record(sample: int, asked: str, passed: bool) -> QualityRecord:
    return QualityRecord(
        sample_id=f"q{sample}", variant="served", prompt="", prompt_sha256="", expected="a", output="a" if passed else "b", scores={"accuracy": float(passed)},
        passed=passed, label="correct answer" if passed else "wrong answer", slices={"asked": asked},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("idle", "busy", "verdict"),
    [
        ([True] * 200, [True] * 200, "pass"),
        ([True] * 200, [True] * 130 + [False] * 70, "fail"),
        ([True] * 20, [True] * 17 + [False] * 3, "inconclusive"),
        ([False] * 200, [False] * 200, "pass"),  # wrong either way: load is not to blame
    ],
)
def test_the_difference_is_decided_by_the_margin(tmp_path: Path, idle: list[bool], busy: list[bool], verdict: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"label": "a"}\n')
    quality = Quality.model_validate({"data": {"path": str(tmp_path / "rows.jsonl")}, "task": {"task": "classification", "expected": "label"}, "margin": 0.1})
    records = [record(number, "idle", passed) for number, passed in enumerate(idle)] + [record(number, "busy", passed) for number, passed in enumerate(busy)]
    (found,) = under_load(records, quality)
    assert (found.verdict, found.n, found.stage) == (verdict, len(idle), "busy")
    assert found.changed == sum(left != right for left, right in zip(idle, busy, strict=True))
    assert (found.n_to_decide is not None) == (verdict == "inconclusive")


def test_the_same_prompts_are_taken_for_every_variant_and_the_first_answer_counts() -> None:
    answers = [BusyAnswer(stage=stage, prompt_id=f"q{n % 9}", output=str(n), finish_reason="stop") for stage in ("a", "b") for n in range(30)]
    taken = sampled(answers, 4, seed=1)
    assert len({answer.prompt_id for answer in taken}) == 4
    assert len(taken) == 8
    assert all(int(answer.output) < 9 for answer in taken)
    assert {answer.prompt_id for answer in sampled(answers[::-1], 4, seed=1)} == {answer.prompt_id for answer in taken}


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ("{name: a, arrival: closed, concurrency: 1, output: {fixed: 8}}", r"quality.under_load: no stage asks as the check does"),
        ("{name: a, arrival: closed, concurrency: 1, output: {max_tokens: 9}}", r"give one `output: \{max_tokens: 8\}`"),
    ],
)
def test_a_scenario_that_cannot_compare_is_refused(tmp_path: Path, stages: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        load_scenario(scenario_file(tmp_path, "http://127.0.0.1:9", stages))
