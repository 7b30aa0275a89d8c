"""From a scenario, or a config alone, to estimates: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfbench.errors import InputError, ModelError
from perfbench.estimates import Wanted, estimate_all
from perfbench.plan.gpus import find_gpu, known_gpus
from perfbench.scenario import load_scenario

CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
    "vocab_size": 128256, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
SCENARIO = """
name: sized
models: {base: ./base, adapter: ./adapter}
variants: [base, base+lora, adapter, merged]
serve: {args: {max-model-len: 4096, max-num-seqs: 64, max-loras: 2, gpu-memory-utilization: 0.8, tensor-parallel-size: 2}}
load:
  synthetic: {input_tokens: {uniform: [100, 300]}, prompts: 50}
  stages:
    - {name: short, arrival: closed, concurrency: 1, output: {fixed: 10}}
    - {name: long, arrival: poisson, rate_per_s: 1, output: {max_tokens: 100}}
"""
L40S = [find_gpu("l40s", known_gpus())]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 12, "lora_alpha": 8, "target_modules": ["q_proj"]}))
    (tmp_path / "s.yaml").write_text(SCENARIO)
    return tmp_path


def test_a_scenario_without_weights_on_this_machine(folder: Path) -> None:
    """Flags, slots (rank 12 needs 16) and lengths come from the scenario; the stage with the longest answers counts."""
    found = estimate_all(load_scenario(folder / "s.yaml"), Wanted(gpus=L40S, counts=()))
    assert [one.variant for one in found.estimates] == ["base", "base+lora", "adapter", "merged"]
    assert {one.gpus for one in found.estimates} == {2} and found.gpu_memory_utilization == 0.8
    assert found.output_tokens == 100 and 180 < found.input_tokens < 220 and "answers of stage long, as long as they may get" in found.lengths_from
    base, idle, used, merged = found.estimates
    assert base.lora_bytes == merged.lora_bytes == 0 < idle.lora_bytes == used.lora_bytes and base.batch == 64
    assert base.kv_tokens == merged.kv_tokens


def test_flags_win(folder: Path) -> None:
    wanted = Wanted(gpus=L40S, counts=(1, 2), weights="int4", kv="fp8", input_tokens=1000, output_tokens=10)
    found = estimate_all(load_scenario(folder / "s.yaml"), wanted)
    assert (found.input_tokens, found.output_tokens, found.weights, found.kv_dtype, len(found.estimates)) == (1000, 10, "int4", "fp8", 8)


def test_a_config_by_itself(folder: Path) -> None:
    wanted: dict[str, Any] = {"gpus": L40S, "counts": (1,), "model": folder / "base" / "config.json"}
    found = estimate_all(None, Wanted(**wanted, input_tokens=100, output_tokens=10))
    assert found.parameters == 8_030_261_248 and [one.variant for one in found.estimates] == ["base"]
    with pytest.raises(InputError, match="give --input-tokens and --output-tokens"):
        estimate_all(None, Wanted(**wanted))


def test_a_hub_id_that_is_not_in_the_cache_downloads_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    (folder / "s.yaml").write_text(SCENARIO.replace("./base", "owner/name"))
    with pytest.raises(ModelError, match="owner/name is not in the local cache, and an estimate downloads nothing; give --model"):
        estimate_all(load_scenario(folder / "s.yaml"), Wanted(gpus=L40S, counts=(1,)))


def test_prompts_of_a_file_are_counted_or_asked_for(folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"prompt": "hello"}\n')
    (folder / "s.yaml").write_text(SCENARIO.replace("synthetic: {input_tokens: {uniform: [100, 300]}, prompts: 50}", "data: ./rows.jsonl"))
    with pytest.raises(InputError, match=r"has no tokenizer\.json.*give --input-tokens and --output-tokens"):
        estimate_all(load_scenario(folder / "s.yaml"), Wanted(gpus=L40S, counts=(1,)))


def test_unknown_types_have_their_sentence(folder: Path) -> None:
    scenario = load_scenario(folder / "s.yaml")
    with pytest.raises(InputError, match="--weights: `int3` is not known; expected one of auto, fp32, bf16, fp16, fp8, int4"):
        estimate_all(scenario, Wanted(gpus=L40S, counts=(), weights="int3"))
    with pytest.raises(InputError, match="--kv-dtype: `int8`"):
        estimate_all(scenario, Wanted(gpus=L40S, counts=(), kv="int8"))


def test_an_endpoint_has_no_model(folder: Path) -> None:
    ours = "models: {base: ./base, adapter: ./adapter}\nvariants: [base, base+lora, adapter, merged]"
    text = SCENARIO.replace(ours, "endpoints: {a: {url: 'http://x', model: m}}")
    (folder / "s.yaml").write_text(text)
    with pytest.raises(InputError, match="the model behind an endpoint is not known"):
        estimate_all(load_scenario(folder / "s.yaml"), Wanted(gpus=L40S, counts=(1,)))


def test_variations_are_estimated_with_their_own_flags(folder: Path) -> None:
    """Slots of rank 64 take more than those of rank 16; a merge in float32 takes twice the bytes; what each changes is said."""
    (folder / "wide").mkdir()
    (folder / "wide" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 100, "lora_alpha": 8, "target_modules": ["q_proj"]}))
    variations = """variations:
  slots-64: {of: base+lora, args: {max-lora-rank: 64}}
  wide: {of: adapter, adapter: ./wide}
  merged-float32: {of: merged, merge_dtype: float32}
  one-gpu: {of: base, args: {tensor-parallel-size: 1}}
"""
    (folder / "s.yaml").write_text(SCENARIO.replace("serve:", variations + "serve:"))
    found = estimate_all(load_scenario(folder / "s.yaml"), Wanted(gpus=L40S, counts=()))
    by_name = {one.variant: one for one in found.estimates}
    assert list(by_name) == ["base", "base+lora", "adapter", "merged", "slots-64", "wide", "merged-float32", "one-gpu"]
    assert by_name["slots-64"].lora_bytes == 4 * by_name["base+lora"].lora_bytes
    assert by_name["wide"].lora_bytes == 8 * by_name["base+lora"].lora_bytes
    assert by_name["merged-float32"].weights_bytes == 2 * by_name["merged"].weights_bytes
    assert (by_name["base"].gpus, by_name["one-gpu"].gpus) == (2, 1)
    assert found.assumptions[-4] == "slots-64 is base+lora with max-lora-rank 64."
    assert found.assumptions[-2:] == ["merged-float32 is merged with weights in float32.", "one-gpu is base with tensor-parallel-size 1."]
