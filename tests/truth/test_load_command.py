"""`perfbench load` against the ground-truth server: one command, a whole run folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from tests.truth.conftest import TruthServer


def load(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perfbench", "load", *map(str, arguments), "--quiet", "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One token a byte, and a chat template that writes the user's words only: lengths can be counted by hand."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    made = Tokenizer(BPE(vocab={character: number for number, character in enumerate(sorted(ByteLevel.alphabet()))}, merges=[]))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    return folder


@pytest.mark.parametrize(("arrival", "options"), [("closed", ["--concurrency", 3]), ("poisson", ["--arrival", "poisson", "--rate", 40])])
def test_one_command_measures_and_leaves_a_run_folder(
    truth_server: TruthServer, tokenizer: Path, tmp_path: Path, arrival: str, options: list[object]
) -> None:
    lengths = ["--input-tokens", 50, "--output-tokens", 7, "--tokenizer", tokenizer]
    done = load("--url", truth_server.url, "--model", "truth", *options, "--duration", 1, *lengths, "--out", tmp_path / "out")
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
    ("options", "said"),
    [
        (["--arrival", "sine", "--rate", 1], "--arrival: expected closed or poisson, got sine"),
        ([], "--arrival closed: expected --concurrency and no --rate"),
        (["--arrival", "poisson", "--rate", 1, "--concurrency", 2], "--arrival poisson: expected --rate and no --concurrency"),
        (["--arrival", "poisson", "--rate", 0], "--rate: "),
        (["--concurrency", 0], "--concurrency: "),
        (["--concurrency", 1, "--output-tokens", 0], "--output-tokens: "),
        (["--concurrency", 1, "--input-tokens", 0], "--input-tokens: "),
        (["--concurrency", 1, "--duration", 0], "--duration: "),
    ],
)
def test_bad_options_are_named_in_one_sentence(tmp_path: Path, options: list[object], said: str) -> None:
    done = load("--url", "http://127.0.0.1:9", "--model", "m", *options, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_server_that_cannot_count_tokens_says_what_to_give(truth_server: TruthServer, tmp_path: Path) -> None:
    done = load("--url", truth_server.url, "--model", "truth", "--concurrency", 1, "--out", tmp_path / "out")
    assert (done.returncode, "did not count tokens" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
