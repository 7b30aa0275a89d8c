"""The reference check against real servers: true weights pass in bfloat16, with and without an adapter; damaged weights are stopped.

Two servers in sequence, about a minute and a half on two idle cores.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from perfbench.errors import ReferenceMismatchError
from perfbench.prompts import RenderedPrompt
from perfbench.quality.ask import Target
from perfbench.quality.reference import ServedAnswer, Subject, ask_served, mismatch_error, reference_check
from perfbench.scenario.model import Serve
from perfbench.scenario.paths import cache_folder
from perfbench.serve.server import Server, installed_vllm
from perfbench.variants import ServerPlan

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(installed_vllm() is None, reason="vLLM is not installed"),
    pytest.mark.timeout(1200),
]

# bfloat16 rounds most: what passes here passes in float32 too.
SERVE = Serve(args={"enforce-eager": True, "max-model-len": 512, "dtype": "bfloat16"}, ready_timeout_s=300.0)
QUESTIONS = ("Explain why the sky is blue.", "List five fruits and their colours.", "Who was Marie Curie?", "Name the capital of France in one word.")
PROMPTS = [RenderedPrompt(prompt_id=str(n), messages=[{"role": "user", "content": text}], text=None, sha256="") for n, text in enumerate(QUESTIONS)]


@pytest.fixture(scope="module")
def model() -> Path:
    for folder in (cache_folder() / "demo" / "base", Path("/tmp/pb/smol")):
        if (folder / "config.json").is_file():
            return folder
    pytest.skip("the demo's model is not on this machine; `perfbench demo` makes it")


def make_adapter(model: Path, folder: Path) -> Path:
    """Random weights of rank 4 on every q_proj, small enough that the answers stay language."""
    import numpy as np
    from safetensors.numpy import save_file

    config = json.loads((model / "config.json").read_text())
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    out = config["num_attention_heads"] * (config.get("head_dim") or hidden // config["num_attention_heads"])
    random = np.random.default_rng(0)
    weights = {}
    for layer in range(layers):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = random.normal(0, 0.1, (4, hidden)).astype(np.float32)
        weights[f"{name}.lora_B.weight"] = random.normal(0, 0.1, (out, 4)).astype(np.float32)
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "base_model_name_or_path": str(model)}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def make_damaged(model: Path, folder: Path) -> Path:
    """A copy of the model in which the values of one tensor, of one layer, stand in another order."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    name = "model.layers.10.mlp.down_proj.weight"
    values = tensors[name].flatten()
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    tensors[name] = values[order].reshape(tensors[name].shape).contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def ask(server: Server, name: str) -> list[ServedAnswer]:
    return ask_served(Target(url=server.url, model=name, timeout_s=300.0), PROMPTS, max_tokens=24, concurrency=4)


def test_true_weights_pass_and_an_adapter_that_is_not_told_is_noticed(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path / "adapter")
    plan = ServerPlan("base-lora", ("base+lora", "adapter"), {"base+lora": "base", "adapter": "adapter"}, model_path=model, lora=adapter, max_lora_rank=8)
    with Server(plan, SERVE, log=tmp_path / "base-lora.log") as server:
        idle, used = ask(server, "base"), ask(server, "adapter")
    assert [answer.text for answer in idle] != [answer.text for answer in used]
    checks = reference_check(
        [
            Subject(variant="base+lora", model_path=str(model), answers=idle),
            Subject(variant="adapter", model_path=str(model), adapter_path=str(adapter), answers=used),
            Subject(variant="adapter not applied", model_path=str(model), adapter_path=str(adapter), answers=idle),
        ]
    )
    print(*checks, sep="\n")
    assert [check.verdict for check in checks] == ["pass", "pass", "fail"]
    for check in checks[:2]:
        assert check.prompts == 4
        assert check.tokens > 50
        assert check.top1_share is not None and check.top1_share > 0.9
        assert check.examples == []


def test_a_damaged_weight_file_is_stopped_with_both_texts(model: Path, tmp_path: Path) -> None:
    damaged = make_damaged(model, tmp_path / "damaged")
    with Server(ServerPlan("base", ("base",), {"base": "base"}, model_path=damaged), SERVE, log=tmp_path / "base.log") as server:
        answers = ask(server, "base")
    (check,) = reference_check([Subject(variant="base", model_path=str(model), answers=answers)])
    print(check)
    assert check.verdict == "fail"
    assert len(check.examples) == 2
    with pytest.raises(ReferenceMismatchError) as caught:
        raise mismatch_error(check)
    served, reference = check.examples[0]["served"], check.examples[0]["reference"]
    assert served != reference
    assert " ".join(served.split())[:60] in caught.value.message
    assert " ".join(reference.split())[:60] in caught.value.message
