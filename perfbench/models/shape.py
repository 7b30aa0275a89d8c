"""A model's sizes from its config.json and, where they are there, its safetensors headers: no torch, no weights in memory.

Headers say which matrices a model has; without them the config is read as the decoder that it names. Keys are those of Hugging Face configs; a
multimodal config holds the decoder's in `text_config`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from perfbench.errors import ModelError
from perfbench.models.headers import Tensor
from perfbench.records import Linear, ModelShape

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(?P<layer>\d+)\.(?P<rest>.+)\.weight$")
_EXPERT = re.compile(r"(?:^|\.)experts\.\d+\.(?P<rest>.+)$")
_MOE_NAMES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
LORA_EMBEDDING_TYPES = frozenset(
    {
        "apertus", "cohere", "cohere2", "exaone", "exaone4", "exaone_moe", "falcon_h1", "granite", "granitemoe", "granitemoehybrid", "granitemoeshared",
        "jamba", "lfm2", "lfm2_moe", "llama", "minicpm", "mistral", "mixtral", "nemotron", "nemotron_h", "phi3", "phimoe", "qwen3", "qwen3_5", "qwen3_moe",
        "solar",
    }
)  # fmt: skip
"""Model types whose class in vLLM 0.32 has `embedding_modules`, so that embeddings and head have LoRA slots (lora/utils.py: get_supported_lora_modules)."""


def shape_of(config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, stored_dtype: str | None, where: str) -> ModelShape:
    """From a parsed config.json and the tensors of the files by name, none where only the config is there. `stored_dtype` is theirs, by torch's name.

    Raises ModelError naming the key that is missing.
    """
    text = {**config, **(config.get("text_config") or {})}
    layers, hidden, heads = (_number(text, key, where) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    vocab = _number(text, "vocab_size", where)
    head_dim = text.get("head_dim") or hidden // heads
    kv_lora_rank = text.get("kv_lora_rank")
    full, sliding, window = _attention_layers(text, layers)
    quantised = bool(config.get("quantization_config"))
    # Packed weights do not have the matrices' shapes; the config does.
    linears = _linears_of_tensors(tensors, text) if tensors and not quantised else _linears_of_config(text, layers, hidden, heads, head_dim)
    tied = bool(text.get("tie_word_embeddings", False))
    named = text.get("dtype") or text.get("torch_dtype") or "bfloat16"
    return ModelShape(
        model_type=str(text.get("model_type", "unknown")),
        dtype=str(named if quantised else stored_dtype or named).removeprefix("torch."),
        layers=layers,
        full_attention_layers=full,
        sliding_layers=sliding,
        window=window if sliding else None,
        hidden_size=hidden,
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or text.get("multi_query_group_num") or heads),
        head_dim=head_dim,
        value_dim=int(text.get("v_head_dim") or head_dim) if kv_lora_rank else head_dim,
        latent_dim=kv_lora_rank + text.get("qk_rope_head_dim", 0) if kv_lora_rank else None,
        vocab_size=vocab,
        tied_embeddings=tied,
        linears=linears,
        lora_embeddings=text.get("model_type") in LORA_EMBEDDING_TYPES,
        other_parameters=_others(tensors, linears, tied=tied, quantised=quantised) or vocab * hidden * (1 if tied else 2) + (2 * layers + 1) * hidden,
        weight_bytes=sum(tensor.size_bytes for tensor in tensors.values()) if tensors else None,
        quantised=quantised,
    )


def _number(text: Mapping[str, Any], key: str, where: str) -> int:
    value = text.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"{where}: expected `{key}`, a whole number above 0; it is {value!r}, so the model's memory cannot be computed")
    return value


def _attention_layers(text: Mapping[str, Any], layers: int) -> tuple[int, int, int | None]:
    """Layers that keep every token, layers with a window, and the window. Layers of linear attention, and those that share another's cache, keep none."""
    window = text.get("sliding_window") or None
    with_cache = layers - (text.get("num_kv_shared_layers") or 0)
    kinds = text.get("layer_types")
    if isinstance(kinds, list):
        kept = Counter(kinds[:with_cache])
        sliding = kept["sliding_attention"] if window else 0
        return kept["full_attention"] + (kept["sliding_attention"] if not window else 0), sliding, window
    if not window or text.get("use_sliding_window") is False:
        return with_cache, 0, None
    pattern = text.get("sliding_window_pattern")
    if isinstance(pattern, int) and pattern > 1:
        return with_cache // pattern, with_cache - with_cache // pattern, window
    if text.get("model_type") == "gemma2":
        return with_cache // 2, with_cache - with_cache // 2, window
    return 0, with_cache, window


def _linears_of_tensors(tensors: Mapping[str, Tensor], text: Mapping[str, Any]) -> list[Linear]:
    """Matrices inside layers, by kind and size. Experts are matrices of their own, or one tensor with the expert as its first dimension."""
    found: Counter[tuple[str, int, int]] = Counter()
    for name, tensor in tensors.items():
        match = _LAYER.search(name) or re.search(r"(?:^|\.)layers\.(?P<layer>\d+)\.(?P<rest>.*experts\.(?:gate_up_proj|down_proj))$", name)
        if match is None or "visual" in name or "vision" in name:
            continue
        if len(tensor.shape) != 2 and not (len(tensor.shape) == 3 and "experts." in match["rest"]):
            continue
        expert = _EXPERT.search(match["rest"])
        module = match["rest"].rpartition(".")[2]
        if expert is not None or "experts." in match["rest"]:
            module = f"experts.{_MOE_NAMES.get(module, module)}"
        outputs, inputs = tensor.shape[-2:]
        found[module, inputs, outputs] += tensor.shape[0] if len(tensor.shape) == 3 else 1
    share = _active_share(text)
    return [Linear(module, inputs, outputs, count, _active(module, count, share)) for (module, inputs, outputs), count in found.items()]


def _active_share(text: Mapping[str, Any]) -> float:
    """Of a layer's routed experts, those that one token goes to."""
    experts, chosen = _experts(text), text.get("num_experts_per_tok") or text.get("moe_topk") or text.get("top_k_experts")
    return chosen / experts if experts and chosen else 1.0


def _experts(text: Mapping[str, Any]) -> int | None:
    return text.get("num_local_experts") or text.get("n_routed_experts") or text.get("num_experts")


def _active(module: str, count: int, share: float) -> int:
    return round(count * share) if module.startswith("experts.") else count


def _linears_of_config(text: Mapping[str, Any], layers: int, hidden: int, heads: int, head_dim: int) -> list[Linear]:
    """The matrices of a Llama-like decoder: attention or MLA, and per layer a dense MLP or experts."""
    kv_heads = int(text.get("num_key_value_heads") or heads)
    linears = _mla(text, layers, hidden, heads) if text.get("kv_lora_rank") else [
        Linear("q_proj", hidden, heads * head_dim, layers, layers), Linear("k_proj", hidden, kv_heads * head_dim, layers, layers),
        Linear("v_proj", hidden, kv_heads * head_dim, layers, layers), Linear("o_proj", heads * head_dim, hidden, layers, layers),
    ]  # fmt: skip
    experts = _experts(text)
    routed = layers - int(text.get("first_k_dense_replace") or 0) if experts else 0
    inner = int(text.get("intermediate_size") or 4 * hidden)
    linears += _mlp("", hidden, inner, layers - routed, layers - routed)
    if experts and routed:
        expert_inner = int(text.get("moe_intermediate_size") or inner)
        shared = int(text.get("n_shared_experts") or 0) * expert_inner or int(text.get("shared_expert_intermediate_size") or 0)
        linears += _mlp("experts.", hidden, expert_inner, routed * experts, round(routed * experts * _active_share(text)))
        linears += [*_mlp("", hidden, shared, routed, routed), Linear("gate", hidden, experts, routed, routed)]
    return [one for one in linears if one.count and one.inputs and one.outputs]


def _mlp(prefix: str, hidden: int, inner: int, count: int, active: int) -> list[Linear]:
    sizes = (("gate_proj", hidden, inner), ("up_proj", hidden, inner), ("down_proj", inner, hidden))
    return [Linear(f"{prefix}{name}", inputs, outputs, count, active) for name, inputs, outputs in sizes]


def _mla(text: Mapping[str, Any], layers: int, hidden: int, heads: int) -> list[Linear]:
    """Multi-head latent attention: keys and values are made of one latent a token."""
    rank, rope, nope, value = (int(text.get(key) or 0) for key in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    query, query_rank = heads * (rope + nope), text.get("q_lora_rank")
    first = [("q_a_proj", hidden, query_rank), ("q_b_proj", query_rank, query)] if query_rank else [("q_proj", hidden, query)]
    rest = [("kv_a_proj_with_mqa", hidden, rank + rope), ("kv_b_proj", rank, heads * (nope + value)), ("o_proj", heads * value, hidden)]
    return [Linear(name, inputs, outputs, layers, layers) for name, inputs, outputs in (*first, *rest)]


def _others(tensors: Mapping[str, Tensor], linears: list[Linear], *, tied: bool, quantised: bool) -> int | None:
    """Parameters outside the matrices; None where the files do not tell."""
    if not tensors or quantised:
        return None
    repeats = ("rotary_emb.inv_freq", "lm_head.weight") if tied and any(name.endswith("embed_tokens.weight") for name in tensors) else ("rotary_emb.inv_freq",)
    whole = sum(tensor.elements for name, tensor in tensors.items() if not name.endswith(repeats))
    return whole - sum(one.inputs * one.outputs * one.count for one in linears)
