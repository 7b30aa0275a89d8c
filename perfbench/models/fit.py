"""Does an adapter belong to a base model, and can vLLM serve it? From configs and safetensors headers, before anything is started.

PEFT would load an adapter of another model of the same shapes without a word, and fails with a page of shapes on any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfbench.errors import Finding, ModelError
from perfbench.models.headers import Tensor, read_tensors, safetensors_files
from perfbench.models.inspect import read_config

_LORA_NAME = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?$")
_PLAIN_INITS = (True, False, "true", "false", "gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of init_lora_weights that leave the base's weights as they are (vllm/lora/peft_helper.py, 0.32)."""


@dataclass(frozen=True)
class _Pair:
    """lora_A and lora_B of one module."""

    module: str
    embedding: bool
    a: tuple[int, ...]
    b: tuple[int, ...]


def check_adapter_fits(base: Path, adapter: Path) -> list[Finding]:
    """Raise ModelError unless every LoRA matrix of `adapter` fits a weight of `base`; return what is only worth a warning.

    A warning: the adapter names another base, or something that cannot be seen from headers. An error: no LoRA at all, a module that
    the base does not have, shapes that do not multiply to the base weight's, ranks that contradict each other.
    """
    config = _lora_config(adapter)
    findings = list(_base_name_findings(base, config))
    files = safetensors_files(adapter, "adapter_model")
    shapes = read_tensors(safetensors_files(base))
    if not files or not shapes:
        where = adapter if not files else base
        return [*findings, Finding(str(where), "its weights are not in safetensors files, so shapes were not checked; save it again as safetensors")]
    tensors = read_tensors(files)
    pairs = list(_pairs(tensors, adapter))
    if not pairs:
        raise ModelError(f"{adapter} holds no lora_A and lora_B weights; expected a trained PEFT LoRA adapter")
    packed = "quantization_config" in read_config(base, "config.json")
    for pair in pairs:
        findings += _check_pair(pair, shapes, config, base, adapter, packed=packed)
    _check_saved_modules(tensors, shapes, base, adapter)
    return [*findings, *_unused_targets(config, pairs, adapter)]


def _lora_config(adapter: Path) -> dict[str, Any]:
    config = read_config(adapter, "adapter_config.json")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{adapter / 'adapter_config.json'} is of PEFT type {kind}; expected LORA: only LoRA can be served as an adapter and merged here")
    return config


def _base_name_findings(base: Path, config: Mapping[str, Any]) -> Iterator[Finding]:
    """Names are only hints: the same base may lie in any folder, and a Hub name may be a copy."""
    said = str(config.get("base_model_name_or_path") or "")
    if not said:
        return
    known = {base.name, str(read_config(base, "config.json").get("_name_or_path", ""))}
    if base.parent.name == "snapshots":
        known.add(base.parent.parent.name.removeprefix("models--").replace("--", "/"))
    last = said.rstrip("/").rsplit("/", maxsplit=1)[-1].lower()
    if last not in {name.rstrip("/").rsplit("/", maxsplit=1)[-1].lower() for name in known if name}:
        yield Finding("models.adapter", f"says that its base is `{said}`, and models.base is {base}; the shapes agree, make sure that the model does")


def _pairs(tensors: Mapping[str, Tensor], adapter: Path) -> Iterator[_Pair]:
    found: dict[tuple[str, bool], dict[str, tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        match = _LORA_NAME.match(name)
        if match:
            found.setdefault((match["module"], bool(match["embedding"])), {})[match["side"]] = tensor.shape
    for (module, embedding), sides in found.items():
        if len(sides) != 2:
            raise ModelError(f"{adapter} has lora_{next(iter(sides))} of {module} without its counterpart; save the adapter again")
        yield _Pair(module, embedding, sides["A"], sides["B"])


def _check_pair(pair: _Pair, shapes: Mapping[str, Tensor], config: Mapping[str, Any], base: Path, adapter: Path, *, packed: bool) -> list[Finding]:
    weight = _base_shape(pair.module, shapes)
    if weight is None:
        if packed or not _has_module(pair.module, shapes):
            if packed:
                return [Finding("models.base", f"is quantised, so the shape of {pair.module} was not checked")]
            raise ModelError(f"{adapter} changes {pair.module}, which {base} does not have; expected the adapter's own base model")
        return [Finding("models.adapter", f"the shape of {pair.module} was not checked: the base keeps it in another form")]
    if len(pair.a) != 2 or len(pair.b) != 2 or len(weight) != 2:
        return [Finding("models.adapter", f"the shape of {pair.module} was not checked: it is no plain matrix")]
    if pair.a[0] != pair.b[1]:
        raise ModelError(f"{adapter}: {pair.module} has lora_A of rank {pair.a[0]} and lora_B of rank {pair.b[1]}; save the adapter again")
    rank = _rank_of(pair.module, config)
    if rank is not None and pair.a[0] != rank:
        raise ModelError(f"{adapter}: {pair.module} has rank {pair.a[0]} where adapter_config.json says {rank}; config and weights are of two adapters")
    made = (pair.b[0], pair.a[1])
    if pair.embedding or config.get("fan_in_fan_out"):
        # lora_embedding_A is rank x vocabulary; GPT-2's Conv1D keeps in x out.
        made = (made[1], made[0])
    if made != weight:
        raise ModelError(
            f"{adapter} does not fit {base}: {pair.module} is {_times(weight)} there, and the adapter's matrices make {_times(made)}; "
            "expected the adapter's own base model"
        )
    return []


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _base_shape(module: str, shapes: Mapping[str, Tensor]) -> tuple[int, ...] | None:
    """Shape of a module's weight. Checkpoints differ in what stands before `layers.` (`model.`, `language_model.model.`, nothing)."""
    exact = shapes.get(f"{module}.weight")
    if exact is not None:
        return exact.shape
    tail = module[module.find("layers.") :] if "layers." in module else module
    ends = [tensor.shape for name, tensor in shapes.items() if name == f"{tail}.weight" or name.endswith(f".{tail}.weight")]
    if ends:
        return ends[0] if len(set(ends)) == 1 else None
    embeddings = [tensor.shape for name, tensor in shapes.items() if name.endswith("embed_tokens.weight")]
    # A tied output layer is not stored: it is the embedding.
    return embeddings[0] if module == "lm_head" and len(embeddings) == 1 else None


def _has_module(module: str, shapes: Mapping[str, Tensor]) -> bool:
    """Whether anything is stored under the module's name, or several weights whose shapes differ end in it."""
    tail = module[module.find("layers.") :] if "layers." in module else module
    return any(f"{tail}." in name for name in shapes)


def _rank_of(module: str, config: Mapping[str, Any]) -> int | None:
    """PEFT's rule for rank_pattern: the first key that matches the end of the module's name; else `r`."""
    pattern = config.get("rank_pattern")
    for key, rank in (pattern.items() if isinstance(pattern, Mapping) else ()):
        if re.match(rf"(.*\.)?({key})$", module):
            return int(rank)
    return config.get("r")


def _check_saved_modules(tensors: Mapping[str, Tensor], shapes: Mapping[str, Tensor], base: Path, adapter: Path) -> None:
    """`modules_to_save` replaces whole weights; a vocabulary that was enlarged for training shows here."""
    for name, tensor in tensors.items():
        module = name.removeprefix("base_model.model.").removesuffix(".weight")
        weight = None if "lora_" in name else _base_shape(module, shapes)
        if weight is not None and weight != tensor.shape:
            raise ModelError(
                f"{adapter} does not fit {base}: {module} is {_times(weight)} there and {_times(tensor.shape)} in the adapter; "
                "if tokens were added for training, resize the base and save it first"
            )


def _unused_targets(config: Mapping[str, Any], pairs: list[_Pair], adapter: Path) -> Iterator[Finding]:
    targets = config.get("target_modules")
    for target in targets if isinstance(targets, list) else ():
        if not any(pair.module == target or pair.module.endswith(f".{target}") for pair in pairs):
            yield Finding("models.adapter", f"target module `{target}` of {adapter / 'adapter_config.json'} has no weights in the adapter")


def check_adapter_serves(adapter: Path) -> None:
    """Raise ModelError for an adapter that vLLM refuses: it would say so only after the server has loaded. Rules of vllm/lora/peft_helper.py (0.32)."""
    config = _lora_config(adapter)
    saved = [name for name in config.get("modules_to_save") or () if name not in ("classifier", "score")]
    init = config.get("init_lora_weights", True)
    refused = {
        "DoRA (use_dora)": bool(config.get("use_dora")),
        "biases (bias)": config.get("bias", "none") != "none",
        "LoRA biases (lora_bias)": bool(config.get("lora_bias")),
        f"whole weights (modules_to_save: {', '.join(saved)})": bool(saved),
        f"an initialisation that changes the base (init_lora_weights: {init})": (init.lower() if isinstance(init, str) else init) not in _PLAIN_INITS,
        "activated LoRA (alora_invocation_tokens)": bool(config.get("alora_invocation_tokens")),
        "repeated layers (layer_replication)": bool(config.get("layer_replication")),
        "block-diagonal LoRA (use_bdlora)": bool(config.get("use_bdlora")),
        "QALoRA (use_qalora)": bool(config.get("use_qalora")),
    }
    for name, found in refused.items():
        if found:
            raise ModelError(f"{adapter} uses {name}, which vLLM does not serve; leave out the variants base+lora and adapter, and serve `merged`")
