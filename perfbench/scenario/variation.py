"""A variant once more with something changed: what a sweep is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from perfbench.scenario.references import ModelRef
from perfbench.scenario.strict import Scalar, Strict

VariantName = Literal["base", "base+lora", "adapter", "merged"]
MergeDtype = Literal["float32", "bfloat16", "float16"]


def flag_name(key: str) -> str:
    """`max_model_len` -> `max-model-len`; what follows a dot is a field of a JSON argument and keeps its underscores."""
    flag, dot, field = key.lstrip("-").partition(".")
    return flag.replace("_", "-") + dot + field


def with_dashes(args: dict[str, Scalar]) -> dict[str, Scalar]:
    """vLLM's flags as vLLM writes them."""
    return {flag_name(key): item for key, item in args.items()}


class Variation(Strict):
    """A variant of its own name: another one with something changed. It is compared with the one that it is made of; variations whose servers would be equal
    share one."""

    of: VariantName
    """What it is made of. That variant need not be measured itself."""
    args: dict[str, Scalar] = {}
    """vLLM's flags on top of `serve.args`, for its server alone: `{max-lora-rank: 64}`."""
    adapter: ModelRef | None = None
    """of `base+lora`, `adapter`: another adapter of `models.base`, alone on its server, as one of another rank."""
    adapters_in_use: Annotated[int, Field(ge=1)] | None = None
    """of `adapter`: requests are spread over so many adapters only (`load.adapters`): `models.adapter`, then `models.adapters` in their order."""
    merge_dtype: MergeDtype | None = None
    """of `merged`: type of the merged weights, instead of `models.merge_dtype`."""

    @field_validator("args", mode="after")
    @classmethod
    def _with_dashes(cls, value: dict[str, Scalar]) -> dict[str, Scalar]:
        return with_dashes(value)
