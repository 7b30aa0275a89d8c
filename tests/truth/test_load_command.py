"""`perfbench load` against the ground-truth server: one command, a whole run folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from perfbench.results import RunFolder
from tests.truth.conftest import TruthServer, byte_tokenizer


def load(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perfbench", "load", *map(str, arguments), "--quiet", "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    byte_tokenizer(folder)
    return folder


@pytest.mark.parametrize(("arrival", "options"), [("closed", ["--concurrency", 3]), ("poisson", ["--arrival", "poisson", "--rate", 40])])
def test_one_command_measures_and_leaves_a_run_folder(
    truth_server: TruthServer, tokenizer: Path, tmp_path: Path, arrival: str, options: list[object]
) -> None:
    lengths = ["--input-tokens", 50, "--output-tokens", 7, "--tokenizer", tokenizer]
    done = load("--url", truth_server.url, "--model", "truth", *options, "--duration", 1, "--warmup", 0.5, *lengths, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert json.loads(done.stdout) == json.loads((folder / "summary.json").read_text())
    (trial,) = json.loads(done.stdout)["variants"]["endpoint"]["trials"]
    assert (trial["stage"], trial["requests"]["failed"]) == (arrival, 0)
    records = pl.read_parquet(folder / "requests" / "*.parquet")
    assert trial["requests"]["ok"] > 10
    assert set(records["status"]) == {"ok"}
    assert set(records["output_tokens"]) == {7}
    prompts = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    assert {len(prompt["messages"][0]["content"]) for prompt in prompts} == {50}
    assert (folder / "manifest.json").is_file()
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    "options",
    [
        ["--concurrency", 3, "--api", "completions"],
        ["--arrival", "constant", "--rate", 60],
        ["--arrival", "poisson", "--rate", 60],
        ["--arrival", "gamma", "--rate", 60, "--burstiness", 0.5],
    ],
)
def test_the_window_ends_with_so_many_requests(truth_server: TruthServer, tokenizer: Path, tmp_path: Path, options: list[object]) -> None:
    lengths = ["--input-tokens", 20, "--output-tokens", 5, "--tokenizer", tokenizer]
    done = load("--url", truth_server.url, "--model", "truth", *options, "--requests", 40, "--warmup", 0.5, *lengths, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (trial,) = json.loads(done.stdout)["variants"]["endpoint"]["trials"]
    (folder,) = (tmp_path / "out").iterdir()
    records = pl.read_parquet(folder / "requests" / "*.parquet").sort("scheduled_ns")
    outcome = RunFolder.open(folder).finished("trial_finished").popitem()[1]
    measured = records.filter(pl.col("scheduled_ns").is_between(outcome["measure_from_ns"], outcome["measure_until_ns"], closed="left"))
    assert len(measured) == trial["requests"]["ok"] == 40
    assert measured["scheduled_ns"].max() == records["scheduled_ns"].max()
    assert len(records) > 40  # the warm-up is driven beside them
    assert outcome["measure_until_ns"] > measured["sent_ns"].max() - 50_000_000
    assert set(records["status"]) == {"ok"}


def test_equal_seeds_send_the_same_at_the_same_times(truth_server: TruthServer, tokenizer: Path, tmp_path: Path) -> None:
    def offsets(seed: int, out: str) -> tuple[list[int], list[str]]:
        options = ["--arrival", "poisson", "--rate", 50, "--requests", 10, "--warmup", 0, "--tokenizer", tokenizer, "--input-tokens", 9, "--seed", seed]
        done = load("--url", truth_server.url, "--model", "truth", *options, "--output-tokens", 2, "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
        (folder,) = (tmp_path / out).iterdir()
        records = pl.read_parquet(folder / "requests" / "*.parquet").sort("scheduled_ns")
        return (records["scheduled_ns"] - records["scheduled_ns"][0]).to_list(), records["prompt_id"].to_list()

    first, again, other = offsets(7, "a"), offsets(7, "b"), offsets(8, "c")
    assert first == again
    assert first != other


def test_a_bad_option_is_named_in_one_sentence(tmp_path: Path) -> None:
    done = load("--url", "http://127.0.0.1:9", "--model", "m", "--arrival", "poisson", "--rate", 0, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "perfbench: --rate: Input should be greater than 0; got 0.0\n"
    assert not (tmp_path / "out").exists()


def test_a_server_that_cannot_count_tokens_says_what_to_give(truth_server: TruthServer, tmp_path: Path) -> None:
    done = load("--url", truth_server.url, "--model", "truth", "--concurrency", 1, "--out", tmp_path / "out")
    assert (done.returncode, "did not count tokens" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
