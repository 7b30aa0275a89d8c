"""An adapter that does not belong to the base is refused by name and shape."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfbench.errors import ModelError
from perfbench.models.fit import check_adapter_fits, check_adapter_serves

from .conftest import adapter_tensors, base_tensors

Make = Callable[..., Path]


def test_an_adapter_that_fits_has_no_findings(make_base: Make, make_adapter: Make) -> None:
    assert check_adapter_fits(make_base(), make_adapter()) == []


def test_another_base_name_is_a_warning_only(make_base: Make, make_adapter: Make) -> None:
    findings = check_adapter_fits(make_base(), make_adapter(base_model_name_or_path="someone/else-7b"))
    assert len(findings) == 1
    assert "someone/else-7b" in str(findings[0])


def test_the_hub_s_own_cache_folder_is_known_by_its_name(make_base: Make, make_adapter: Make) -> None:
    snapshot = make_base().rename(make_adapter().parent / "moved")
    place = snapshot.parent / "models--someone--else-7b" / "snapshots" / ("b" * 40)
    place.parent.mkdir(parents=True)
    snapshot.replace(place)
    assert check_adapter_fits(place, make_adapter(name="named", base_model_name_or_path="someone/else-7b")) == []


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (adapter_tensors(hidden=6), r"q_proj is 8 x 8 there, and the adapter's matrices make 6 x 6"),
        (adapter_tensors(out=5), r"v_proj is 4 x 8 there, and the adapter's matrices make 5 x 8"),
        (adapter_tensors(layers=3), r"layers\.2\.self_attn\.q_proj, which .* does not have"),
        (adapter_tensors(rank=3), r"rank 3 where adapter_config\.json says 2"),
        ({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": ("F32", [2, 8])}, r"lora_A of .* without its counterpart"),
        ({"something.else": ("F32", [2, 8])}, r"no lora_A and lora_B"),
    ],
)
def test_what_does_not_fit_is_refused(make_base: Make, make_adapter: Make, tensors: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        check_adapter_fits(make_base(), make_adapter(tensors))


def test_lora_a_and_b_of_different_ranks_are_refused(make_base: Make, make_adapter: Make) -> None:
    tensors = adapter_tensors()
    tensors["base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"] = ("F32", [4, 3])
    with pytest.raises(ModelError, match="lora_A of rank 2 and lora_B of rank 3"):
        check_adapter_fits(make_base(), make_adapter(tensors))


def test_rank_pattern_is_followed(make_base: Make, make_adapter: Make) -> None:
    tensors = adapter_tensors()
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.v_proj"
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = ("F32", [4, 8]), ("F32", [4, 4])
    assert check_adapter_fits(make_base(), make_adapter(tensors, rank_pattern={"v_proj": 4})) == []
    with pytest.raises(ModelError, match="rank 4 where"):
        check_adapter_fits(make_base(name="again"), make_adapter(tensors, name="without"))


def test_gpt2_style_weights_are_in_by_out(make_base: Make, make_adapter: Make) -> None:
    base = make_base({"h.layers.0.c_attn.weight": ("F32", [8, 24])})
    tensors = {"base_model.model.h.layers.0.c_attn.lora_A.weight": ("F32", [2, 8]), "base_model.model.h.layers.0.c_attn.lora_B.weight": ("F32", [24, 2])}
    assert check_adapter_fits(base, make_adapter(tensors, fan_in_fan_out=True, target_modules=["c_attn"], base_model_name_or_path=None)) == []
    with pytest.raises(ModelError, match="8 x 24 there, and the adapter's matrices make 24 x 8"):
        check_adapter_fits(base, make_adapter(tensors, name="linear", target_modules=["c_attn"]))


def test_embeddings_are_rank_by_vocabulary(make_base: Make, make_adapter: Make) -> None:
    tensors = {
        "base_model.model.model.embed_tokens.lora_embedding_A": ("F32", [2, 16]), "base_model.model.model.embed_tokens.lora_embedding_B": ("F32", [8, 2])
    }  # fmt: skip
    assert check_adapter_fits(make_base(), make_adapter(tensors, target_modules=["embed_tokens"])) == []
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = ("F32", [2, 17])
    with pytest.raises(ModelError, match="16 x 8 there, and the adapter's matrices make 17 x 8"):
        check_adapter_fits(make_base(name="again"), make_adapter(tensors, name="longer", target_modules=["embed_tokens"]))


def test_a_checkpoint_may_name_its_layers_otherwise(make_base: Make, make_adapter: Make) -> None:
    tensors = {name.replace("model.", "language_model.", 1): value for name, value in base_tensors().items()}
    assert check_adapter_fits(make_base(tensors), make_adapter()) == []


def test_an_enlarged_vocabulary_is_explained(make_base: Make, make_adapter: Make) -> None:
    tensors = adapter_tensors() | {"base_model.model.model.embed_tokens.weight": ("F32", [18, 8])}
    with pytest.raises(ModelError, match="resize the base"):
        check_adapter_fits(make_base(), make_adapter(tensors))


def test_a_target_without_weights_is_a_warning(make_base: Make, make_adapter: Make) -> None:
    findings = check_adapter_fits(make_base(), make_adapter(target_modules=["q_proj", "v_proj", "w_proj"]))
    assert [("w_proj" in str(finding)) for finding in findings] == [True]


def test_another_kind_of_adapter_is_named(make_base: Make, make_adapter: Make) -> None:
    with pytest.raises(ModelError, match="IA3; expected LORA"):
        check_adapter_fits(make_base(), make_adapter(peft_type="IA3"))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"use_dora": True}, "DoRA"), ({"bias": "all"}, "biases"), ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"init_lora_weights": "pissa"}, "pissa"), ({"peft_type": "IA3"}, "IA3"),
    ],
)  # fmt: skip
def test_what_vllm_refuses_is_refused_before_it_starts(make_adapter: Make, config: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        check_adapter_serves(make_adapter(**config))


@pytest.mark.parametrize("config", [{}, {"init_lora_weights": "gaussian"}, {"modules_to_save": ["score"]}, {"use_rslora": True}])
def test_what_vllm_serves_is_let_through(make_adapter: Make, config: dict[str, Any]) -> None:
    check_adapter_serves(make_adapter(**config))
