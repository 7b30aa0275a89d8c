"""The whole main path through the command line, against servers whose answers are known: two endpoints, no vLLM needed.

What is cut off here (kill -9, Ctrl-C) is cut off for real: the command runs as a process of its own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SCENARIO = """
name: truth
endpoints:
  left: {{url: "http://127.0.0.1:{left}", model: m}}
  right: {{url: "http://127.0.0.1:{right}", model: m}}
load:
  data: rows.jsonl
  repeats: 2
  stages:
    - {{name: two, arrival: closed, concurrency: 2, warmup_s: 0.5, duration_s: {duration_s}, drain_s: 5, output: {{fixed: 8}}}}
    - {{name: poisson, arrival: poisson, rate_per_s: 10, warmup_s: 0.5, duration_s: {duration_s}, drain_s: 5, output: {{max_tokens: 8}}}}
slo: {{ttft_s: {{p95: 0.5}}}}
quality: {{data: rows.jsonl, task: {{task: extraction, expected: answer}}, margin: 0.05, max_tokens: 16}}
cost: {{server_hour_usd: 3.6}}
"""


@pytest.fixture
def endpoints(truth_binary: Path, tmp_path: Path) -> Iterator[dict[str, int]]:
    servers = [subprocess.Popen([truth_binary, "0", tmp_path / f"{name}.log", "m"], stdout=subprocess.PIPE, text=True) for name in ("left", "right")]
    try:
        yield {name: int(server.stdout.readline().split()[1]) for name, server in zip(("left", "right"), servers, strict=True) if server.stdout}
    finally:
        for server in servers:
            server.kill()
            server.wait()
            if server.stdout:
                server.stdout.close()


@pytest.fixture
def scenario(endpoints: dict[str, int], tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": f"p{n}", "prompt": f"say {n}", "answer": {"n": n}}) + "\n" for n in range(20)))

    def write(duration_s: float = 1.0) -> Path:
        path = tmp_path / "scenario.yaml"
        path.write_text(SCENARIO.format(**endpoints, duration_s=duration_s))
        return path

    return write


def perfbench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "perfbench", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def start(scenario: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "perfbench", "run", str(scenario), "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_trial(out: Path, finished: int, requests_bytes: int) -> Path:
    """Wait until so many trials are in the journal and the next one has spooled something; returns the run folder."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for folder in out.glob("truth-*"):
            journal = folder / "journal.jsonl"
            done = journal.read_text().count('"trial_finished"') if journal.is_file() else 0
            if done >= finished and any(spool.stat().st_size > requests_bytes for spool in folder.glob("requests/*.spool")):
                return folder
        time.sleep(0.05)
    raise AssertionError("the run did not get so far")


def processes_of(folder: Path) -> list[psutil.Process]:
    """Load processes and samplers that still work for a run."""
    found = []
    for process in psutil.process_iter(["cmdline", "open_files"]):
        command = " ".join(process.info["cmdline"] or ())
        if "perfbench." in command and any(str(folder) in file.path for file in process.info["open_files"] or ()):
            found.append(process)
    return found


def test_a_run_measures_checks_and_reports(scenario, tmp_path):
    done = perfbench("run", scenario(), "--out", tmp_path / "results", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    summary = json.loads(done.stdout)
    (folder,) = (tmp_path / "results").iterdir()
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert summary["schema_version"] == 1
    assert set(summary["variants"]) == {"left", "right"}
    for variant in summary["variants"].values():
        assert len(variant["trials"]) == 4
        assert variant["quality"]["n"] == 20
        assert all(trial["requests"]["failed"] == 0 and trial["requests"]["ok"] > 0 for trial in variant["trials"])
        closed = next(trial for trial in variant["trials"] if trial["stage"] == "two")
        # The server's own plan: first token after 20 ms, then one each 5 ms.
        assert 0.020 <= closed["metrics"]["ttft_s"]["p50"] < 0.030
        assert closed["metrics"]["tpot_s"]["p50"] == pytest.approx(0.005, abs=0.002)
    assert {check["verdict"] for check in summary["reference"]} == {"skipped"}
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert "TTFT" in (folder / "report.md").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {"load_prompts", "quality_prompts", "template", "decoding"} <= set(manifest["hashes"])
    assert not list(folder.glob("requests/*.spool")) + list(folder.glob("requests/*.bodies.jsonl"))


def test_kill_9_in_a_stage_loses_no_finished_request_and_resume_finishes(scenario, tmp_path, endpoints):
    out = tmp_path / "results"
    run = start(scenario(duration_s=2.0), out)
    folder = wait_for_trial(out, finished=1, requests_bytes=20_000)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    deadline = time.monotonic() + 20
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(folder) == []
    before = set((folder / "journal.jsonl").read_text().splitlines())

    done = perfbench("run", "--resume", folder, "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    assert before < set((folder / "journal.jsonl").read_text().splitlines())
    summary = json.loads(done.stdout)
    assert all(len(variant["trials"]) == 4 for variant in summary["variants"].values())

    from perfbench.results import RunFolder

    cut = RunFolder.open(folder).records(interrupted=True).collect()
    answered = {json.loads(line)["id"] for name in endpoints for line in (tmp_path / f"{name}.log").read_text().splitlines()}
    kept = set(cut["request_id"]) | set(RunFolder.open(folder).records().collect()["request_id"])
    # The server also answered checks and what was in flight at the moment of the kill: at most two streams, or a few arrivals.
    lost = {request for request in answered - kept if request.split(".r")[0].rsplit(".", 1)[-1] in ("two", "poisson")}
    assert cut.height > 5
    assert len(lost) <= 4, sorted(lost)

    again = perfbench("run", "--resume", folder)
    assert (again.returncode, "has finished" in again.stderr) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_drains_saves_and_leaves_nothing(scenario, tmp_path, number):
    out = tmp_path / "results"
    run = start(scenario(duration_s=20.0), out)
    folder = wait_for_trial(out, finished=0, requests_bytes=5_000)
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in output
    assert "--resume" in output
    assert processes_of(folder) == []
    assert '"interrupted"' in (folder / "journal.jsonl").read_text()
    assert not list(folder.glob("requests/*.spool"))

    from perfbench.results import RunFolder

    assert RunFolder.open(folder).records(interrupted=True).collect().height >= 3


def test_changed_data_cannot_be_resumed(scenario, tmp_path):
    out = tmp_path / "results"
    run = start(scenario(duration_s=2.0), out)
    folder = wait_for_trial(out, finished=0, requests_bytes=1)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace("say 3", "tell 3"))
    done = perfbench("run", "--resume", folder)
    assert done.returncode == 2
    assert "load_prompts" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_input_ends_with_2_and_makes_no_folder(scenario, tmp_path, endpoints):
    path = scenario()
    path.write_text(path.read_text().replace("rate_per_s: 10", "rate_per_s: 0").replace("concurrency", "concurency"))
    done = perfbench("run", path, "--out", tmp_path / "results")
    assert done.returncode == 2
    assert "load.stages[1].rate_per_s" in done.stderr and "did you mean `concurrency`" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_an_endpoint_that_does_not_serve_the_model_says_which_it_serves(scenario, tmp_path):
    path = scenario()
    path.write_text(path.read_text().replace("model: m}", "model: other}", 1))
    done = perfbench("run", path, "--out", tmp_path / "results", "--quiet")
    assert done.returncode == 2
    assert "does not serve `other`; it serves `m`" in done.stderr


def test_a_key_stands_in_no_file(scenario, tmp_path):
    path = scenario()
    path.write_text(path.read_text().replace("model: m}", "model: m, api_key_env: TRUTH_KEY}", 1))
    secret = "sk-very-secret-4711"
    environment = {**os.environ, "TRUTH_KEY": secret}
    done = subprocess.run(
        [sys.executable, "-m", "perfbench", "run", path, "--out", tmp_path / "results", "--quiet"],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert [file for file in files if secret.encode() in file.read_bytes()] == []
    assert secret not in done.stdout + done.stderr
