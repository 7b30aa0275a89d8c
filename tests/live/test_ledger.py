"""The ledger's formulas against what vLLM itself takes and says, for the demo's model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from perfbench.models.inspect import read_shape
from perfbench.plan import footprint

pytestmark = pytest.mark.live
CACHE_GIB = 1
ASK_VLLM = """
import json, sys

def taken(worker):
    held, seen = 0, set()
    for module in worker.model_runner.model.modules():
        for name in ("lora_a_stacked", "lora_b_stacked"):
            tensors = getattr(module, name, ())
            for tensor in tensors if isinstance(tensors, (tuple, list)) else (tensors,):
                if tensor.data_ptr() not in seen:
                    seen.add(tensor.data_ptr())
                    held += tensor.numel() * tensor.element_size()
    return held

if __name__ == "__main__":
    from vllm import LLM

    llm = LLM(model=sys.argv[1], dtype=sys.argv[2], enforce_eager=True, max_model_len=1024, max_num_seqs=8, max_num_batched_tokens=1024, enable_lora=True,
              max_loras=2, max_lora_rank=8)
    cache = llm.llm_engine.vllm_config.cache_config
    said = {"lora_bytes": llm.collective_rpc(taken)[0], "kv_tokens": cache.kv_cache_size_tokens, "block": cache.block_size}
    print("SAID " + json.dumps(said))
"""


def _base() -> Path:
    return Path(os.environ.get("PERFBENCH_CACHE", ".perfbench")).absolute() / "demo" / "base"


def test_kv_tokens_and_lora_slots_are_what_vllm_reserves(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed: the ledger is not held against it")
    if not (_base() / "config.json").is_file():
        pytest.skip(f"the demo's model is not in {_base()}: `perfbench demo --prepare` makes it")
    script = tmp_path / "ask.py"
    script.write_text(ASK_VLLM)
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GIB), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, script, _base(), "float32"], capture_output=True, text=True, timeout=400, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("SAID ")).removeprefix("SAID "))
    shape = read_shape(_base())
    tokens = footprint.kv_cache_tokens(shape, CACHE_GIB * 2**30, max_model_len=1024, dtype="float32", block_tokens=said["block"])
    assert tokens == pytest.approx(said["kv_tokens"], rel=0.01)
    assert footprint.lora_bytes(shape, max_loras=2, max_lora_rank=8, dtype="float32") == said["lora_bytes"]
