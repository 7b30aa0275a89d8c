"""Lighteval as the tool of the second layer: where it is, what tasks its file has, how it is started, what it wrote. Read in Lighteval 0.13's code.

It may live in an environment of its own: its script is looked for beside our Python, then on PATH. Three things would falsify a result and are kept
from it: answers cached by the model's name (each run has a new folder for them), prices and context lengths that it fetches (switched off, or
given), and requests that failed after all retries, which it scores as empty answers (`failed_requests`).
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from perfbench.errors import InputError, MissingPartError

INSTALL = "pip install 'lighteval[litellm]' 'litellm[caching]<1.81' 'xxhash<4' in an environment of its own, and put its bin folder on PATH"
ENVIRONMENT: Mapping[str, str] = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
_GUEST = Path(__file__).with_name("lighteval_guest.py")
_CONTEXT_TOKENS = 131_072
"""A service in the network would be asked for the model's. It only bounds how long reasoning models may write."""
_REQUEST_S = 600.0
_FAILED = re.compile(rb"API call failed after \d+ attempts")


class Installed(NamedTuple):
    """A Lighteval that can be started."""

    python: str
    version: str


def script() -> str | None:
    """Its command, beside our Python or on PATH."""
    return shutil.which("lighteval", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))


def installed() -> Installed:
    """Raises MissingPartError where there is none, or where it cannot talk to a server."""
    found = script()
    if found is None:
        raise MissingPartError("lighteval is not installed, and public benchmarks run by it", hint=INSTALL)
    return _proven(str(Path(found).resolve().with_name("python")), found)


@cache
def _proven(python: str, script: str) -> Installed:
    """Its import is tried, before a server is started for it: with a newer litellm or xxhash it breaks."""
    told = "import importlib.metadata, lighteval.models.endpoints.litellm_model as m; print(importlib.metadata.version('lighteval'))"
    try:
        tried = subprocess.run([python, "-c", told], capture_output=True, text=True, timeout=300, env=clean(os.environ), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingPartError(f"{script} cannot be used: {error}", hint=INSTALL) from None
    lines = (tried.stdout if tried.returncode == 0 else tried.stderr).strip().splitlines() or ["it said nothing"]
    if tried.returncode != 0:
        raise MissingPartError(f"{script} cannot be used: {lines[-1][:200]}", hint=INSTALL)
    return Installed(python, lines[-1])


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """What its Python gets: nothing of ours that names packages, and no download at import."""
    return {**{name: value for name, value in environment.items() if name not in ("PYTHONPATH", "PYTHONHOME")}, **ENVIRONMENT}


def read_tasks(path: Path) -> list[tuple[str, int]]:
    """(name, few-shot examples) of every task of a Python file, without running it. Raises InputError for what is no task file of Lighteval."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a task file of Lighteval: {' '.join(str(error).split())[:200]}") from None
    tasks = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "LightevalTaskConfig":
            given = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            if isinstance(given.get("name"), str):
                shots = given.get("num_fewshots", 0)
                tasks.append((str(given["name"]), shots if isinstance(shots, int) else 0))
    if not tasks:
        raise InputError(f'{path} is no task file of Lighteval: expected Python with `TASKS_TABLE = [LightevalTaskConfig(name="...", ...)]`')
    return tasks


def command(python: str, path: Path, name: str, shots: int, *, out: Path, limit: int | None) -> list[str]:
    """What is started, in a folder of its own; `write_model` has said which model."""
    more = ["--max-samples", str(limit)] if limit is not None else []
    task = [f"{name}|{shots}", "--custom-tasks", str(path), "--output-dir", str(out), "--save-details"]
    return [python, str(_GUEST), "endpoint", "litellm", str(out / "model.yaml"), *task, *more]


def write_model(out: Path, work: Path, *, url: str, model: str, concurrency: int, seed: int) -> None:
    """The file that `command` names. Not its one-line form, which cuts an address off at a comma or an equals sign."""
    given: dict[str, Any] = {
        "model_name": f"openai/{model}", "base_url": f"{url}/v1", "concurrent_requests": concurrency, "api_max_retry": 3, "timeout": _REQUEST_S,
        "max_model_length": _CONTEXT_TOKENS, "cache_dir": str(work / "cache"), "generation_parameters": {"temperature": 0.0, "seed": seed},
    }  # fmt: skip
    (out / "model.yaml").write_text(yaml.safe_dump({"model_parameters": given}), encoding="utf-8")


def failed_requests(log: Path) -> int:
    """Requests that got no answer; each would be scored as a wrong answer."""
    return len(_FAILED.findall(log.read_bytes()))


def samples_of(out: Path, name: str) -> tuple[list[Path], int | None]:
    """The newest file with every sample of a task, and how many they are."""
    import pyarrow.parquet as pq

    found = sorted(out.rglob(f"details_{name}*.parquet"), key=lambda path: path.stat().st_mtime)[-1:]
    return found, pq.read_metadata(found[0]).num_rows if found else None
