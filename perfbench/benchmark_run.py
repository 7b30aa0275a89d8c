"""The second layer against a run's variants or a URL: own task first, then servers started as the run started them, then each task on each variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perfbench.errors import InputError
from perfbench.prepare import prepare
from perfbench.quality.second_layer import Api, Served, TaskFile, Tool, check_tool, command_of, read_tasks, run_benchmark
from perfbench.records import BenchmarkResult
from perfbench.report.progress import RunProgress
from perfbench.results import RunFolder
from perfbench.scenario import Scenario
from perfbench.serve.together import all_started, server_for


@dataclass(frozen=True)
class Asked:
    """What somebody wants to run."""

    tasks: tuple[Path, ...]
    tool: Tool = "lm-eval"
    api: Api = "chat"
    limit: int | None = None
    concurrency: int = 8
    seed: int = 0
    tokenizer: str | None = None
    anyway: bool = False
    """Without the own-task check."""


def benchmark_run(path: Path, asked: Asked, variants: Sequence[str], progress: RunProgress) -> list[BenchmarkResult]:
    """Run the tasks against the variants of a finished run, keep results and sample logs in its folder, and render its reports again.

    Raises InputError where the own task has not been checked (unless `asked.anyway`), and for unknown variants or unusable tasks.
    """
    folder = RunFolder.open(path)
    tasks = _checked(asked)
    scenario = Scenario.model_validate_json(msgspec.json.encode(folder.manifest().scenario))
    known = folder.checked_variants()
    chosen = list(variants) or known
    unchecked = [name for name in chosen if name not in known]
    if (unchecked or not chosen) and not asked.anyway:
        told = ", ".join(f"`{name}`" for name in unchecked) or "its variants"
        raise InputError(f"the own task of {told} has not been checked in {path}, and public benchmarks come after it", hint=_ANYWAY)
    prepared = prepare(scenario, say=progress.phase)
    hosted = {variant: plan for plan in prepared.servers for variant in plan.served_names}
    unknown = [name for name in chosen if name not in hosted]
    if unknown:
        raise InputError(f"the run has no variant `{unknown[0]}`; it has {', '.join(hosted)}")
    results = []
    for plan in [plan for plan in prepared.servers if set(chosen) & set(plan.served_names)]:
        log = folder.path / "benchmarks" / f"{plan.name}.server.log"
        log.parent.mkdir(exist_ok=True)
        progress.phase(f"start {plan.name}")
        with all_started([server_for(plan, scenario, log=log, on_wait=lambda elapsed_s, line: progress.update(line))]) as (server,):
            for variant in [name for name in plan.served_names if name in chosen]:
                tokenizer = asked.tokenizer or (str(plan.model_path) if plan.model_path is not None else None)
                served = Served(server.url, plan.served_names[variant], server.api_key_env, tokenizer)
                for task in tasks:
                    progress.phase(f"{task.name} on {variant}")
                    result = _run(asked, task, served, variant, folder.path / "benchmarks" / task.name / variant, progress, checked=variant in known)
                    folder.write_benchmark(result)
                    results.append(result)
    return results


_ANYWAY = "run the scenario with a `quality` block first; --anyway goes ahead, and the result says so"


def benchmark_url(url: str, model: str, asked: Asked, out: Path, api_key_env: str | None, progress: RunProgress) -> list[BenchmarkResult]:
    """Run the tasks against a server that runs already; results and sample logs go under `out`. Raises InputError without `asked.anyway`."""
    tasks = _checked(asked)
    if not asked.anyway:
        raise InputError(f"whether {model} at {url} does its own task is not known, and public benchmarks come after that", hint=_ANYWAY)
    served = Served(url.rstrip("/").removesuffix("/v1"), model, api_key_env, asked.tokenizer)
    results = []
    for task in tasks:
        progress.phase(f"{task.name} on {model}")
        results.append(_run(asked, task, served, model, out / task.name, progress, checked=False))
    (out / "benchmarks.json").write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    return results


def _checked(asked: Asked) -> list[TaskFile]:
    """Everything that can be wrong before a server starts."""
    check_tool(asked.tool)
    tasks = [task for path in asked.tasks for task in read_tasks(asked.tool, path)]
    for task in tasks:
        tokenizer = asked.tokenizer or "the model's own"
        command_of(
            asked.tool, task, Served("http://localhost", "model", None, tokenizer), api=asked.api, out=Path(), limit=asked.limit,
            concurrency=asked.concurrency, seed=asked.seed,
        )  # fmt: skip
    return tasks


def _run(asked: Asked, task: TaskFile, served: Served, variant: str, out: Path, progress: RunProgress, *, checked: bool) -> BenchmarkResult:
    return run_benchmark(
        asked.tool, task, served, variant=variant, api=asked.api, out=out, limit=asked.limit, concurrency=asked.concurrency, seed=asked.seed,
        own_task_checked=checked, on_line=progress.update,
    )  # fmt: skip
