"""Tiny models on disk, written byte by byte: what the room reads must not depend on the library that wrote it."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BYTES = {"F32": 4, "BF16": 2, "F16": 2, "I32": 4}


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int]]], *, fill: bytes = b"\0") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    body = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(body)) + body + fill * at)


def base_tensors(layers: int = 2, hidden: int = 8, out: int = 4) -> dict[str, tuple[str, list[int]]]:
    tensors = {"model.embed_tokens.weight": ("BF16", [16, hidden])}
    for layer in range(layers):
        tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] = ("BF16", [hidden, hidden])
        tensors[f"model.layers.{layer}.self_attn.v_proj.weight"] = ("BF16", [out, hidden])
    return tensors


def adapter_tensors(rank: int = 2, hidden: int = 8, out: int = 4, layers: int = 2) -> dict[str, tuple[str, list[int]]]:
    tensors = {}
    for layer in range(layers):
        for module, width in (("q_proj", hidden), ("v_proj", out)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = ("F32", [rank, hidden])
            tensors[f"{name}.lora_B.weight"] = ("F32", [width, rank])
    return tensors


BASE_CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True, "dtype": "bfloat16"}
ADAPTER_CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["v_proj", "q_proj"], "base_model_name_or_path": "someone/base"}


@pytest.fixture
def make_base(tmp_path: Path) -> Callable[..., Path]:
    def make(tensors: dict[str, tuple[str, list[int]]] | None = None, *, name: str = "base", fill: bytes = b"\0", **config: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(BASE_CONFIG | config))
        write_safetensors(folder / "model.safetensors", tensors or base_tensors(), fill=fill)
        return folder

    return make


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    def make(tensors: dict[str, tuple[str, list[int]]] | None = None, *, name: str = "adapter", **config: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(ADAPTER_CONFIG | config))
        write_safetensors(folder / "adapter_model.safetensors", adapter_tensors() if tensors is None else tensors)
        return folder

    return make
