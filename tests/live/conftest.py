"""One vLLM for every test that only needs to ask: it hosts the demo's base (LoRA enabled) and adapter, and runs while this folder's tests do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perfbench.errors import PerfbenchError
from perfbench.models.demo import prepare_demo
from perfbench.scenario.model import Serve
from perfbench.serve.server import Server, installed_vllm
from perfbench.variants import ServerPlan

SERVE = Serve(
    args={"dtype": "float32", "enforce-eager": True, "max-model-len": 1024, "max-num-seqs": 32, "max-num-batched-tokens": 1024},
    env={"VLLM_CPU_KVCACHE_SPACE": "1"}, ready_timeout_s=300.0,
)  # fmt: skip


@pytest.fixture(scope="package")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves the models `base` and `adapter`."""
    if installed_vllm() is None:
        pytest.skip("vLLM is not installed")
    try:
        demo = prepare_demo(progress=lambda text: None)
    except PerfbenchError as error:
        pytest.skip(f"the demo's model cannot be made on this machine: {error}")
    names = {"base+lora": "base", "adapter": "adapter"}
    plan = ServerPlan("base-lora", tuple(names), names, model_path=demo / "base", lora=demo / "adapter", max_lora_rank=8)
    with Server(plan, SERVE, log=tmp_path_factory.mktemp("demo-server") / "vllm.log") as server:
        yield server
        server.check()
