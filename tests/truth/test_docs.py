"""Every command in the README and the guides is executed, as it stands there, in a world where its files exist.

A command is a line that starts with `perfbench` in a block of code, or an inline code that does. Names that stand for something (RUN, my-model.yaml, a
server at 127.0.0.1:8000) are given to it by the world below. ONLY_PARSED lists commands that cannot run here, each with its reason: of them the options are
checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from typer.testing import CliRunner

from perfbench.cli import app
from perfbench.errors import PerfbenchError

ROOT = Path(__file__).parents[2]
GUIDES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in ("scenario.md", "metrics.md", "LOG.md")))
MAY_END = {"gate": (0, 1, 3), "compare": (0, 3)}
"""Exit codes that answer a question; everything else ends with 0."""
ONLY_PARSED = {
    "run --resume": "needs a run that was cut off: tests/truth/test_main_path.py has one",
    "load ...": "is only begun there",
    "quality init": "asks a person: tests/unit/test_cli_quality.py answers",
    "demo": "needs vLLM: CI runs it whole",
    "run scenarios/": "shipped scenarios need vLLM: tests/live/test_scenarios.py runs each",
    "worker": "waits for a master: tests/truth has two workers",
    "prices": "needs the network: tests/unit/plan has a catalogue on disk",
    "benchmark": "needs a server with a real model: tests/live has one",
    "samples --label": "no answer of this world has that label: tests/unit/report/test_samples.py has one that does",
    "samples --slice": "this world has no slices: tests/unit/report/test_samples.py has",
    "samples --sample": "this world has other ids: tests/unit/report/test_samples.py has one",
    "samples --import-labels": "needs a sheet that somebody filled in: tests/unit/quality/test_blind.py has one",
    "merge": "needs torch and a model: tests/live merges one",
    "card --publish": "sends to the Hub",
    "otlp": "sends to a collector: tests/unit/report has one",
    "mlflow": "not installed here",
    "wandb": "not installed here",
}
SCENARIO = """
name: my-model
models: {{base: ./base}}
endpoints:
  base: {{url: "{url}", model: my-model}}
  merged: {{url: "{url}", model: my-model}}
load:
  data: prompts.jsonl
  stages:
    - {{name: two, arrival: closed, concurrency: 2, warmup_s: 0.2, duration_s: 1, drain_s: 3, output: {{fixed: 6}}}}
slo: {{ttft_s: {{p90: 0.5}}}}
quality: {{data: heldout.jsonl, task: {{task: extraction, expected: answer}}, margin: 0.05, max_tokens: 8}}
cost: {{server_hour_usd: 3.6}}
"""
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "torch_dtype": "bfloat16", "max_position_embeddings": 8192,
}  # fmt: skip
"""Llama 3 8B's."""
SHORTER = {"--requests": "40", "--duration": "1", "--model": "my-model"}
"""Of `perfbench load`: as long as it takes to see that it works."""
PLACEHOLDERS = {
    "RUN": "results/NEW", "RUN_A": "results/OLD", "RUN_B": "results/NEW", "LAST_WEEK": "results/OLD", "BASELINE": "results/OLD", "SCENARIO": "my-model.yaml",
    "FILE": "out.txt", "baselines/my-model": "results/OLD", "$new": "results/NEW", "results/my-model-...": "results/NEW", "scenarios/gate.yaml": "gate.yaml",
}  # fmt: skip


def commands() -> list[str]:
    """Every command of every guide once, comments and prompts cut off."""
    found: dict[str, None] = {}
    for name in GUIDES:
        text = (ROOT / name).read_text()
        joined = text.replace("\\\n", " ")
        lines = re.findall(r"^(?: {4})?(?:\$ )?(perfbench [^\n]*?)(?: +#[^\n]*)?$", joined, re.MULTILINE)
        inline = re.findall(r"`(perfbench \w[^`\n]*)`", joined)
        found |= dict.fromkeys(" ".join(one.split()) for one in (*lines, *inline))
    return list(found)


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class World:
    """A folder with everything that the guides' commands name."""

    folder: Path
    url: str

    def run(self, command: str) -> Done:
        """In this process: starting fifty interpreters would take minutes."""
        command = re.sub(r" > \S+$", "", command)
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)[1:]]
        if words[0] == "load":  # the truth server counts no tokens
            words += ["--tokenizer", "base"] + ([] if "--warmup" in words else ["--warmup", "0.5"])
            words = [SHORTER.get(option, word) for option, word in zip(["", *words], words, strict=False)]
        if words[0] == "estimate":  # of a model that is to be served, not of an endpoint
            words = ["served.yaml" if word == "my-model.yaml" else word for word in words]
        words = [word.replace("http://127.0.0.1:8000", self.url) for word in words]
        words = [str(match) for word in words for match in (sorted(self.folder.glob(word))[:1] if "*" in word else [word])]
        environment = {"PERFBENCH_CACHE": str(self.folder / "cache"), "COLUMNS": "120"}
        with contextlib.chdir(self.folder), mock.patch.dict(os.environ, environment):
            result = CliRunner().invoke(app, words)
        error = result.exception
        if isinstance(error, PerfbenchError):  # perfbench.__main__ ends with its sentence and its code
            return Done(error.exit_code, result.stdout, f"{result.stderr}{error}")
        if error is not None and not isinstance(error, SystemExit):
            raise error
        return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def world(truth_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("docs")
    server = subprocess.Popen([truth_binary, "0", folder / "truth.log", "my-model"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    made = World(folder, f"http://127.0.0.1:{server.stdout.readline().split()[1]}")
    try:
        _furnish(made)
        yield made
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def _furnish(world: World) -> None:
    folder = world.folder
    rows = [json.dumps({"id": f"p{n}", "prompt": f"say {n}", "answer": {"n": n}}) for n in range(40)]
    for name in ("prompts", "heldout"):
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "my-model.yaml").write_text(SCENARIO.format(url=world.url))
    (folder / "served.yaml").write_text(
        "name: served\nmodels: {base: ./base}\nvariants: [base]\n"
        "load: {data: prompts.jsonl, stages: [{name: one, arrival: closed, concurrency: 1, output: {fixed: 6}}]}\n"
    )
    (folder / "demand.yaml").write_text("peak_per_s: 5\n")
    (folder / "gate.yaml").write_text("allow: [models]\nrules:\n  - {metric: ttft_s, statistic: p90, allowed_relative: 0.5}\n")
    (folder / "scenarios").symlink_to(ROOT / "scenarios")
    shutil.copy(ROOT / "tests" / "unit" / "report" / "foreign" / "vllm_0_32.json", folder / "result.json")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text(json.dumps(CONFIG))
    letters = {character: number for number, character in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "base" / "tokenizer.json"))
    (folder / "base" / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    for name in ("OLD", "NEW"):
        done = world.run(f"perfbench run my-model.yaml --out made/{name} --quiet --json")
        assert done.returncode == 0, done.stderr
        (made,) = (folder / "made" / name).iterdir()
        (folder / "results").mkdir(exist_ok=True)
        made.rename(folder / "results" / name)


def _reason_not_to_run(command: str) -> str | None:
    rest = command.removeprefix("perfbench ")
    for words, reason in ONLY_PARSED.items():
        first, *others = words.split()
        if (rest.startswith(first) or not others) and all(word in rest for word in (first, *others)):
            return reason
    return None


def test_there_are_commands_to_execute() -> None:
    assert len(commands()) > 20


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_guides_works(command: str, world: World) -> None:
    if _reason_not_to_run(command) is not None or len(command.split()) == 2:
        done = world.run(" ".join([*_command_words(command), "--help"]))
        assert done.returncode == 0, done.stderr
        for option in re.findall(r"(?<= )--[a-z][a-z-]*", command):
            assert option in done.stdout, f"{command}: --help knows no {option}"
        return
    if command.startswith("perfbench init"):
        (world.folder / "my-model.yaml").rename(world.folder / "kept.yaml")
    try:
        done = world.run(command)
    finally:
        if (world.folder / "kept.yaml").exists():
            (world.folder / "kept.yaml").replace(world.folder / "my-model.yaml")
    if command.startswith("perfbench plan") and "are void" in done.stderr:
        pytest.skip("this machine is so busy that the audit voids the run, and perfbench plans from no void run")
    assert done.returncode in MAY_END.get(command.split()[1], (0,)), f"{command}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}"


def _command_words(command: str) -> list[str]:
    """`perfbench quality init --x` -> perfbench quality init."""
    words = command.split()
    return words[:3] if words[1:2] == ["quality"] else words[:2]
