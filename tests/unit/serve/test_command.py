"""The exact command of each variant, and what a scenario may not add to it."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.scenario.model import Serve
from perfbench.serve.command import ServerCommand, serve_findings, server_command, shell_line
from perfbench.variants import ServerPlan

START = (sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server")
BASE = ServerPlan("base", ("base",), {"base": "base"}, model_path=Path("/m/base"))
MERGED = ServerPlan("merged", ("merged",), {"merged": "merged"}, model_path=Path("/m/merged"))
LORA = replace(
    BASE, name="base-lora", variants=("base+lora", "adapter"), served_names={"base+lora": "base", "adapter": "adapter"}, lora=Path("/m/a,b=c"), max_lora_rank=8
)
ENV = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "SPT_NOENV": "1"}


def command_of(plan: ServerPlan, *, trust_remote_code: bool = False, cpu_build: bool = False, **serve: Any) -> ServerCommand:
    return server_command(plan, Serve(**serve), port=8001, trust_remote_code=trust_remote_code, cpu_build=cpu_build)


@pytest.mark.parametrize(
    ("plan", "argv"),
    [
        (BASE, ("--model", "/m/base", "--served-model-name", "base", "--host", "127.0.0.1", "--port", "8001")),
        (MERGED, ("--model", "/m/merged", "--served-model-name", "merged", "--host", "127.0.0.1", "--port", "8001")),
        (
            LORA,
            (
                *("--model", "/m/base", "--served-model-name", "base", "--host", "127.0.0.1", "--port", "8001"),
                *("--enable-lora", "--lora-modules", '{"name": "adapter", "path": "/m/a,b=c"}', "--max-lora-rank", "8"),
            ),
        ),
    ],
    ids=["base", "merged", "base-lora"],
)
def test_the_command_of_each_server(plan: ServerPlan, argv: tuple[str, ...]) -> None:
    command = command_of(plan)
    assert command.argv == START + argv
    assert command.env == ENV


def test_arguments_of_the_scenario_reach_every_server_in_vllms_form() -> None:
    args = {
        "max_model_len": 2048,
        "--enforce-eager": True,
        "enable-prefix-caching": False,
        "disable-log-stats": False,
        "gpu-memory-utilization": 0.5,
        "seed": -1,
        "max-num-seqs": 4,
        "compilation-config.level": 3,
        "speculative-config.on": True,
        "chat-template": "a b.jinja",
    }
    added = ["--max-model-len", "2048", "--enforce-eager", "--no-enable-prefix-caching", "--gpu-memory-utilization", "0.5", "--seed=-1"]
    added += ["--max-num-seqs", "4", "--compilation-config.level", "3", "--speculative-config.on", "true", "--chat-template", "a b.jinja"]
    for plan in (BASE, MERGED, LORA):
        plain = command_of(plan).argv
        assert command_of(plan, args=args).argv == (*plain, *added)


def test_lora_arguments_reach_only_the_server_with_lora_and_may_size_its_slots() -> None:
    args = {"max-lora-rank": 64, "max-loras": 4}
    assert command_of(BASE, args=args).argv == command_of(BASE).argv
    argv = command_of(LORA, args=args).argv
    assert argv[argv.index("--max-lora-rank") + 1] == "64"
    assert argv.count("--max-lora-rank") == 1
    assert argv[argv.index("--max-loras") + 1] == "4"


def test_code_of_the_model_runs_only_if_the_scenario_says_so() -> None:
    assert "--trust-remote-code" not in command_of(BASE).argv
    assert "--trust-remote-code" in command_of(BASE, trust_remote_code=True).argv


@pytest.mark.parametrize("args", [{"kv-cache-memory-bytes": "2G"}, {"gpu-memory-utilization": 0.4}])
def test_a_cpu_server_gets_a_kv_cache_size_unless_the_scenario_has_one(args: dict[str, Any]) -> None:
    assert command_of(BASE, cpu_build=True).env == {**ENV, "VLLM_CPU_KVCACHE_SPACE": "1"}
    assert "VLLM_CPU_KVCACHE_SPACE" not in command_of(BASE, cpu_build=True, args=args).env
    assert command_of(BASE, cpu_build=True, env={"VLLM_CPU_KVCACHE_SPACE": "4"}).env["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert "VLLM_CPU_KVCACHE_SPACE" not in command_of(BASE, cpu_build=False).env


def test_an_endpoint_has_no_command() -> None:
    with pytest.raises(ValueError, match="endpoint"):
        command_of(ServerPlan("live", ("live",), {"live": "m"}))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("host", "127.0.0.1"),
        ("--port", "free port"),
        ("uds", "free port"),
        ("model", "`models`"),
        ("served_model_name", "`variants`"),
        ("served-model", "vLLM reads it as `served-model-name`"),
        ("no-enable-lora", "vLLM reads it as `enable-lora`"),
        ("lora-modules", "`variants`"),
        ("lora-modules+", "`variants`"),
        ("trust-remote-code", "models.trust_remote_code"),
        ("trust-remote", "models.trust_remote_code"),
        ("api-key", "a key never stands in a file"),
        ("hf-token", "HF_TOKEN"),
        ("ssl-keyfile", "plain HTTP"),
        ("config", "serve.args"),
        ("headless", "no HTTP API"),
        ("max model len", "flags without its dashes"),
        ("seed=3", "flags without its dashes"),
    ],
)
def test_arguments_that_perfbench_sets_are_refused(key: str, said: str) -> None:
    [finding] = serve_findings(Serve(args={key: "x"}))
    assert finding.key.startswith("serve.args.")
    assert said in finding.problem


def test_a_key_in_the_file_is_refused_without_being_repeated() -> None:
    for name in ("VLLM_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "db_password"):
        [finding] = serve_findings(Serve(env={name: "sk-12345"}))
        assert finding.key == f"serve.env.{name}"
        assert "a key never stands in a file" in finding.problem
        assert "sk-12345" not in str(finding)


def test_ordinary_arguments_and_variables_are_no_finding() -> None:
    args = {"max-model-len": 2048, "model-impl": "vllm", "tokenizer": "x", "max-loras": 2, "api-server-count": 1, "configuration.a_b.c": 1, "port-free": 1}
    env = {"VLLM_CPU_OMP_THREADS_BIND": "0", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "0", "CUDA_VISIBLE_DEVICES": "0"}
    assert serve_findings(Serve(args=args, env=env)) == []


def test_all_findings_come_at_once() -> None:
    found = serve_findings(Serve(args={"port": 1, "host": "x", "seed": 1}, env={"1x": "", "PERFBENCH_SERVER": "y", "A": "\0"}))
    assert [finding.key for finding in found] == ["serve.args.port", "serve.args.host", "serve.env.1x", "serve.env.PERFBENCH_SERVER", "serve.env.A"]


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), st.text(st.characters(blacklist_characters="\0")))
def test_the_shell_line_is_the_command(value: str, variable: str) -> None:
    command = command_of(LORA, args={"chat-template": value}, env={"X": variable})
    words = shlex.split(shell_line(command))
    assert words[:5] == ["env", "-u", "PYTHONDONTWRITEBYTECODE", "-u", "VLLM_API_KEY"]
    assert words[5 : 5 + len(command.env)] == [f"{name}={item}" for name, item in command.env.items()]
    assert tuple(words[5 + len(command.env) :]) == command.argv


def test_the_shell_line_starts_what_it_says() -> None:
    """`env -u NAME` before `NAME=value`: read back by a real shell."""
    import subprocess

    command = ServerCommand((sys.executable, "-c", "import os,json; print(json.dumps(dict(os.environ)))"), {"A": "it's $HOME"})
    told = subprocess.run(shell_line(command), shell=True, capture_output=True, text=True, check=True, env={"VLLM_API_KEY": "x", "PATH": "/usr/bin:/bin"})
    seen = json.loads(told.stdout)
    assert seen["A"] == "it's $HOME"
    assert "VLLM_API_KEY" not in seen
