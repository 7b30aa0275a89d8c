"""Traces replayed through the command line against the ground-truth server, which answers as many tokens as `max_tokens` asks for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from perfbench.prompts import RenderedPrompt
from perfbench.results import RunFolder
from perfbench.workload.tokens import LocalTokens
from tests.truth.conftest import TruthServer
from tests.unit.workload.conftest import make_model

SCENARIO = """
name: replay
endpoints: {{served: {{url: "{url}", model: truth}}}}
load:
  repeats: 2
  stages:
    - name: twice-as-fast
      arrival: trace
      trace: {{path: azure.csv, from_s: 1, time_scale: 0.5, length_scale: 0.1, context_tokens: 100, tokenizer: ./tokenizer}}
      warmup_s: 0.5
      duration_s: 1.5
      drain_s: 5
      output: {{trace: fixed}}
    - name: own-words
      arrival: trace
      trace: {{path: own.jsonl}}
      warmup_s: 0
      duration_s: 1
      output: {{trace: max_tokens}}
"""


@pytest.fixture
def folder(truth_server: TruthServer, tmp_path: Path) -> RunFolder:
    """A finished run of the scenario above."""
    make_model(tmp_path / "tokenizer", "words")
    random = np.random.default_rng(1)
    at_ms = np.cumsum(random.integers(5, 150, 90))
    lengths = [(int(random.integers(150, 1400)), int(random.integers(10, 200))) for _ in at_ms]
    lengths[40] = (300, 0)
    rows = [f"2024-05-10 00:00:{ms / 1000:09.6f},{a},{b}" for ms, (a, b) in zip(at_ms, lengths, strict=True)]
    (tmp_path / "azure.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    own = [{"offset_s": k / 10, "prompt": f"say {k}", "output_tokens": k + 1} for k in range(10)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, own)))
    (tmp_path / "scenario.yaml").write_text(SCENARIO.format(url=truth_server.url))
    command = [sys.executable, "-m", "perfbench", "run", str(tmp_path / "scenario.yaml"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return RunFolder.open(next((tmp_path / "out").glob("replay-*")))


def test_a_trace_reaches_the_server_at_its_times_in_its_lengths(folder: RunFolder, truth_server: TruthServer, tmp_path: Path) -> None:
    source = pl.read_csv(tmp_path / "azure.csv", try_parse_dates=True).with_row_index("line", offset=2)
    offset_s = (pl.col("TIMESTAMP") - pl.col("TIMESTAMP").first()).dt.total_microseconds() / 1e6
    part = source.with_columns(at_s=(offset_s - 1) * 0.5).filter((pl.col("at_s") >= 0) & (pl.col("at_s") < 2) & (pl.col("GeneratedTokens") > 0))
    answers = truth_server.answers()
    outcomes = folder.finished("trial_finished")
    records = folder.records().collect()
    for repeat in (0, 1):
        trial = f"served.twice-as-fast.r{repeat}"
        started_ns = outcomes[trial]["started_ns"]
        sent = records.filter(pl.col("trial") == trial).sort("scheduled_ns")
        assert sent["prompt_id"].to_list() == [f"twice-as-fast.line-{line}" for line in part["line"]]
        assert ((sent["scheduled_ns"] - started_ns) / 1e9).to_list() == pytest.approx(part["at_s"].to_list(), abs=1e-6)
        lag_ns = (sent["sent_ns"] - sent["scheduled_ns"]).to_numpy()
        assert lag_ns.min() >= 0
        assert np.median(lag_ns) < 2_000_000
        received_s = np.array([answers[request].received_ns - started_ns for request in sent["request_id"]]) / 1e9
        assert np.median(np.abs(received_s - part["at_s"].to_numpy())) < 0.003
        assert sent["output_tokens"].to_list() == [max(1, round(tokens * 0.1)) for tokens in part["GeneratedTokens"]]


def test_prompts_have_the_lengths_of_the_trace_clipped_to_the_context(folder: RunFolder, tmp_path: Path) -> None:
    source = pl.read_csv(tmp_path / "azure.csv")
    tokens, use = LocalTokens(tmp_path / "tokenizer"), folder.manifest().traces["twice-as-fast"]
    prompts = [RenderedPrompt(**json.loads(line)) for line in (folder.path / "prompts.jsonl").read_text().splitlines()]
    clipped = 0
    made = [prompt for prompt in prompts if prompt.prompt_id.startswith("twice-as-fast.")]
    assert len(made) == use.requests > 25
    for prompt in made:
        _, wanted, answer = source.row(int(prompt.prompt_id.rpartition("-")[2]) - 2)
        wanted, answer = round(wanted * 0.1), max(1, round(answer * 0.1))
        clipped += wanted + answer > 100
        assert len(tokens.ids(prompt)) == min(wanted, 100 - answer)
    assert (use.clipped_prompts, use.clipped_answers, use.left_out) == (clipped, 0, 1)
    assert clipped > 3
    said = f"{clipped} prompts and 0 answers clipped to 100 tokens of context"
    for report in ("report.md", "report.html"):
        text = (folder.path / report).read_text()
        assert said in text
        assert "1 rows that ask for no token left out" in text


def test_own_prompts_are_sent_as_they_are(folder: RunFolder) -> None:
    prompts = {row["prompt_id"]: row["messages"] for row in map(json.loads, (folder.path / "prompts.jsonl").read_text().splitlines())}
    assert [prompts[f"own-words.line-{k}"] for k in (1, 10)] == [[{"role": "user", "content": "say 0"}], [{"role": "user", "content": "say 9"}]]
    records = folder.records().filter(pl.col("trial") == "served.own-words.r0").sort("scheduled_ns").collect()
    assert records["output_tokens"].to_list() == list(range(1, 11))
    assert np.diff(records["scheduled_ns"].to_numpy()).tolist() == pytest.approx([1e8] * 9, abs=1)
    summary = folder.summary()
    assert {trial.arrival for trial in summary.variants["served"].trials} == {"trace"}
