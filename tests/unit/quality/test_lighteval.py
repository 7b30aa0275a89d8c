"""Lighteval's task files, its command and what it leaves behind; it runs for real in tests/live/test_lighteval.py."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from perfbench.errors import InputError, MissingPartError
from perfbench.quality import lighteval
from perfbench.quality.second_layer import Served, TaskFile, command_of, read_tasks

CAPITALS = Path(__file__).parents[3] / "scenarios" / "quality" / "data" / "capitals.py"


def test_the_tasks_of_a_file_are_read_without_running_it(tmp_path: Path) -> None:
    assert read_tasks("lighteval", CAPITALS) == [TaskFile(CAPITALS, "capitals", "generate_until", 0)]
    file = tmp_path / "two.py"
    file.write_text('raise SystemExit("was run")\na = LightevalTaskConfig(name="one", num_fewshots=3)\nb = tasks.LightevalTaskConfig(name="two")\n')
    assert [(task.name, task.shots) for task in read_tasks("lighteval", file)] == [("one", 3), ("two", 0)]


@pytest.mark.parametrize("text", ["task: capitals\n", "x = 1\n", "LightevalTaskConfig(name=made())\n", "def (", "\0"])
def test_what_is_no_task_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.py").write_text(text)
    with pytest.raises(InputError, match=r"t\.py (is no task file|cannot be read as a task file) of Lighteval"):
        read_tasks("lighteval", tmp_path / "t.py")
    with pytest.raises(InputError, match="cannot be read"):
        read_tasks("lighteval", tmp_path / "none.py")


def test_the_command_and_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lighteval, "installed", lambda: lighteval.Installed("/there/python", "0"))
    task, served = TaskFile(tmp_path / "t.py", "mine", "generate_until", 3), Served("http://localhost:8000", "adapter")
    command = command_of("lighteval", task, served, api="chat", out=Path("/out"), limit=5, concurrency=4, seed=7)
    assert command[0] == "/there/python"
    assert command[2:6] == ["endpoint", "litellm", "/out/model.yaml", "mine|3"]
    assert command[6:] == ["--custom-tasks", str(tmp_path / "t.py"), "--output-dir", "/out", "--save-details", "--max-samples", "5"]
    with pytest.raises(InputError, match="by chat alone"):
        command_of("lighteval", task, served, api="completions", out=Path("/out"), limit=None, concurrency=4, seed=7)
    lighteval.write_model(tmp_path, tmp_path / "work", url="http://h:1/a=b,c", model="adapter", concurrency=4, seed=7)
    model = yaml.safe_load((tmp_path / "model.yaml").read_text())["model_parameters"]
    assert (model["model_name"], model["base_url"], model["concurrent_requests"]) == ("openai/adapter", "http://h:1/a=b,c/v1", 4)
    assert model["generation_parameters"] == {"temperature": 0.0, "seed": 7}
    assert Path(model["cache_dir"]).is_relative_to(tmp_path / "work")  # a cache by the model's name would answer for another server


def test_one_that_is_missing_or_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "none" / "python"))
    with pytest.raises(MissingPartError, match="lighteval is not installed"):
        lighteval.installed()
    for name in ("lighteval", "python"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'AttributeError: DISK' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(MissingPartError, match="lighteval cannot be used: AttributeError: DISK"):
        lighteval.installed()
    (tmp_path / "python").unlink()
    with pytest.raises(MissingPartError, match=r"lighteval cannot be used: .*No such file"):
        lighteval.installed()


def test_requests_that_failed_and_samples_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("[x] API call failed after 3 attempts, returning empty response. (y)\nfine\nAPI call failed after 3 attempts, returning\n")
    assert lighteval.failed_requests(log) == 2
    assert lighteval.samples_of(tmp_path, "mine") == ([], None)
    pq.write_table(pa.table({"doc": [1, 2, 3]}), tmp_path / "details_mine|0_2026.parquet")
    assert lighteval.samples_of(tmp_path, "mine") == ([tmp_path / "details_mine|0_2026.parquet"], 3)
