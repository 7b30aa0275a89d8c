"""A padded adapter computes what the original does, at a larger rank."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfbench.errors import ModelError
from perfbench.models.demo import ADAPTER_SOURCE
from perfbench.models.inspect import inspect_adapter
from perfbench.models.padded import pad_adapter

torch = pytest.importorskip("torch", reason="padding needs torch")


def test_the_product_and_its_scale_stay(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    pad_adapter(ADAPTER_SOURCE, tmp_path, 16)
    before, after = inspect_adapter(ADAPTER_SOURCE, revision=None), inspect_adapter(tmp_path, revision=None)
    assert (before.lora_rank, after.lora_rank) == (4, 16)
    assert after.parameters == 4 * (before.parameters or 0)
    assert after.lora_alpha is not None and before.lora_alpha is not None
    assert after.lora_alpha / 16 == before.lora_alpha / 4
    old, new = load_file(ADAPTER_SOURCE / "adapter_model.safetensors"), load_file(tmp_path / "adapter_model.safetensors")
    assert old.keys() == new.keys()
    name = next(key for key in old if ".lora_A." in key)
    other = name.replace(".lora_A.", ".lora_B.")
    products = [weights[other].double() @ weights[name].double() for weights in (old, new)]
    assert torch.equal(*products)
    assert bool((new[name][4:] != 0).any()), "the added rows are not zero, so that no kernel could skip them"


def test_what_cannot_be_padded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected one rank below it"):
        pad_adapter(ADAPTER_SOURCE, tmp_path, 4)
