"""Bounds that no server can beat: the time that a GPU's matrix units and memory need at least, by the roofline model (Williams, Waterman & Patterson 2009).

    TTFT >= max(operations of the prompt / (GPUs x operations/s), bytes of the weights / (GPUs x bytes/s))
    TPOT >= max(batch x operations of a token / (GPUs x operations/s), (weights read + batch x KV of a sequence) / bytes/s of a GPU)

    operations   2 a weight that the token goes through, the head for one token of a prompt only; attention 2 x heads x (head_dim + value_dim) for every
                 pair of tokens that it compares, half of a square for a causal prompt
    weights read every matrix that a token of the batch goes through, once a step; embeddings are looked up, not read. Of routed experts those that a
                 batch touches when it is routed evenly: count x (1 - (1 - active/count)^batch), which is `active` for one token
    tensor parallel   operations and weights are shared out evenly, KV as `footprint` says; what the GPUs say to each other is not in the bound

Left out, so that the bound stays one: communication, kernel launches, sampling, norms, activations, scheduling, the network, the client.
"""

from __future__ import annotations

from dataclasses import dataclass

from perfbench.plan.footprint import kv_bytes_of_sequence, weights_bytes, width_bytes
from perfbench.plan.gpus import Gpu
from perfbench.records import ModelShape


@dataclass(frozen=True)
class Served:
    """A model in its types on so many GPUs of one kind."""

    shape: ModelShape
    gpu: Gpu
    devices: int
    weights: str
    """By footprint's names; `auto` for files as they are."""
    kv: str
    operations_per_s: float | None
    """Of one GPU in the type that is multiplied in; None where the table has no figure: then only memory bounds."""
    adapter_parameters: int = 0
    """Of the LoRA adapter that every request asks for."""

    @property
    def adapter_bytes(self) -> float:
        """LoRA weights stay in 16 bits beside quantised ones."""
        return self.adapter_parameters * 2.0


def ttft_bound_s(served: Served, input_tokens: float) -> float:
    """For one prompt alone on the server, in seconds."""
    return max(_compute_s(served, prompt_operations(served, input_tokens)), _read_bytes(served, input_tokens) / served.gpu.bytes_per_s)


def tpot_bound_s(served: Served, *, batch: float, context_tokens: float) -> float:
    """For `batch` sequences that hold `context_tokens` each, in seconds a step: one token for every sequence."""
    moved = _read_bytes(served, batch) + batch * _kv_bytes(served, context_tokens)
    return max(_compute_s(served, batch * token_operations(served, context_tokens)), moved / served.gpu.bytes_per_s)


def requests_per_s_bound(served: Served, *, batch: float, input_tokens: float, output_tokens: float) -> float:
    """Of a server that always has `batch` sequences: prompts may be computed while answers wait for memory, so the slower of both bounds."""
    context = input_tokens + output_tokens / 2
    operations = prompt_operations(served, input_tokens) + max(output_tokens - 1, 0) * token_operations(served, context)
    step_s = (_read_bytes(served, batch) + batch * _kv_bytes(served, context)) / served.gpu.bytes_per_s
    return 1 / max(_compute_s(served, operations), output_tokens * step_s / batch)


def prompt_operations(served: Served, tokens: float) -> float:
    """Operations of a prompt up to its first answer token."""
    shape = served.shape
    pairs = shape.full_attention_layers * tokens * (tokens + 1) / 2 + shape.sliding_layers * _windowed_pairs(tokens, shape.window)
    return 2 * tokens * (_active(shape) + served.adapter_parameters) + 2 * shape.vocab_size * shape.hidden_size + _attention(shape, pairs)


def token_operations(served: Served, context_tokens: float) -> float:
    """Operations of one more answer token behind so many others."""
    shape = served.shape
    sliding = context_tokens if shape.window is None else min(context_tokens, shape.window)
    pairs = shape.full_attention_layers * context_tokens + shape.sliding_layers * sliding
    return 2 * (shape.active_parameters + served.adapter_parameters) + _attention(shape, pairs)


def _attention(shape: ModelShape, pairs: float) -> float:
    return 2 * shape.heads * (shape.head_dim + shape.value_dim) * pairs


def _windowed_pairs(tokens: float, window: int | None) -> float:
    if window is None or tokens <= window:
        return tokens * (tokens + 1) / 2
    return window * (window + 1) / 2 + (tokens - window) * window


def _active(shape: ModelShape) -> int:
    """Weights of the matrices inside layers that one token goes through."""
    return shape.active_parameters - shape.vocab_size * shape.hidden_size


def _compute_s(served: Served, operations: float) -> float:
    return operations / (served.devices * served.operations_per_s) if served.operations_per_s is not None else 0.0


def _read_bytes(served: Served, batch: float) -> float:
    """Bytes of weights that one step of `batch` tokens reads from the memory of each GPU."""
    shape = served.shape
    beside = 2.0 if served.weights == "auto" and shape.quantised else max(width_bytes(shape.dtype if served.weights == "auto" else served.weights), 2.0)
    inside = weights_bytes(shape, served.weights) - shape.other_parameters * beside
    sizes = [(one.inputs * one.outputs * one.count, _touched(one.active / one.count, batch)) for one in shape.linears]
    share = sum(size * part for size, part in sizes) / sum(size for size, _ in sizes)
    head = shape.vocab_size * shape.hidden_size * beside
    return (max(inside, 0.0) * share + head + served.adapter_bytes) / served.devices


def _touched(share: float, batch: float) -> float:
    """Of matrices that a token goes through with probability `share`, the part that a batch goes through."""
    return 1 - float((1 - share) ** max(batch, 1.0))


def _kv_bytes(served: Served, context_tokens: float) -> float:
    return kv_bytes_of_sequence(served.shape, round(context_tokens), served.kv, devices=served.devices, block_tokens=1)
