"""What makes a run trustworthy, shown on real processes: an overloaded server stops its stage, a CPU hog voids the audit, the client knows its own floor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perfbench.client_floor import measure_client_floor
from perfbench.load.engine import LoadProcess
from tests.truth.conftest import TruthServer

SCENARIO = """
name: trust
endpoints:
  left: {{url: "{url}", model: truth}}
load:
  data: rows.jsonl
  stages: {stages}
slo: {{ttft_s: {{p90: 0.2}}}}
"""


def run(tmp_path: Path, url: str, stages: list[dict[str, Any]], *options: str) -> tuple[dict[str, Any], Path]:
    """The summary and the folder of a run through the command line."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": f"p{n}", "prompt": f"say {n}"}) + "\n" for n in range(20)))
    (tmp_path / "scenario.yaml").write_text(SCENARIO.format(url=url, stages=json.dumps(stages)))
    arguments = ["run", str(tmp_path / "scenario.yaml"), "--out", str(tmp_path / "results"), "--json", "--quiet", *options]
    done = subprocess.run([sys.executable, "-m", "perfbench", *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    return json.loads(done.stdout), folder


def constant(name: str, rate_per_s: float, duration_s: float) -> dict[str, Any]:
    drive = {"arrival": "constant", "rate_per_s": rate_per_s, "warmup_s": 0.5, "duration_s": duration_s, "drain_s": 2, "output": {"fixed": 8}}
    return {"name": name, **drive}


def test_an_over_saturated_stage_ends_early_and_higher_rates_are_left_out(capacity_server: Callable[..., TruthServer], tmp_path: Path) -> None:
    """One slot of 55 ms a request: 18 requests/s. At 40/s the queue grows by 22 a second."""
    server = capacity_server("--slots", "1")
    summary, folder = run(tmp_path, server.url, [constant("too-fast", 40, 60), constant("faster", 80, 60)])
    (trial,) = summary["variants"]["left"]["trials"]
    assert trial["stage"] == "too-fast"
    assert trial["steady"]["verdict"] == "over-saturated"
    assert "cannot keep up with 40 requests/s" in trial["steady"]["sentence"]
    # Unanswered requests do not void it, for it shows what it was to show: no SLO is met at this rate. (Others may keep this machine busy.)
    assert {check["name"] for check in trial["audit"]["checks"] if check["verdict"] == "void"} <= {"other processes", "stolen CPU"}
    assert next(check for check in trial["audit"]["checks"] if check["name"] == "steady state")["verdict"] == "suspect"
    assert trial["slo"]["met"] is False
    assert "skipped: left.too-fast.r0 was over-saturated at 40 requests/s" in summary["not_measured"]["left.faster.r0"]
    finished = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines() if '"trial_finished"' in line]
    outcome = finished[0]["data"]
    assert 7 < (outcome["measure_until_ns"] - outcome["measure_from_ns"]) / 1e9 < 30
    assert outcome["requests_ok"] > 100


def test_a_stage_below_capacity_is_driven_to_its_end(capacity_server: Callable[..., TruthServer], tmp_path: Path) -> None:
    server = capacity_server("--slots", "1")
    summary, _ = run(tmp_path, server.url, [constant("fits", 14, 12)], "--no-client-floor")
    (trial,) = summary["variants"]["left"]["trials"]
    assert trial["steady"]["verdict"] == "steady", trial["steady"]
    assert trial["rates"]["requests_per_s"] == pytest.approx(14, rel=0.05)


def test_a_cpu_hog_beside_the_client_voids_the_audit(capacity_server: Callable[..., TruthServer], tmp_path: Path) -> None:
    """As many busy processes as there are cores, of somebody else: the figures are those of a machine that was shared."""
    with hogs(os.cpu_count() or 1):
        summary, _ = run(tmp_path, capacity_server().url, [constant("one", 20, 4)], "--no-client-floor")
    audit = summary["variants"]["left"]["trials"][0]["audit"]
    check = next(check for check in audit["checks"] if check["name"] == "other processes")
    assert (audit["verdict"], check["verdict"]) == ("void", "void"), audit
    assert check["measured"] > check["void_above"]
    assert any("other processes used" in reason for reason in audit["reasons"])
    assert summary["valid"] is False


def test_the_client_knows_its_own_floor(load_process: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> None:
    """The null server answers at once, so what is left is the client and a loopback: milliseconds on a busy machine, never none."""
    floor = measure_client_floor(load_process, 100.0)
    assert floor is not None
    assert floor.requests >= 90
    assert 0 < floor.ttft_p50_s <= floor.ttft_p99_s < 0.5
    summary, folder = run(tmp_path, truth_server.url, [constant("one", 30, 1.5)])
    stored = json.loads((folder / "manifest.json").read_text())["client_floor"]
    assert stored["rate_per_s"] == 50.0 and stored["ttft_p99_s"] > 0
    checks = {check["name"]: check for check in summary["variants"]["left"]["trials"][0]["audit"]["checks"]}
    assert checks["client floor"]["measured"] == pytest.approx(stored["ttft_p50_s"] / summary["variants"]["left"]["trials"][0]["metrics"]["ttft_s"]["p50"])


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that only burn CPU, in a session of their own: nobody's children of the run."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
