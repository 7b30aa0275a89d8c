"""What a running engine says about itself: version, KV capacity, context length. Pure readers over its answers and its log.

vLLM's figures: /version, /v1/models (`max_model_len`), and /metrics (labels of `vllm:cache_config_info`, one line an engine). A server
that is no vLLM has none of the last; what is not said is None.
"""

from __future__ import annotations

import re
from typing import Any

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_LOG_KV_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_LOG_KV_GIB = re.compile(r"(?:Available KV cache memory: |\b(?:Explicitly|Auto) set \()([\d.]+)(?: GiB|/)")


def served_models(models: Any) -> dict[str, int | None] | None:
    """GET /v1/models -> {model: max_model_len or None}; None where the answer is not the OpenAI API's."""
    rows = models.get("data") if isinstance(models, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows):
        return None
    return {row["id"]: row["max_model_len"] if isinstance(row.get("max_model_len"), int) else None for row in rows}


def engine_version(version: Any) -> str | None:
    """GET /version -> the engine's version."""
    found = version.get("version") if isinstance(version, dict) else None
    return found if isinstance(found, str) else None


def kv_cache_tokens(metrics: str, log: str = "") -> int | None:
    """Tokens whose keys and values fit, over all engines of the server.

    /metrics says it directly (`kv_cache_size_tokens`); older vLLM only in blocks (`num_gpu_blocks` x `block_size`), which counts too
    much for models with several kinds of layers, so that the log's own figure goes before it.
    """
    engines = _cache_config(metrics)
    sizes = [_number(engine.get("kv_cache_size_tokens")) for engine in engines]
    if sizes and all(sizes):
        return sum(size for size in sizes if size)
    if said := _LOG_KV_TOKENS.search(log):
        return int(said[1].replace(",", ""))
    blocks = [(_number(engine.get("num_gpu_blocks")), _number(engine.get("block_size"))) for engine in engines]
    products = [count * size for count, size in blocks if count and size]
    return sum(products) if products and len(products) == len(blocks) else None


def kv_cache_bytes(metrics: str, log: str = "") -> int | None:
    """Bytes set aside for them on one device: exact where vLLM was told how many, else from the log, which rounds to 0.01 GiB."""
    told = [_number(engine.get("kv_cache_memory_bytes")) for engine in _cache_config(metrics)]
    if told and told[0]:
        return told[0]
    said = _LOG_KV_GIB.search(log)
    return round(float(said[1]) * 2**30) if said else None


def _cache_config(metrics: str) -> list[dict[str, str]]:
    return [dict(_LABEL.findall(line)) for line in metrics.splitlines() if line.startswith("vllm:cache_config_info{")]


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdigit() else None
