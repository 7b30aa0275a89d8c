"""Servers with the real vLLM: ready with an adapter, refused, damaged, and gone even after kill -9. Three to five minutes on two cores."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perfbench.errors import ServerError
from perfbench.scenario.model import Serve
from perfbench.scenario.paths import cache_folder
from perfbench.serve import command, guard
from perfbench.serve.control import post_json
from perfbench.serve.server import Server, installed_vllm
from perfbench.variants import VLLM_MAX_LORA_RANKS, ServerPlan

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(installed_vllm() is None, reason="vLLM is not installed"),
]

SERVE = Serve(args={"enforce-eager": True, "max-model-len": 1024, "dtype": "float32"}, ready_timeout_s=300.0)


@pytest.fixture(scope="module")
def model() -> Path:
    for folder in (cache_folder() / "demo" / "base", Path("/tmp/pb/smol")):
        if (folder / "config.json").is_file():
            return folder
    pytest.skip("the demo's model is not on this machine; `perfbench demo` makes it")


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rank-4 adapter of random weights on every q_proj: large enough to change what the model says."""
    import numpy as np
    from safetensors.numpy import save_file

    config = json.loads((model / "config.json").read_text())
    hidden, heads, layers = config["hidden_size"], config["num_attention_heads"], config["num_hidden_layers"]
    out = heads * (config.get("head_dim") or hidden // heads)
    random = np.random.default_rng(0)
    weights = {}
    for layer in range(layers):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = random.normal(0, 1, (4, hidden)).astype(np.float32)
        weights[f"{name}.lora_B.weight"] = random.normal(0, 1, (out, 4)).astype(np.float32)
    folder = tmp_path_factory.mktemp("adapter")
    save_file(weights, folder / "adapter_model.safetensors")
    lora = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**lora, "base_model_name_or_path": str(model)}))
    return folder


def lora_plan(model: Path, adapter: Path) -> ServerPlan:
    served = {"base+lora": "base", "adapter": "adapter"}
    return ServerPlan("base-lora", tuple(served), served, model_path=model, lora=adapter, max_lora_rank=8)


def test_one_server_hosts_the_idle_and_the_used_adapter(model: Path, adapter: Path, tmp_path: Path) -> None:
    waited: list[str] = []
    with Server(lora_plan(model, adapter), SERVE, log=tmp_path / "base-lora.log", on_wait=lambda s, line: waited.append(line)) as server:
        info = server.info
        assert info is not None and info.pid is not None and info.ready_s is not None
        tree = set(guard.processes_of(server._mark, info.pid))
        assert len(tree) >= 2, "API server and engine are processes of their own"
        assert tree == set(guard.processes_of(server._mark, None)), "the mark alone finds every process of vLLM"
        build = installed_vllm()
        assert build is not None and info.engine_version is not None and build.version.startswith(info.engine_version)
        assert info.max_model_len == 1024
        if build.cpu:
            # Keys and values of every layer in 16 or 32 bits: vLLM's tokens times their size must be the bytes it was given.
            config = json.loads((model / "config.json").read_text())
            per_token = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * 64 * 4
            assert info.kv_cache_bytes == 2**30
            assert info.kv_cache_tokens == pytest.approx(2**30 / per_token, rel=0.01)
        assert any(waited), "a start that takes seconds shows the log's last line"

        def answer(name: str) -> str:
            body = {"model": name, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
            reply = post_json(f"{server.url}/v1/completions", body, timeout_s=120.0)
            assert reply.status == 200, reply.text()
            return str(reply.json()["choices"][0]["text"])

        assert "Paris" in answer("base")
        assert answer("adapter") != answer("base")
        server.check()
    assert not [pid for pid in tree if _runs(pid)]


def test_a_bad_argument_is_told_in_vllms_words(model: Path, tmp_path: Path) -> None:
    plan = ServerPlan("base", ("base",), {"base": "base"}, model_path=model)
    log = tmp_path / "base.log"
    with pytest.raises(ServerError) as caught:
        Server(plan, Serve(args={"max-modle-len": 1024}), log=log).start()
    assert caught.value.message == f"server `base` did not start: vLLM refuses its arguments: unrecognized arguments: --max-modle-len; log: {log}"


def test_a_damaged_adapter_is_named(model: Path, adapter: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    (damaged / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes()[:-1000])
    with pytest.raises(ServerError, match=f"cannot load the adapter {re.escape(str(damaged))}: .*Safetensor"):
        Server(lora_plan(model, damaged), SERVE, log=tmp_path / "base-lora.log").start()


def test_kill_9_of_perfbench_leaves_no_server(model: Path, tmp_path: Path) -> None:
    """In the worst moment: the engine and its worker exist, and the API server does not answer yet."""
    driver_code = """
        import sys
        from pathlib import Path
        from perfbench.scenario.model import Serve
        from perfbench.serve.server import Server
        from perfbench.variants import ServerPlan
        plan = ServerPlan("base", ("base",), {"base": "base"}, model_path=Path(sys.argv[1]))
        server = Server(plan, Serve(args={"enforce-eager": True, "max-model-len": 1024}), log=Path(sys.argv[2]))
        server.start()
    """
    log = tmp_path / "base.log"
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(driver_code), str(model), str(log)])
    try:
        assert _wait(lambda: log.exists() and "EngineCore pid=" in log.read_text(), 120.0), "the engine did not start"
        time.sleep(3.0)
        children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
        leader = next(int(pid) for pid in children if b"api_server" in Path(f"/proc/{pid}/cmdline").read_bytes())
        environment = Path(f"/proc/{leader}/environ").read_bytes().split(b"\0")
        mark = next(item for item in environment if item.startswith(guard.MARK_VARIABLE.encode())).decode().partition("=")[2]
        tree = set(guard.processes_of(mark, leader))
        assert len(tree) >= 2
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert _wait(lambda: not [pid for pid in tree if _runs(pid)], 30.0), "processes are left"
        assert not guard.processes_of(mark, leader)
    finally:
        driver.kill()
        driver.wait()


def test_the_flags_we_know_are_vllms_own() -> None:
    """Of another vLLM version this says what has to be looked at again."""
    code = """
        import json, typing
        import vllm.entrypoints.launchers.api_server.entry
        from vllm.config.lora import MaxLoRARanks
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser
        actions = make_arg_parser(FlexibleArgumentParser())._actions
        flags = {name[2:]: type(action).__name__ for action in actions for name in action.option_strings if name.startswith("--")}
        print(json.dumps([flags, typing.get_args(MaxLoRARanks)]))
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    told = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, env=environment)
    flags, ranks = json.loads(told.stdout.splitlines()[-1])
    assert tuple(ranks) == VLLM_MAX_LORA_RANKS
    known = {*command._REFUSED, *command._LORA_FLAGS, *command._WITHOUT_NO_FORM, *command._SIZES_KV_CACHE}
    assert known <= flags.keys()
    plain_switches = {name for name, kind in flags.items() if kind == "_StoreTrueAction"}
    assert plain_switches - command._REFUSED.keys() == command._WITHOUT_NO_FORM
    # No flag is refused only because it begins like another one.
    assert {name for name in flags if command._refused_as(name)} == {*command._REFUSED, "no-enable-lora", "no-trust-remote-code"}


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait(condition: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False
