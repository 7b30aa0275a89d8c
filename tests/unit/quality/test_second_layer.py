"""The second layer: tasks read, commands built, own task first; and lm-evaluation-harness itself, run offline against a small server."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from answering_server import AnsweringServer, chat

from perfbench.benchmark_run import Asked, benchmark_url
from perfbench.errors import InputError, MissingPartError, PerfbenchError
from perfbench.quality import second_layer
from perfbench.quality.second_layer import OWN, Served, TaskFile, check_tool, command_of, known_benchmark, read_results, read_task
from perfbench.report.evidence import benchmark_table
from perfbench.report.progress import RunProgress

CAPITALS = Path(__file__).parents[3] / "scenarios" / "quality" / "data" / "capitals.yaml"
SERVED = Served("http://localhost:8000", "adapter", None, "/models/base")


@pytest.mark.parametrize(
    ("task", "word"),
    [
        ("ifeval", "letter"), ("leaderboard_mmlu_pro", "ten choices"), ("mmlu_flan_n_shot", "57"), ("gpqa_diamond_zeroshot", "experts"),
        ("MT-Bench", "two turns"),
        ("arena-hard", "preferred"), ("livecodebench_v5", "contest"), ("SWE-bench Lite", "repositories"), ("humaneval_instruct", "docstring"),
    ],
)  # fmt: skip
def test_public_benchmarks_are_known_by_their_name(task: str, word: str) -> None:
    assert word in known_benchmark(task).goal
    assert known_benchmark(task).caution


def test_an_unknown_task_is_ones_own() -> None:
    assert known_benchmark("capitals") == OWN


def test_a_task_file_is_read_with_its_function_tags(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("task: mine\noutput_type: multiple_choice\nprocess_docs: !function utils.process\n")
    assert read_task(tmp_path / "t.yaml") == TaskFile(tmp_path / "t.yaml", "mine", "multiple_choice")


@pytest.mark.parametrize("text", ["- a\n", "group: x\n", "task: [a, b]\n", "a: [\n"])
def test_what_is_no_task_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(InputError, match=r"t\.yaml (is no task|cannot be read)"):
        read_task(tmp_path / "t.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_task(tmp_path / "none.yaml")


def test_the_commands(tmp_path: Path) -> None:
    task = TaskFile(tmp_path / "t.yaml", "mine", "generate_until")
    more: dict[str, Any] = {"out": Path("/out"), "limit": 5, "concurrency": 4, "seed": 7}
    command = " ".join(command_of("lm-eval", task, SERVED, api="chat", **more))
    assert "-m lm_eval run --model local-chat-completions --model_args model=adapter,base_url=http://localhost:8000/v1/chat/completions," in command
    assert f"--include_path {tmp_path} --tasks mine --output_path /out --log_samples --seed 7 --apply_chat_template --limit 5" in command
    choice = TaskFile(task.path, "mine", "multiple_choice")
    likelihoods = " ".join(command_of("lm-eval", choice, SERVED, api="completions", **more))
    assert "tokenizer=/models/base,tokenizer_backend=huggingface" in likelihoods
    assert "apply_chat_template" not in likelihoods
    for served, api, kind, told in (
        (SERVED, "chat", choice, "needs log-likelihoods"),
        (Served("http://x", "m"), "completions", choice, "give --tokenizer"),
        (Served("unix:///run/v.sock", "m"), "chat", task, "Unix socket"),
    ):
        with pytest.raises(InputError, match=told):
            command_of("lm-eval", kind, served, api=api, **more)  # type: ignore[arg-type]


def test_results_are_read_with_their_errors() -> None:
    data = {
        "results": {"mine": {"alias": "mine", "exact_match,none": 0.5, "exact_match_stderr,none": 0.1, "f1,strict": 0.25, "f1_stderr,strict": "N/A"}},
        "n-samples": {"mine": {"original": 12, "effective": 10}},
    }
    assert read_results(data, "mine") == ({"exact_match": [0.5, 0.1], "f1 (strict)": [0.25, None]}, 10)
    assert read_results({"results": {}}, "mine") == ({}, None)


def test_a_tool_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match="lm-eval is not installed"):
        check_tool("lm-eval")


def test_the_own_task_comes_first(tmp_path: Path) -> None:
    with RunProgress(quiet=True) as progress, pytest.raises(InputError, match="not known, and public benchmarks come after that"):
        benchmark_url("http://127.0.0.1:9", "m", Asked((CAPITALS,)), tmp_path, None, progress)


def test_lm_eval_runs_offline_and_everything_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs perfbench[lm-eval]")

    def reply(body: dict[str, Any]) -> Any:
        return chat("Paris." if "France" in body["messages"][-1]["content"] else "Rome")

    with AnsweringServer(reply) as server, RunProgress(quiet=True) as progress:
        (result,) = benchmark_url(f"{server.url}/v1", "served", Asked((CAPITALS,), anyway=True, limit=4, concurrency=2), tmp_path, None, progress)
        assert len(server.bodies) == 4
        assert {body["model"] for body in server.bodies} == {"served"}
    (value, error) = next(iter(result.metrics.values()))
    assert value == 0.5  # France and Italy of the first four
    assert error is not None
    assert (result.n, result.own_task_checked, result.caution) == (4, False, OWN.caution)
    samples = [json.loads(line) for path in result.samples for line in Path(path).read_text().splitlines()]
    assert {sample["doc"]["country"] for sample in samples} == {"France", "Japan", "Italy", "Spain"}
    assert all(sample["prompt_hash"] and sample["target_hash"] for sample in samples)
    assert json.loads((tmp_path / "benchmarks.json").read_text())[0]["task"] == "capitals"
    row = benchmark_table([result]).rows[0]
    assert row[0].text == "capitals"
    assert "had not been checked" in row[-1].text


def test_a_tool_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_layer, "command_of", lambda *given, **more: ["sh", "-c", "echo it broke; exit 3"])
    with RunProgress(quiet=True) as progress, pytest.raises(PerfbenchError, match="lm-eval failed on task capitals with variant m: it broke"):
        benchmark_url("http://127.0.0.1:9", "m", Asked((CAPITALS,), anyway=True), tmp_path, None, progress)
