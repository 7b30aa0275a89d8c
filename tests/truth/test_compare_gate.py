"""compare and gate through the command line, on real runs against servers whose timings are known.

Two runs of the same server, and one of a server that takes twice as long once it serves two requests (`--knee 1`). What else this machine does during
the runs is not the question here and would void their trials, so the samples of the machine are removed before the runs are analysed (again).
"""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from perfbench.conclude import conclude
from perfbench.results import RunFolder

SCENARIO = """
name: gated
endpoints: {{ours: {{url: "http://127.0.0.1:{port}", model: m}}}}
load:
  data: rows.jsonl
  repeats: 2
  stages:
    - {{name: two, arrival: closed, concurrency: 2, warmup_s: 0.3, duration_s: 2.0, drain_s: 2, output: {{fixed: 8}}}}
slo: {{ttft_s: {{p90: 1}}}}
quality: {{data: rows.jsonl, task: {{task: extraction, expected: answer}}, minimum: 0.5, margin: 0.05, max_tokens: 8}}
cost: {{server_hour_usd: 3.6}}
"""
RULES = """
rules:
  - {metric: ttft_s, statistic: p50, allowed_relative: 0.5}
  - {metric: e2e_s, statistic: p50, allowed_relative: 0.5}
  - {metric: requests_per_s, allowed_relative: 0.3}
  - {metric: usd_per_request, allowed_relative: 0.5}
"""


def perfbench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "perfbench", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def runs(truth_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders: `old` and `new` of the same server, `slow` of the slower one."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"id": f"p{n}", "prompt": f"say {n}", "answer": {"n": n}}) + "\n" for n in range(20)))
    (folder / "gate.yaml").write_text(RULES)
    found: dict[str, Path] = {}
    for name, options in (("old", []), ("new", []), ("slow", ["--knee", "1"])):
        server = subprocess.Popen([truth_binary, "0", folder / f"{name}.log", *options, "m"], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            scenario = folder / f"{name}.yaml"
            scenario.write_text(SCENARIO.format(port=int(server.stdout.readline().split()[1])))
            done = perfbench("run", scenario, "--out", folder / name, "--quiet", "--json")
            assert done.returncode == 0, done.stderr
        finally:
            server.kill()
            server.wait()
            server.stdout.close()
        (found[name],) = (folder / name).iterdir()
        for samples in found[name].glob("telemetry/*.parquet"):
            samples.unlink()
        conclude(RunFolder.open(found[name]))
    return {**found, "rules": folder / "gate.yaml"}


def test_the_same_server_twice_is_no_regression(runs: dict[str, Path]) -> None:
    done = perfbench("gate", runs["new"], "--against", runs["old"], "--rules", runs["rules"], "--json")
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert {check["verdict"] for check in json.loads(done.stdout)["checks"]} <= {"pass", "cannot tell"}


def test_a_planted_slow_down_is_a_regression(runs: dict[str, Path], tmp_path: Path) -> None:
    junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
    files = ("--junit", junit, "--markdown", markdown)
    done = perfbench("gate", runs["slow"], "--against", runs["old"], "--rules", runs["rules"], "--json", *files)
    assert done.returncode == 1, done.stdout + done.stderr
    result = json.loads(done.stdout)
    found = {check["metric"]: check for check in result["checks"]}
    assert result["verdict"] == "regression"
    assert {name: check["verdict"] for name, check in found.items()} == dict.fromkeys(("ttft_s", "e2e_s", "requests_per_s", "usd_per_request"), "regression")
    # Twice as long: +100%, a rate of half, a price of twice; the client's own overhead keeps it a little below.
    assert found["ttft_s"]["change"] == pytest.approx(1.0, abs=0.25)
    assert found["requests_per_s"]["change"] == pytest.approx(-0.5, abs=0.12)
    assert (1 + found["requests_per_s"]["change"]) * (1 + found["usd_per_request"]["change"]) == pytest.approx(1.0, abs=0.05)
    assert ElementTree.parse(junit).getroot()[0].attrib["failures"] == "4"
    assert markdown.read_text().startswith("## Gate: regression")


def test_compare_finds_it_too(runs: dict[str, Path]) -> None:
    done = perfbench("compare", runs["old"], runs["slow"], "--json")
    assert done.returncode == 0, done.stderr
    found = {(one["metric"], one["statistic"]): one for one in json.loads(done.stdout)["differences"]}
    assert {found[key]["verdict"] for key in (("ttft_s", "mean"), ("e2e_s", "mean"), ("requests_per_s", "rate"))} == {"worse"}
    table = perfbench("compare", runs["old"], runs["slow"])
    assert (table.returncode, "ours: run against baseline" in table.stdout) == (0, True)


def test_other_runs_and_bad_rules_end_with_2(runs: dict[str, Path], tmp_path: Path) -> None:
    rules = tmp_path / "bad.yaml"
    rules.write_text("rules: [{metric: ttft_s, allowed: 0.1}]")
    done = perfbench("gate", runs["new"], "--against", runs["old"], "--rules", rules)
    assert (done.returncode, "rules[0].allowed" in done.stderr, "Traceback" in done.stderr) == (2, True, False)

    manifest = json.loads((runs["new"] / "manifest.json").read_text())
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", runs["new"], other], check=True)
    manifest["hashes"]["load_prompts"] = "0" * 64
    manifest["versions"]["polars"] = "0.0.1"
    (other / "manifest.json").write_text(json.dumps(manifest))
    done = perfbench("compare", runs["old"], other, "--allow", "versions")
    assert done.returncode == 2
    assert "prompts: load prompts differ" in done.stderr and "versions" not in done.stderr.split("hint")[0]
    assert perfbench("gate", runs["new"], "--against", tmp_path, "--rules", runs["rules"]).returncode == 2
