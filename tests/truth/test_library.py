"""perfbench as a library: the documented examples, executed, and a locustfile of a user's own under real Locust."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perfbench import Scenario, load_run, run
from perfbench.errors import RunFolderError
from tests.truth.conftest import TruthServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


def python(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def scenario_file(truth_server: TruthServer, tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": f"p{n}", "prompt": f"say {n}"}) + "\n" for n in range(8)))
    file = tmp_path / "mine.yaml"
    file.write_text(
        f'name: mine\nendpoints: {{served: {{url: "{truth_server.url}", model: truth}}}}\n'
        "load:\n  data: rows.jsonl\n  stages: [{name: two, arrival: closed, concurrency: 2, warmup_s: 0.2, duration_s: 1, output: {fixed: 8}}]\n"
    )
    return file


def test_the_examples_carry_out_a_scenario_and_read_its_run(scenario_file: Path, tmp_path: Path) -> None:
    done = python(EXAMPLES / "run_a_scenario.py", scenario_file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^served two: TTFT p95 0\.0\d+ s over \d+ requests, ", done.stdout, re.MULTILINE)
    (folder,) = (tmp_path / "results").iterdir()
    assert f"Run('{folder}')" in done.stdout
    read = python(EXAMPLES / "read_a_run.py", folder, cwd=tmp_path)
    assert read.returncode == 0, read.stderr
    assert "served: None USD a request" in read.stdout
    assert "two.r0" in read.stdout

    again = load_run(folder)
    assert again.records().select(pl.len()).collect().item() > 8
    assert again.summary.variants["served"].trials[0].stage == "two"
    assert again.manifest.scenario_name == "mine"
    assert again.quality("served") == []


def test_run_takes_a_scenario_made_in_python(truth_server: TruthServer, scenario_file: Path, tmp_path: Path) -> None:
    wanted: dict[str, Any] = {
        "name": "made",
        "endpoints": {"served": {"url": truth_server.url, "model": "truth"}},
        "load": {
            "data": str(tmp_path / "rows.jsonl"),
            "stages": [{"name": "one", "arrival": "closed", "concurrency": 1, "warmup_s": 0, "duration_s": 0.5, "output": {"fixed": 4}}],
        },
    }
    finished = run(Scenario.model_validate_json(json.dumps(wanted)), parent=tmp_path / "out")
    assert finished.path.parent == tmp_path / "out"
    assert set(finished.records().collect()["output_tokens"]) == {4}


def test_importing_the_main_path_leaves_run_a_function() -> None:
    said = python("-c", "import perfbench.run\nfrom perfbench import run\nprint(run.__module__)", cwd=ROOT).stdout
    assert said.strip() == "perfbench.library"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        load_run(tmp_path)


def test_a_locustfile_gets_records_with_the_kernels_stamps(truth_server: TruthServer, tmp_path: Path) -> None:
    arguments = ("-m", "locust", "-f", EXAMPLES / "locustfile.py", "--host", truth_server.url, "--headless", "--users", 2, "--spawn-rate", 2)
    done = python(*arguments, "--run-time", "6s", "--stop-timeout", "5", "--json", cwd=tmp_path, MODEL="truth")
    assert done.returncode == 0, done.stderr
    answers = truth_server.answers()
    told = re.findall(r"^(locust-\S+): (\d+) tokens, first after ([\d.]+) s \(kernel stamp\)$", done.stdout, re.MULTILINE)
    assert told
    assert len({request_id.rsplit("-", 2)[0] for request_id, _, _ in told}) == 1, "two users, one reader"
    late_s = []
    for request_id, tokens, ttft_s in told:
        answer = answers[request_id]
        assert int(tokens) == 16
        # The server logs when it had the request and when it was about to write the first token: sending lies before the one, arriving after the other.
        late_s.append(float(ttft_s) - (answer.chunks[0] - answer.received_ns) / 1e9)
    assert min(late_s) >= 0
    assert sorted(late_s)[len(late_s) // 2] < 0.02  # the request's way to a server that may be waiting for a core
    stats = json.loads(done.stdout[done.stdout.index("\n[") :])
    assert {(entry["method"], entry["name"]) for entry in stats} == {("POST", "chat"), ("TTFT", "chat"), ("TPOT", "chat")}


ASK = """
import sys
from locust.env import Environment
from perfbench import LlmUser

def ask(host, timeout_s=5.0, **truth):
    user_class = type("Asking", (LlmUser,), {"host": host, "request_timeout_s": timeout_s, "model": "truth"})
    user = user_class(Environment(user_classes=[user_class]))
    record = user.chat([{"role": "user", "content": "Hello"}], max_tokens=4, truth=truth)
    print(record.status, record.error)

ask(sys.argv[1])
ask(sys.argv[1], timeout_s=0.1, ttft_ms=2000)
ask("http://127.0.0.1:9")
"""


def test_failures_are_records_too(truth_server: TruthServer, tmp_path: Path) -> None:
    done = python("-c", ASK, truth_server.url, cwd=tmp_path)
    assert done.stdout.splitlines() == ["ok None", "failed timeout", "failed connect"], done.stderr
