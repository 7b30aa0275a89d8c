"""A finished run is scored again over its stored answers: a corrected reference, another metric, a judge that was not there. No model is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from answering_server import AnsweringServer, chat
from typer.testing import CliRunner

from perfbench.cli import app
from perfbench.errors import EndpointError, InputError, RunFolderError
from perfbench.report.progress import RunProgress
from perfbench.rescore import rescore
from perfbench.results import RunFolder
from perfbench.run import run_scenario
from perfbench.scenario import load_scenario

ROWS = [
    {"id": f"q{n}", "prompt": f"How much is {n} + {n}?", "answer": str(2 * n), "facts": [str(2 * n)], "level": "easy" if n < 4 else "hard"} for n in range(8)
]


def scenario_file(folder: Path, url: str, more: str = "metric: fact_recall", name: str = "sums.yaml", data: str = "rows.jsonl", tokens: int = 8) -> Path:
    file = folder / name
    file.write_text(
        f"""
name: sums
endpoints: {{base: {{url: "{url}", model: m}}, adapter: {{url: "{url}", model: adapter}}}}
load:
  data: rows.jsonl
  stages: [{{name: one, arrival: closed, concurrency: 1, warmup_s: 0, duration_s: 0.3, drain_s: 2, output: {{max_tokens: 8}}}}]
quality:
  data: {data}
  task: {{task: domain_qa, expected: answer, facts: facts}}
  margin: 0.2
  max_tokens: {tokens}
  {more}
"""
    )
    return file


def write_rows(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """Sums of any two equal numbers; the adapter says them in Roman, from 4 on."""
    if len(body["messages"]) == 2:
        return chat(json.dumps({"reason": "so it is", "correct": True, "explanation_sound": True}))
    question = body["messages"][-1]["content"]
    right = 2 * int(question.split()[3]) if question.startswith("How") else 0
    return chat("VIII" if body["model"] == "adapter" and right >= 8 else str(right))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder]:
    folder = tmp_path_factory.mktemp("rescore")
    write_rows(folder, ROWS)
    with AnsweringServer(answer, ("m", "adapter")) as server:
        file = scenario_file(folder, server.url, "under_load: 4")
        return folder, run_scenario(load_scenario(file), scenario_file=file, parent=folder / "results", quiet=True, measure_floor=False)


def score(run: RunFolder, file: Path | None) -> Any:
    with RunProgress(quiet=True) as progress:
        return rescore(run.path, file, progress)[1]


def recall(run: RunFolder) -> float | None:
    quality = run.summary().variants["adapter"].quality
    assert quality is not None
    return quality.metrics["fact_recall"].value


def test_from_a_corrected_reference_to_a_judge(finished: tuple[Path, RunFolder]) -> None:
    folder, run = finished
    assert recall(run) == 0.5
    asked_before = [(record.prompt, record.output, record.prompt_sha256) for record in run.quality("adapter")]

    write_rows(folder, [row | ({"facts": [["8", "VIII"]], "answer": "8, or VIII"} if row["id"] == "q4" else {}) for row in ROWS])
    done = score(run, None)
    assert (done.changed, done.kept) == (["expected answers"], "quality/scored-1")
    assert recall(run) == 0.625
    assert [record.expected for record in run.quality("base")][4] == "8, or VIII"
    kept = run.path / done.kept
    assert msgspec.json.decode((kept / "summary.json").read_bytes())["variants"]["adapter"]["quality"]["metrics"]["fact_recall"]["value"] == 0.5
    assert {file.name for file in kept.rglob("*.parquet")} == {"base.parquet", "adapter.parquet"}

    with AnsweringServer(answer) as judge:
        more = f"metrics: [fact_recall, answer_correctness]\n  slices: [level]\n  judge: {{url: '{judge.url}', model: judge, concurrency: 1}}"
        file = scenario_file(folder, "http://127.0.0.1:9", more, name="judged.yaml", tokens=99)
        done = score(run, file)
        assert (done.changed, done.kept) == (["metrics", "slices", "judge"], "quality/scored-2")  # max_tokens says how the run asked: it stays
        assert len(judge.bodies) == 1 + 2 * len(ROWS)  # is it there; then every answer
        assert score(run, file).changed == []
        assert len(judge.bodies) == 2 + 2 * len(ROWS)  # what it has judged in the same words is not asked again

    quality = run.summary().variants["adapter"].quality
    assert quality is not None
    assert quality.metrics["answer_correctness"].value == 1.0
    assert {gate.metric for gate in quality.gates} == {"fact_recall", "answer_correctness"}
    assert set(quality.slices["level"]) == {"easy", "hard"}
    assert [(record.prompt, record.output, record.prompt_sha256) for record in run.quality("adapter")] == asked_before
    assert [one.kept for one in run.manifest().rescored] == ["quality/scored-1", "quality/scored-2", "quality/scored-3"]
    assert run.manifest().scenario["quality"]["max_tokens"] == 8
    assert "other metrics, slices, judge" in (run.path / "report.html").read_text()
    assert "the scores before are in quality/scored-2" in (run.path / "report.md").read_text()
    assert {record.slices["asked"] for record in run.under_load("adapter")} == {"idle", "one"}
    shown = CliRunner().invoke(app, ["quality", "rescore", str(run.path), "--json", "--quiet"])
    assert isinstance(shown.exception, EndpointError)  # the judge has gone, and nothing has changed
    assert len(run.manifest().rescored) == 3


def test_the_command_shows_the_table_and_where_the_old_scores_are(finished: tuple[Path, RunFolder]) -> None:
    folder, run = finished
    file = scenario_file(folder, "http://127.0.0.1:9", name="plain.yaml")
    shown = CliRunner().invoke(app, ["quality", "rescore", str(run.path), "--scenario", str(file), "--quiet"])
    assert shown.exit_code == 0, shown.exception
    assert "Quality by variant" in shown.stdout
    assert "quality/scored-" in shown.stdout
    as_json = CliRunner().invoke(app, ["quality", "rescore", str(run.path), "--quiet", "--json"])
    assert json.loads(as_json.stdout)["variants"]["adapter"]["metric"] == "fact_recall"


def test_what_cannot_be_scored_is_refused_and_nothing_changes(finished: tuple[Path, RunFolder], tmp_path: Path) -> None:
    folder, run = finished
    before = [record.scores for record in run.quality("adapter")]
    times = len(run.manifest().rescored)
    write_rows(folder, ROWS[:5], "fewer.jsonl")
    write_rows(folder, [{**row, "prompt": "What else?"} for row in ROWS], "other.jsonl")
    for data, told in (("fewer.jsonl", "has no row for 3 answered questions, the first is `q5`"), ("other.jsonl", "asks 8 questions otherwise than they were")):
        with pytest.raises(InputError, match=told):
            score(run, scenario_file(folder, "http://127.0.0.1:9", name="bad.yaml", data=data))
    with pytest.raises(EndpointError, match=r"quality\.judge: the judge at http://127.0.0.1:9 does not answer"):
        score(run, scenario_file(folder, "http://127.0.0.1:9", "judge: {url: 'http://127.0.0.1:9', model: j}", name="bad.yaml"))
    none = folder / "none.yaml"
    none.write_text(scenario_file(folder, "http://127.0.0.1:9", name="bad.yaml").read_text().partition("quality:")[0])
    with pytest.raises(InputError, match=r"none\.yaml has no `quality` block"):
        score(run, none)
    assert [record.scores for record in run.quality("adapter")] == before
    assert len(run.manifest().rescored) == times

    cut_off = RunFolder.create(tmp_path, "cut")
    cut_off.write_manifest(run.manifest())
    with pytest.raises(RunFolderError, match="has not finished"):
        score(cut_off, None)
    cut_off.append_journal("finished")
    with pytest.raises(InputError, match="has no answers to score"):
        score(cut_off, None)
