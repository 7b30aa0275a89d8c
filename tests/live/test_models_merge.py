"""The merge against its formula, on a tiny random Llama: merged = W + scale * B @ A, added in float32 and rounded once."""

import json
from pathlib import Path

import pytest

from perfbench.errors import ModelError
from perfbench.models.fit import check_adapter_fits
from perfbench.models.inspect import inspect_adapter, inspect_model
from perfbench.models.merge import MERGE_RECORD, merge_adapter, read_merge_record

pytestmark = [pytest.mark.live, pytest.mark.filterwarnings("ignore::UserWarning:peft.*"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
HIDDEN, RANK, ALPHA = 32, 4, 6


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("models") / "base"
    config = LlamaConfig(
        vocab_size=64, hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    torch.manual_seed(8)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"v_proj": 2}, init_lora_weights=False)
    peft_model = get_peft_model(model, lora)
    folder = base.parent / "adapter"
    peft_model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def weights(folder: Path, name: str = "model.safetensors") -> dict[str, "torch.Tensor"]:
    return safetensors_torch.load_file(folder / name)


def expected_weights(base: Path, adapter: Path) -> dict[str, "torch.Tensor"]:
    """By the formula, in float32."""
    lora = weights(adapter, "adapter_model.safetensors")
    merged = {name: tensor.float() for name, tensor in weights(base).items()}
    for name in list(lora):
        if name.endswith("lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            a, b = lora[name].float(), lora[name.replace("lora_A", "lora_B")].float()
            merged[f"{module}.weight"] = merged[f"{module}.weight"] + (b @ a) * (ALPHA / a.shape[0])
    return merged


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_merged_weights_are_the_formula_rounded_once(base: Path, adapter: Path, dtype: str) -> None:
    folder = merge_adapter(base, adapter, dtype)
    merged = weights(folder)
    expected = expected_weights(base, adapter)
    assert set(merged) == set(expected)
    changed = 0
    for name, tensor in merged.items():
        assert tensor.dtype == getattr(torch, dtype)
        assert torch.equal(tensor, expected[name].to(getattr(torch, dtype))), name
        changed += not torch.equal(tensor, weights(base)[name].to(tensor.dtype))
    assert changed == 2 * 3
    assert json.loads((folder / "config.json").read_text())["dtype"] == dtype


def test_the_record_says_what_was_merged_and_the_tokenizer_is_the_base_s(base: Path, adapter: Path) -> None:
    folder = merge_adapter(base, adapter, "float32")
    record = read_merge_record(folder)
    assert record is not None
    assert (record.base, record.adapter, record.dtype) == (inspect_model(base), inspect_adapter(adapter), "float32")
    assert set(record.versions) == {"peft", "torch", "transformers", "safetensors"}
    for name in ("chat_template.jinja", "tokenizer.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (base / name).read_bytes()
    assert inspect_model(folder).parameters == inspect_model(base).parameters


def test_a_second_call_merges_nothing(base: Path, adapter: Path) -> None:
    folder = merge_adapter(base, adapter, "float32")
    (folder / "mark").write_text("kept")
    assert merge_adapter(base, adapter, "float32") == folder
    assert (folder / "mark").is_file()
    assert merge_adapter(base, adapter, "bfloat16") != folder


def test_out_gets_a_whole_model_from_the_cache_or_anew(base: Path, adapter: Path, tmp_path: Path) -> None:
    fresh = merge_adapter(base, adapter, "float32", out=tmp_path / "fresh")
    (tmp_path / "empty").mkdir()
    merge_adapter(base, adapter, "float32")
    copied = merge_adapter(base, adapter, "float32", out=tmp_path / "empty")
    for folder in (fresh, copied):
        assert (folder / MERGE_RECORD).is_file()
        assert all(torch.equal(tensor, weights(fresh)[name]) for name, tensor in weights(folder).items())
    with pytest.raises(ModelError, match="nothing of yours is overwritten"):
        merge_adapter(base, adapter, "float32", out=fresh)


def test_peft_s_own_adapter_fits_by_our_reading_of_the_headers(base: Path, adapter: Path) -> None:
    assert check_adapter_fits(base, adapter) == []
    assert inspect_adapter(adapter).lora_rank == RANK


def test_an_adapter_with_nan_is_refused_and_leaves_nothing(base: Path, adapter: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    tensors = weights(adapter, "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    safetensors_torch.save_file(tensors, broken / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="NaN"):
        merge_adapter(base, broken, "float32", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_values_too_large_for_float16_are_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    loud = tmp_path / "loud"
    loud.mkdir()
    (loud / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    tensors = {name: tensor * 3e4 for name, tensor in weights(adapter, "adapter_model.safetensors").items()}
    safetensors_torch.save_file(tensors, loud / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="not finite"):
        merge_adapter(base, loud, "float16", out=tmp_path / "out")
