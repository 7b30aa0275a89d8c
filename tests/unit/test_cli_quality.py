"""`perfbench quality init`: eight questions, asked or given as flags, become a block that passes every check of `run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from perfbench.cli import app
from perfbench.errors import InputError, PerfbenchError
from perfbench.scenario import load_scenario
from perfbench.scenario.quality import TASKS, Quality

DATA = Path(__file__).parents[2] / "scenarios" / "quality" / "data"



def flags(kind: str, held_out: Path | str, **more: str) -> list[str]:
    given = {
        "base": "./base", "tuning": "lora", "task": kind, "train": "none", "held-out": str(held_out), "goal": "short right answers", "purpose": "check",
        "metric": "default", **more,
    }  # fmt: skip
    return ["quality", "init", *(part for name, value in given.items() for part in (f"--{name}", value))]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gets_a_block_from_its_data(task: str) -> None:
    more = ["--column", "expected=german"] if task == "translation" else []
    held_out = DATA / f"{task.replace('_', '-')}.jsonl"
    result = CliRunner().invoke(app, [*flags(task, held_out), *more])
    assert result.exit_code == 0, result.exception
    made = yaml.safe_load(result.stdout)
    assert made["quality"]["task"]["task"] == task
    assert made["quality"]["margin"] == 0.05
    assert made["variants"] == ["base", "adapter", "merged"]
    assert "CHANGE_ME" not in result.stdout
    assert "about 247 decide a margin of 0.05" in result.stdout  # 6.18 x 0.1 / 0.05^2
    assert ("needs a judge" in result.stdout) == (task == "chat")
    if task == "qa":
        assert made["quality"]["must_refuse"] == "unsafe"


def test_the_file_is_a_scenario_and_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "my-adapter").mkdir()
    (tmp_path / "heldout.csv").write_text("question,answer,lang\nCapital of France?,Paris,en\n")
    (tmp_path / "train.csv").write_text("question,answer\nCapital of Spain?,Madrid\n")
    path = tmp_path / "sub.yaml"
    more = {"train": str(tmp_path / "train.csv"), "base": str(tmp_path / "base"), "purpose": "publish", "metric": "token_f1"}
    result = CliRunner().invoke(app, [*flags("qa", tmp_path / "heldout.csv", **more), str(path)])
    assert result.exit_code == 0, result.exception
    assert result.stdout == ""
    scenario = load_scenario(path)
    assert scenario.quality is not None
    assert (scenario.quality.metric, scenario.quality.margin) == ("token_f1", 0.02)
    assert scenario.quality.data.path == str(tmp_path / "heldout.csv")
    assert scenario.quality.train_data is not None
    assert scenario.prompt.user == "{{ question }}"
    text = path.read_text()
    assert "data: heldout.csv" in text
    assert "# Goal: short right answers" in text
    assert "# Warning: a weak metric decides alone: token_f1" in text
    with pytest.raises(InputError, match="never overwrites"):
        CliRunner().invoke(app, [*flags("qa", tmp_path / "heldout.csv"), str(path)], catch_exceptions=False)


def test_the_questions_are_asked_and_asked_again(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": "great", "mood": "good"}) + "\n")
    answers = ["owner/base", "", "sentiment", "classification", "none", "/none.jsonl", str(rows), "taste", "mood"]
    told = "\n".join([*answers, "tell moods apart", "publish", "bleu", "macro_f1", ""])
    result = CliRunner().invoke(app, ["quality", "init"], input=told)
    assert result.exit_code == 0, result.exception
    assert "1/8  Base model" in result.stderr
    assert "8/8  The metric that decides (default, accuracy, macro_f1" in result.stderr
    assert "`sentiment` is not known; expected one of classification" in result.stderr
    assert "the held-out set: /none.jsonl does not exist" in result.stderr
    assert "Which of its columns holds `expected` (mood, text)" in result.stderr
    assert "`taste` is not known; expected one of mood, text" in result.stderr
    assert "`bleu` is not known; expected one of default, accuracy" in result.stderr
    made = yaml.safe_load(result.stdout[result.stdout.index("# Goal"):])  # the runner echoes what it types
    assert made["models"]["base"] == "owner/base"
    assert made["quality"]["metric"] == "macro_f1"
    assert made["quality"]["task"]["expected"] == "mood"
    data = {**made["quality"], "data": str(rows)}
    assert Quality.model_validate_json(json.dumps(data)).task.task == "classification"


def test_the_training_files_own_column_is_found(tmp_path: Path) -> None:
    rows, train = tmp_path / "rows.jsonl", tmp_path / "train.jsonl"
    rows.write_text(json.dumps({"text": "great", "label": "good"}) + "\n")
    train.write_text(json.dumps({"messages": [{"role": "user", "content": "bad"}]}) + "\n")
    made = yaml.safe_load(CliRunner().invoke(app, flags("classification", rows, train=str(train))).stdout)
    assert made["quality"]["train_column"] == "messages"
    train.write_text(json.dumps({"words": "bad"}) + "\n")
    with pytest.raises(InputError, match="lacks `text`, which the prompt is made of; name the column that holds the training text, one of words"):
        CliRunner().invoke(app, flags("classification", rows, train=str(train)), catch_exceptions=False)
    made = yaml.safe_load(CliRunner().invoke(app, flags("classification", rows, train=str(train), column="train_column=words")).stdout)
    assert made["quality"]["train_column"] == "words"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tuning": "magic"}, "--tuning: `magic` is not known; expected one of lora"),
        ({"task": "poetry"}, "--task: `poetry` is not known"),
        ({"metric": "bleu"}, "`bleu` does not fit task `qa`"),
        ({"metric": "ttft_s"}, "deployment metrics are never quality"),
        ({"held-out": "/none.jsonl"}, "the held-out set: /none.jsonl does not exist"),
        ({"train": "/none.jsonl"}, "the training data: /none.jsonl does not exist"),
        ({"held-out": str(DATA / "instructions.jsonl")}, "--column expected=NAME: which column of"),
        ({"held-out": str(DATA / "chat.jsonl"), "column": "expected=nothing"}, "lack column `nothing`"),
        ({"column": "expected"}, "expected KEY=NAME"),
        ({"column": "answer=text"}, "--column answer=NAME: task `qa` needs no such column; expected one of prompt, expected, train_column"),
    ],
)
def test_an_answer_that_cannot_be_has_its_sentence(change: dict[str, str], says: str) -> None:
    arguments = flags("qa", DATA / "qa.jsonl", **change)
    with pytest.raises(PerfbenchError) as caught:
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert says in caught.value.message
    assert caught.value.exit_code == 2


def test_nobody_to_ask_is_told() -> None:
    with pytest.raises(InputError, match="--base is missing, and there is nobody to ask"):
        CliRunner().invoke(app, ["quality", "init"], input="", catch_exceptions=False)


def test_every_task_has_its_columns() -> None:
    from perfbench.quality.starter import _COLUMNS

    assert set(_COLUMNS) >= set(TASKS)
