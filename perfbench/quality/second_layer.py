"""Public benchmarks, the second layer: they tell how a model compares with others, not whether it does your job. So they come after the own task.

lm-evaluation-harness (or Lighteval, where it is installed) runs as a process of its own against a served variant, with a local task file, offline unless
HF_HUB_OFFLINE=0 is set. Its results and its log of every sample are kept; beside each score stand what the benchmark is for and where it misleads.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import yaml

from perfbench.errors import InputError, MissingPartError, PerfbenchError
from perfbench.quality import lighteval
from perfbench.records import BenchmarkResult

Tool = Literal["lm-eval", "lighteval"]
Api = Literal["chat", "completions"]


class Benchmark(NamedTuple):
    """What a public benchmark is for, and where it misleads."""

    goal: str
    caution: str


_MISMATCH = "its domain is not yours: a fine-tune may lose here and win on its own task, and the other way round"
_JUDGED = "a model judges, and judges prefer long, confident and their own family's answers"
KNOWN: dict[str, Benchmark] = {
    "mmlu_pro": Benchmark("knowledge and reasoning over many fields, ten choices a question", _MISMATCH),
    "mmlu": Benchmark("knowledge over 57 school and professional fields", _MISMATCH),
    "gpqa": Benchmark("science questions that experts answer and search engines do not", _MISMATCH),
    "livebench": Benchmark("fresh questions with checkable answers, renewed so that training data cannot hold them", _MISMATCH),
    "helm": Benchmark("many scenarios and metrics under one protocol", _MISMATCH),
    "ifeval": Benchmark("whether instructions are followed to the letter", "only constraints that a program can verify; says nothing of the content"),
    "mt_bench": Benchmark("conversations of two turns, scored", _JUDGED),
    "arena": Benchmark("which of two answers is preferred", _JUDGED),
    "alpaca_eval": Benchmark("win rate against a reference model on single instructions", _JUDGED),
    "livecodebench": Benchmark("programming contest problems newer than the training data", "completing a function is not repairing a repository"),
    "bigcodebench": Benchmark("functions that call many libraries", "completing a function is not repairing a repository"),
    "humaneval": Benchmark("short Python functions from their docstring", "old and widely copied into training data; completing a function is not repairing"),
    "swe_bench": Benchmark("repairing real repositories by their issues", "needs an agent around the model; the score is of both"),
    "ragas": Benchmark("answers from retrieved documents", "mixes retrieval and generation unless both are read apart; a model judges"),
}
"""By the beginning of a task's name; `-` counts as `_`."""
OWN = Benchmark("a task from a local file", "says what its author made it say; nobody else's figures can be compared with it")
_LIKELIHOODS = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")


class TaskFile(NamedTuple):
    """One task of a local task file, as far as it concerns us."""

    path: Path
    name: str
    output_type: str
    shots: int = 0
    """Examples in the prompt; Lighteval alone has to be told."""


class Served(NamedTuple):
    """Where a variant answers."""

    url: str
    model: str
    api_key_env: str | None = None
    tokenizer: str | None = None
    """Folder with the tokenizer; log-likelihoods need it."""


class _AnyTag(yaml.SafeLoader):
    """lm-eval's files hold `!function module.name`; which function that is does not matter here."""


_AnyTag.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")


def read_task(path: Path) -> TaskFile:
    """Name and kind of a task file. Raises InputError for what is no task of lm-evaluation-harness."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_AnyTag)  # noqa: S506 - a SafeLoader that reads unknown tags as text
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as a task file: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(data, dict) or not isinstance(data.get("task"), str):
        raise InputError(f"{path} is no task of lm-evaluation-harness: expected YAML with `task: NAME`, `dataset_path` and `doc_to_text`")
    return TaskFile(path.absolute(), data["task"], str(data.get("output_type", "generate_until")))


def read_tasks(tool: Tool, path: Path) -> list[TaskFile]:
    """The tasks of a file: one of lm-evaluation-harness's YAML, any number of Lighteval's Python. Raises InputError for what is neither."""
    if tool == "lm-eval":
        return [read_task(path)]
    return [TaskFile(path.absolute(), name, "generate_until", shots) for name, shots in lighteval.read_tasks(path)]


def known_benchmark(task: str) -> Benchmark:
    """Goal and caution of a task by its name."""
    name = re.sub(r"[^a-z0-9]+", "_", task.lower()).removeprefix("leaderboard_")
    return next((KNOWN[known] for known in sorted(KNOWN, key=len, reverse=True) if name.startswith(known)), OWN)


def check_tool(tool: Tool) -> str:
    """The installed version of the tool. Raises MissingPartError where it is not installed."""
    if tool == "lighteval":
        return lighteval.installed().version
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingPartError("lm-eval is not installed, and public benchmarks run by it", hint="pip install 'perfbench[lm-eval]'")
    return importlib.metadata.version("lm_eval")


def command_of(tool: Tool, task: TaskFile, served: Served, *, api: Api, out: Path, limit: int | None, concurrency: int, seed: int) -> list[str]:
    """What is started. Raises InputError for a task that the API cannot carry out."""
    if served.url.startswith("unix:"):
        raise InputError(f"{tool} cannot reach a server on a Unix socket ({served.url}); serve it over HTTP for this")
    if tool == "lighteval":
        if api != "chat":
            raise InputError("Lighteval asks a served model by chat alone; leave --api completions out, or take --tool lm-eval")
        return lighteval.command(lighteval.installed().python, task.path, task.name, task.shots, out=out, limit=limit)
    likelihoods = task.output_type in _LIKELIHOODS
    if likelihoods and api == "chat":
        raise InputError(f"{task.path}: `output_type: {task.output_type}` needs log-likelihoods, which a chat has not; give --api completions")
    if likelihoods and served.tokenizer is None:
        raise InputError(f"{task.path}: `output_type: {task.output_type}` needs the model's tokenizer; give --tokenizer with its folder")
    path = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}[api]
    args = [f"model={served.model}", f"base_url={served.url}{path}", f"num_concurrent={concurrency}", "max_retries=3", "tokenized_requests=False"]
    args += [f"tokenizer={served.tokenizer}", "tokenizer_backend=huggingface"] if likelihoods else ["tokenizer_backend=None"]
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-chat-completions" if api == "chat" else "local-completions"]
    command += ["--model_args", ",".join(args), "--include_path", str(task.path.parent), "--tasks", task.name, "--output_path", str(out), "--log_samples"]
    command += ["--seed", str(seed)]
    command += ["--apply_chat_template"] if api == "chat" else []
    return command + (["--limit", str(limit)] if limit is not None else [])


def run_benchmark(
    tool: Tool, task: TaskFile, served: Served, *, variant: str, api: Api, out: Path, limit: int | None, concurrency: int, seed: int,
    own_task_checked: bool, on_line: Callable[[str], None],
) -> BenchmarkResult:  # fmt: skip
    """Run one benchmark against one variant; everything it writes goes to `out`. Raises PerfbenchError with its last words when it fails."""
    version = check_tool(tool)
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    command = command_of(tool, task, served, api=api, out=out, limit=limit, concurrency=concurrency, seed=seed)
    log, work = out / "log.txt", task.path.parent
    environment = _environment(served, out)
    with log.open("wb") as file, tempfile.TemporaryDirectory(dir=out, prefix="work-", ignore_cleanup_errors=True) as empty:
        if tool == "lighteval":
            work, environment = Path(empty), lighteval.clean(environment)
            lighteval.write_model(out, work, url=served.url, model=served.model, concurrency=concurrency, seed=seed)
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=work, env=environment, start_new_session=True)
        try:
            while process.poll() is None:
                on_line(_last_line(log))
                time.sleep(0.5)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = sorted(out.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
    if process.returncode != 0 or not found:
        raise PerfbenchError(f"{tool} failed on task {task.name} with variant {variant}: {_last_line(log)}", hint=f"its whole output is in {log}")
    metrics, n = read_results(msgspec.json.decode(found[-1].read_bytes()), task.name)
    samples = sorted(out.rglob("samples_*.jsonl"))
    if tool == "lighteval":
        samples, n = lighteval.samples_of(out, task.name)
        if lost := lighteval.failed_requests(log):
            raise PerfbenchError(f"{lost} requests of task {task.name} to {variant} failed; Lighteval would score them as wrong answers", hint=f"see {log}")
    benchmark = known_benchmark(task.name)
    return BenchmarkResult(
        task=task.name, variant=variant, tool=tool, tool_version=version, task_file=str(task.path), api=api, metrics=metrics, n=n, goal=benchmark.goal,
        caution=benchmark.caution, own_task_checked=own_task_checked, command=command, samples=[str(path) for path in samples],
    )  # fmt: skip


def read_results(data: Mapping[str, Any], task: str) -> tuple[dict[str, list[float | None]], int | None]:
    """{metric: [value, standard error or None]} and the number of samples, of lm-eval's (or Lighteval's) results file."""
    results = data.get("results", {})
    own: Mapping[str, Any] = results.get(task) or next((values for name, values in results.items() if task in name), {})
    metrics: dict[str, list[float | None]] = {}
    for key, value in own.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or "_stderr" in key or key == "sample_len":
            continue
        name, _, filtered = key.partition(",")
        error = own.get(f"{name}_stderr,{filtered}" if filtered else f"{name}_stderr")
        shown = name if filtered in ("", "none") else f"{name} ({filtered})"
        metrics[shown] = [float(value), float(error) if isinstance(error, (int, float)) else None]
    counts = data.get("n-samples", {}).get(task, {})
    return metrics, counts.get("effective") if isinstance(counts, dict) else None


def _environment(served: Served, out: Path) -> dict[str, str]:
    offline = os.environ.get("HF_HUB_OFFLINE", "1")
    environment = {**os.environ, "HF_HUB_OFFLINE": offline, "HF_DATASETS_OFFLINE": offline, "TRANSFORMERS_OFFLINE": offline, "TOKENIZERS_PARALLELISM": "false"}
    environment["HF_DATASETS_CACHE"] = str(out / "datasets")
    key = os.environ.get(served.api_key_env) if served.api_key_env is not None else None
    if served.api_key_env is not None and key is None:
        raise InputError(f"the environment variable {served.api_key_env} is not set; it should hold the endpoint's key")
    return {**environment, "OPENAI_API_KEY": key or "none"}


def _last_line(log: Path) -> str:
    lines = log.read_bytes()[-2000:].decode("utf-8", "replace").replace("\r", "\n").strip().splitlines()
    return lines[-1][:300] if lines else ""
