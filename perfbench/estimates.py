"""From a scenario, or a model's config alone, to an estimate for every variant on every GPU asked for: nothing is started, downloaded or loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from perfbench.errors import InputError
from perfbench.models.cached import config_folder, shape_of_model, shape_of_path
from perfbench.models.inspect import inspect_adapter
from perfbench.plan.estimate import Estimated, KvType, Lora, Setting, Weights, assumptions, estimate
from perfbench.plan.gpus import Gpu
from perfbench.records import ModelShape
from perfbench.variants import VLLM_MAX_LORA_RANKS

if TYPE_CHECKING:
    from perfbench.scenario import Scenario

_BY_TORCH: dict[str, Weights] = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}


class EstimateReport(msgspec.Struct, frozen=True, kw_only=True):
    """All estimates, and what they rest on."""

    model: str
    parameters: int
    active_parameters: int
    """That one token is multiplied with."""
    input_tokens: float
    """Mean of the workload's prompts."""
    output_tokens: float
    lengths_from: str
    weights: str
    kv_dtype: str
    gpu_memory_utilization: float
    gpus: dict[str, dict[str, Any]]
    """Figures of each GPU, with their source."""
    estimates: list[Estimated]
    assumptions: list[str]


@dataclass(frozen=True)
class Wanted:
    """What the command line says."""

    gpus: Sequence[tuple[str, Gpu]]
    counts: Sequence[int]
    """() for what the scenario's parallel flags say."""
    weights: str | None = None
    kv: str | None = None
    model: Path | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


def estimate_all(scenario: Scenario | None, wanted: Wanted) -> EstimateReport:
    """Every variant on every GPU and count. Raises InputError for what is missing or unknown, naming the flag."""
    args = scenario.serve.args if scenario is not None else {}
    shapes = _shapes(scenario, wanted.model)
    setting = _setting(args, wanted)
    lengths, source = _lengths(scenario, wanted)
    lora = _lora(scenario) if scenario is not None else None
    counts = wanted.counts or (_number(args, "tensor-parallel-size") or 1,)
    found = [
        estimate(shape, name, gpu, count, variant=variant, setting=setting, lengths=lengths, lora=lora if variant in ("base+lora", "adapter") else None)
        for name, gpu in wanted.gpus for count in counts for variant, shape in shapes.items()
    ]  # fmt: skip
    shape = next(iter(shapes.values()))
    prompt, answer = (sum(values) / len(lengths) for values in zip(*lengths, strict=True))
    return EstimateReport(
        model=shape.model_type, parameters=shape.parameters, active_parameters=shape.active_parameters, input_tokens=prompt, output_tokens=answer,
        lengths_from=source, weights=setting.weights, kv_dtype=setting.kv, gpu_memory_utilization=setting.memory_utilization,
        gpus={name: gpu.model_dump(mode="json", exclude={"aliases", "nvml"}) for name, gpu in wanted.gpus}, estimates=found, assumptions=assumptions(shape),
    )  # fmt: skip


def _shapes(scenario: Scenario | None, model: Path | None) -> dict[str, ModelShape]:
    """Variant -> the sizes of its model. A merge keeps its base's."""
    variants = scenario.variants if scenario is not None else ()
    if model is not None:
        return dict.fromkeys(variants or ("base",), shape_of_path(model))
    if scenario is None or not variants:
        raise InputError("expected a scenario with models of its own, or --model with a folder or a config.json: the model behind an endpoint is not known")
    models = scenario.models
    by_variant = {variant: models.merged if variant == "merged" and models.merged is not None else models.base or models.merged for variant in variants}
    return {variant: shape_of_model(ref) for variant, ref in by_variant.items() if ref is not None}


def _setting(args: dict[str, Any], wanted: Wanted) -> Setting:
    utilization = args.get("gpu-memory-utilization")
    given = {"memory_utilization": float(utilization)} if isinstance(utilization, int | float) else {}
    weights = _choice(wanted.weights, get_args(Weights), "--weights") if wanted.weights is not None else _BY_TORCH.get(str(args.get("dtype", "")), "auto")
    cache = str(args.get("kv-cache-dtype", "auto"))
    kv: KvType = "fp8" if cache.startswith("fp8") else "auto"
    if wanted.kv is not None:
        kv = _choice(wanted.kv, get_args(KvType), "--kv-dtype")
    return Setting(weights=weights, kv=kv, max_model_len=_number(args, "max-model-len"), max_num_seqs=_number(args, "max-num-seqs"), **given)


def _choice(given: str, known: Sequence[str], flag: str) -> Any:
    if given not in known:
        raise InputError(f"{flag}: `{given}` is not known; expected one of {', '.join(known)}")
    return given


def _number(args: dict[str, Any], flag: str) -> int | None:
    given = str(args.get(flag, ""))
    return int(given) if given.isdecimal() and int(given) else None


def _lengths(scenario: Scenario | None, wanted: Wanted) -> tuple[Sequence[tuple[int, int]], str]:
    if wanted.input_tokens is not None and wanted.output_tokens is not None:
        return [(wanted.input_tokens, wanted.output_tokens)], "--input-tokens and --output-tokens"
    if scenario is None:
        raise InputError("without a scenario the workload is not known; give --input-tokens and --output-tokens")
    from perfbench.workload.expected import expected_lengths

    found = expected_lengths(scenario)
    pairs = [(wanted.input_tokens or prompt, wanted.output_tokens or answer) for prompt, answer in found.pairs]
    given = [flag for flag, value in (("--input-tokens", wanted.input_tokens), ("--output-tokens", wanted.output_tokens)) if value is not None]
    return pairs, ", ".join([found.source, *given])


def _lora(scenario: Scenario) -> Lora | None:
    """The slots that the scenario's LoRA server reserves; None where no variant has LoRA."""
    models, args = scenario.models, scenario.serve.args
    if models.adapter is None or not {"base+lora", "adapter"} & set(scenario.variants):
        return None
    infos = [inspect_adapter(config_folder(ref, "adapter_config.json")) for ref in (models.adapter, *models.adapters.values())]
    rank = max((info.lora_rank or 0 for info in infos), default=0)
    sufficient = next((allowed for allowed in VLLM_MAX_LORA_RANKS if allowed >= rank), VLLM_MAX_LORA_RANKS[-1])
    return Lora(
        max_loras=_number(args, "max-loras") or 1,
        max_rank=_number(args, "max-lora-rank") or sufficient,
        adapter_parameters=infos[0].parameters or 0,
    )
