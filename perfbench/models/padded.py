"""A LoRA adapter of a larger rank that computes the same: for measuring what rank costs.

Rows are added to A, drawn as PEFT initialises them, and columns of zeros to B, so that B @ A is what it was; alpha grows with the rank, so that the scale
alpha / r is what it was. A server does all the work of the larger rank and answers the same. Such an adapter measures speed and memory: it says nothing
of what an adapter trained at that rank would answer.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from perfbench.errors import MissingPartError, ModelError

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def pad_adapter(source: Path, target: Path, rank: int, *, seed: int = 0) -> None:
    """Write `source` with all its modules at `rank` into the empty folder `target`. Raises ModelError where they are not all of one, smaller rank."""
    try:
        import torch
        from safetensors.torch import load_file, save_file
    except ImportError as error:
        raise MissingPartError(f"padding an adapter needs torch and safetensors: {error}", hint="pip install 'perfbench[cpu]' (or [gpu])") from None
    config = msgspec.json.decode((source / _CONFIG).read_bytes(), type=dict[str, Any])
    old = config["r"]
    if config.get("rank_pattern") or config.get("alpha_pattern") or config.get("use_rslora") or not old < rank:
        raise ModelError(f"{source} cannot be padded to rank {rank}: expected one rank below it for all modules, and alpha / r as the scale")
    generator = torch.Generator().manual_seed(seed)
    padded: dict[str, Any] = {}
    for name, weight in load_file(source / _WEIGHTS).items():
        if ".lora_A." in name:
            bound = 1 / math.sqrt(weight.shape[1])  # kaiming_uniform_ with a = sqrt(5), as peft/tuners/lora/layer.py does
            more = (torch.rand((rank - old, weight.shape[1]), generator=generator) * 2 - 1) * bound
            padded[name] = torch.cat([weight, more.to(weight.dtype)]).contiguous()
        elif ".lora_B." in name:
            padded[name] = torch.cat([weight, torch.zeros((weight.shape[0], rank - old), dtype=weight.dtype)], dim=1).contiguous()
        else:
            raise ModelError(f"{source} cannot be padded: {name} is neither lora_A nor lora_B")
    save_file(padded, target / _WEIGHTS, metadata={"format": "pt"})
    changed = {**config, "r": rank, "lora_alpha": config["lora_alpha"] * rank / old}
    (target / _CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(changed), indent=2) + b"\n")
