"""The reference check against real servers: true weights pass, with and without an adapter; damaged weights are stopped.

The first are the demo server's, in float32 (what bfloat16 costs is told in quality/reference.py); the second are served in bfloat16, which rounds most.
"""

from __future__ import annotations

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

SERVE = Serve(args={"enforce-eager": True, "max-model-len": 512, "dtype": "bfloat16"}, ready_timeout_s=300.0)
QUESTIONS = ("Explain why the sky is blue.", "List five fruits and their colours.", "Who was Marie Curie?", "Name the capital of France in one word.")
PROMPTS = [RenderedPrompt(prompt_id=str(n), messages=[{"role": "user", "content": text}], text=None, sha256="") for n, text in enumerate(QUESTIONS)]


@pytest.fixture(scope="module")
def model() -> Path:
    folder = cache_folder() / "demo" / "base"
    if (folder / "config.json").is_file():
        return folder
    pytest.skip("the demo's model is not on this machine; `perfbench demo` makes it")


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


def test_true_weights_pass_and_an_adapter_that_is_not_told_is_noticed(model: Path, demo_server: Server) -> None:
    adapter = model.with_name("adapter")
    idle, used = ask(demo_server, "base"), ask(demo_server, "adapter")
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
        assert check.tokens > 25
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
