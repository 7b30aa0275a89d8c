"""What a model or adapter is, from its config and safetensors headers only: no torch, no weights in memory.

`inspect_model` and `inspect_adapter` return records.ModelInfo. What a folder does not say (the parameters of a pickle, of packed
quantised weights) is None.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from perfbench.errors import ModelError
from perfbench.models.headers import other_weight_files, read_header, read_tensors, safetensors_files
from perfbench.models.shape import shape_of
from perfbench.records import ModelInfo, ModelShape

_DTYPE_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_SMALL_FILE_BYTES = 64 * 2**20
_GLANCE_BYTES = 512


def inspect_model(path: Path, revision: str | None = None) -> ModelInfo:
    """Architecture, type, parameters and bytes of a model folder. Raises ModelError for a folder without a readable config.json.

    `parameters` counts tied embeddings once; it is None for pickles and for packed quantised weights.
    """
    config = read_config(path, "config.json")
    files = safetensors_files(path)
    tensors = read_tensors(files)
    architectures = config.get("architectures")
    named = config.get("dtype") or config.get("torch_dtype")
    parameters = None
    if tensors and "quantization_config" not in config:
        tied = bool(config.get("tie_word_embeddings")) and any(name.endswith("embed_tokens.weight") for name in tensors)
        left_out = ("rotary_emb.inv_freq", "lm_head.weight") if tied else ("rotary_emb.inv_freq",)
        parameters = sum(tensor.elements for name, tensor in tensors.items() if not name.endswith(left_out))
    return ModelInfo(
        path=str(path),
        revision=_commit(path) or revision,
        architecture=architectures[0] if isinstance(architectures, list) and architectures else None,
        dtype=main_dtype(tensors) or (named if isinstance(named, str) else None),
        parameters=parameters,
        weight_bytes=sum(tensor.size_bytes for tensor in tensors.values()) if tensors else None,
        sha256=identity_sha256(path, files or other_weight_files(path)),
        shape=_shape_or_none(path),
    )


def read_shape(path: Path) -> ModelShape:
    """What the model's memory and speed depend on. Raises ModelError for a folder without config.json, or one that says too little."""
    config, tensors = read_config(path, "config.json"), read_tensors(safetensors_files(path))
    return shape_of(config, tensors, stored_dtype=main_dtype(tensors), where=str(path / "config.json"))


def _shape_or_none(path: Path) -> ModelShape | None:
    """A model that is no decoder of the usual kind is served and measured all the same."""
    try:
        return read_shape(path)
    except ModelError:
        return None


def inspect_adapter(path: Path, revision: str | None = None) -> ModelInfo:
    """Rank, alpha, target modules, base name, type and parameters of a PEFT adapter folder.

    `lora_rank` is the largest that any module has (`rank_pattern`), since that is what a server must make room for. Raises ModelError
    for a folder without a readable adapter_config.json.
    """
    config = read_config(path, "adapter_config.json")
    files = safetensors_files(path, "adapter_model")
    tensors = read_tensors(files)
    modules = config.get("target_modules")
    return ModelInfo(
        path=str(path),
        revision=_commit(path) or revision,
        architecture=None,
        dtype=main_dtype(tensors),
        parameters=sum(tensor.elements for tensor in tensors.values()) if tensors else None,
        weight_bytes=sum(tensor.size_bytes for tensor in tensors.values()) if tensors else None,
        lora_rank=_largest_rank(config),
        lora_alpha=float(config["lora_alpha"]) if isinstance(config.get("lora_alpha"), int | float) else None,
        lora_target_modules=[modules] if isinstance(modules, str) else sorted(modules) if isinstance(modules, list) else None,
        base_name=config.get("base_model_name_or_path") or None,
        sha256=identity_sha256(path, files or other_weight_files(path)),
    )


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object from a model folder. Raises ModelError naming the file."""
    path = folder / name
    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError:
        raise ModelError(f"{path} is missing or cannot be read; expected a Hugging Face {_kind(name)} folder") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not JSON ({error}); download or save the {_kind(name)} again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object; download or save the {_kind(name)} again")
    return found


def _kind(name: str) -> str:
    return "PEFT adapter" if name.startswith("adapter_") else "model"


def _largest_rank(config: dict[str, Any]) -> int | None:
    pattern = config.get("rank_pattern")
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    return max((rank for rank in ranks if isinstance(rank, int)), default=None)


def main_dtype(tensors: dict[str, Any]) -> str | None:
    """The type that most bytes have: norms are often kept in another."""
    weight: Counter[str] = Counter()
    for tensor in tensors.values():
        weight[tensor.dtype] += tensor.size_bytes
    if not weight:
        return None
    name = weight.most_common(1)[0][0]
    return _DTYPE_NAMES.get(name, name)


def _commit(path: Path) -> str | None:
    """The commit that a folder in the Hub's cache stands for (`snapshots/<commit>`): more exact than a branch's name."""
    return path.name if path.parent.name == "snapshots" and len(path.name) == 40 else None


def identity_sha256(folder: Path, weight_files: list[Path]) -> str:
    """Tells two models apart in milliseconds: small files whole, of every large weight file the header and a glance into each tensor.

    Names, sizes, headers and the first tensor alone would not do: a fine-tune has all of these in common with its base where the
    embeddings, which come first, were frozen. So 512 bytes at the start and in the middle of every tensor are read too.
    """
    digest = hashlib.sha256()
    configs = [file for pattern in ("*.json", "*.jinja", "*.model", "*.txt", "*.py") for file in folder.glob(pattern)]
    for file in sorted({*configs, *weight_files}):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        if size <= _SMALL_FILE_BYTES:
            digest.update(file.read_bytes())
        else:
            _glance(file, size, digest)
    return digest.hexdigest()


def _glance(file: Path, size: int, digest: Any) -> None:
    if file.suffix == ".safetensors":
        tensors, data_start = read_header(file)
        spans = sorted(tensor.data_offsets for tensor in tensors.values())
        offsets = [0, *(data_start + at for start, end in spans for at in (start, (start + end) // 2))]
        digest.update(repr(sorted((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items())).encode())
    else:
        offsets = [size * part // 256 for part in range(256)]
    with file.open("rb") as source:
        for offset in offsets:
            source.seek(offset)
            digest.update(source.read(_GLANCE_BYTES))
