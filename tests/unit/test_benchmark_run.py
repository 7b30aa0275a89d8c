"""The second layer on a run's variants: own task first, servers as the run has them, results kept in its folder and told in its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from answering_server import AnsweringServer, chat
from typer.testing import CliRunner

from perfbench import benchmark_run as room
from perfbench.benchmark_run import Asked, benchmark_run
from perfbench.cli import app
from perfbench.errors import InputError
from perfbench.manifest import describe_run
from perfbench.quality.second_layer import Served, TaskFile
from perfbench.records import BenchmarkResult, QualityRecord
from perfbench.report.progress import RunProgress
from perfbench.results import RunFolder
from perfbench.scenario import load_scenario
from perfbench.trials import plan_trials

CAPITALS = Path(__file__).parents[2] / "scenarios" / "quality" / "data" / "capitals.yaml"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Served, Path]]:
    """The harness itself is run in test_second_layer: here only what it is given."""
    calls: list[tuple[str, Served, Path]] = []

    def stand_in(tool: str, task: TaskFile, served: Served, **more: Any) -> BenchmarkResult:
        calls.append((more["variant"], served, more["out"]))
        more["out"].mkdir(parents=True, exist_ok=True)
        return BenchmarkResult(
            task=task.name, variant=more["variant"], tool=tool, tool_version="0", task_file=str(task.path), api=more["api"],
            metrics={"exact_match": [0.25, 0.1]}, n=4, goal="g", caution="c <b>", own_task_checked=more["own_task_checked"], command=[],
        )  # fmt: skip

    monkeypatch.setattr(room, "run_benchmark", stand_in)
    return calls


def make_run(folder: Path, url: str, *, checked: bool) -> RunFolder:
    (folder / "rows.jsonl").write_text('{"prompt": "a", "label": "x"}\n')
    file = folder / "s.yaml"
    file.write_text(
        f'name: s\nendpoints: {{one: {{url: "{url}", model: m}}, two: {{url: "{url}", model: m}}}}\n'
        "load: {data: rows.jsonl, stages: [{name: a, arrival: closed, concurrency: 1, output: {max_tokens: 4}}]}\n"
        "quality: {data: rows.jsonl, task: {task: classification, expected: label}, margin: 0.1}\n"
    )
    scenario = load_scenario(file)
    run = RunFolder.create(folder / "results", "s")
    run.write_manifest(describe_run(run.path.name, scenario, scenario_file=file, command=[], models={}, trials=plan_trials(scenario), hashes={}, traces={}))
    if checked:
        record = QualityRecord(sample_id="0", variant="one", prompt="a", prompt_sha256="", expected="x", output="x", passed=True, label="correct answer")
        run.write_quality("one", [msgspec.structs.replace(record, scores={"accuracy": 1.0})])
    return run


def test_variants_whose_own_task_was_checked_are_run_and_kept(tmp_path: Path, ran: list[tuple[str, Served, Path]]) -> None:
    with AnsweringServer(lambda body: chat("x")) as server, RunProgress(quiet=True) as progress:
        run = make_run(tmp_path, server.url, checked=True)
        results = benchmark_run(run.path, Asked((CAPITALS,)), [], progress)
    assert [(variant, served.url, served.model) for variant, served, _ in ran] == [("one", server.url, "m")]
    assert ran[0][2] == run.path / "benchmarks" / "capitals" / "one"
    assert run.benchmarks() == results
    assert results[0].own_task_checked


def test_variants_without_their_own_task_are_refused_unless_somebody_insists(tmp_path: Path, ran: list[tuple[str, Served, Path]]) -> None:
    with AnsweringServer(lambda body: chat("x")) as server, RunProgress(quiet=True) as progress:
        run = make_run(tmp_path, server.url, checked=True)
        with pytest.raises(InputError, match="the own task of `two` has not been checked"):
            benchmark_run(run.path, Asked((CAPITALS,)), ["one", "two"], progress)
        assert ran == []
        results = benchmark_run(run.path, Asked((CAPITALS,), anyway=True), ["two"], progress)
        assert [result.own_task_checked for result in results] == [False]
        with pytest.raises(InputError, match="the run has no variant `three`; it has one, two"):
            benchmark_run(run.path, Asked((CAPITALS,), anyway=True), ["three"], progress)


def test_a_run_without_any_check_is_refused(tmp_path: Path, ran: list[tuple[str, Served, Path]]) -> None:
    with RunProgress(quiet=True) as progress, pytest.raises(InputError, match="the own task of its variants has not been checked"):
        benchmark_run(make_run(tmp_path, "http://127.0.0.1:9", checked=False).path, Asked((CAPITALS,)), [], progress)
    assert ran == []


def test_a_narrow_terminal_gets_figures_and_caution_in_whole_lines(tmp_path: Path, ran: list[tuple[str, Served, Path]]) -> None:
    told = CliRunner(env={"COLUMNS": "80"}).invoke(
        app, ["benchmark", "http://127.0.0.1:9", "--model", "m", "--task", str(CAPITALS), "--anyway", "--out", str(tmp_path), "--quiet"]
    )
    assert told.exit_code == 0, told.exception
    assert "0.250 ± 0.100" in told.stdout
    assert "capitals: g. Caution: c <b>." in told.stdout
    assert "The own task had not been checked before." in told.stdout
