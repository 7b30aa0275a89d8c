"""What a model is made of, as far as memory and speed depend on it. `models.shape` reads it from config.json and safetensors headers; `plan.footprint`
computes with it."""

from __future__ import annotations

import msgspec


class Linear(msgspec.Struct, frozen=True):
    """Weight matrices of one kind and size: `q_proj` of every layer."""

    module: str
    """The last part of its name; `experts.gate_proj` for one that every expert has."""
    inputs: int
    outputs: int
    count: int
    """Of them in the model: layers, times experts."""
    active: int
    """Of them that one token goes through; below `count` where it is routed to some experts."""


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a decoder. Lengths in tokens, widths in elements."""

    model_type: str
    dtype: str
    """Of the stored weights, by torch's name."""
    layers: int
    full_attention_layers: int
    """Layers that keep the keys and values of every token."""
    sliding_layers: int = 0
    """Layers that keep those of the last `window` tokens."""
    window: int | None = None
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    """Of one head's values; equal to `head_dim` nearly everywhere."""
    latent_dim: int | None = None
    """MLA: elements a token and layer in the cache (kv_lora_rank + qk_rope_head_dim), one copy for all heads."""
    vocab_size: int
    tied_embeddings: bool
    linears: list[Linear]
    lora_embeddings: bool
    """vLLM reserves LoRA slots for the embeddings and the head of this model type too."""
    other_parameters: int
    """Embeddings, head, norms and biases: everything that is in no `linears`."""
    weight_bytes: int | None = None
    """Of the files; None where only the config is known."""
    quantised: bool = False
    """The files hold packed or scaled weights."""

    @property
    def parameters(self) -> int:
        """All of them, tied embeddings once."""
        return self.other_parameters + sum(one.inputs * one.outputs * one.count for one in self.linears)

    @property
    def active_parameters(self) -> int:
        """That one token is multiplied with: without experts it is not routed to, without the embedding table (a look-up), with the head."""
        return self.vocab_size * self.hidden_size + sum(one.inputs * one.outputs * one.active for one in self.linears)
