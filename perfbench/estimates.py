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
    from perfbench.scenario.references import ModelRef

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


@dataclass(frozen=True)
class _Served:
    """One variant or variation as its server would be started."""

    name: str
    shape: ModelShape
    args: dict[str, Any]
    lora: Lora | None
    merge_dtype: str | None = None
    """Of a variation that merges in a type of its own."""


def estimate_all(scenario: Scenario | None, wanted: Wanted) -> EstimateReport:
    """Every variant and variation on every GPU and count. Raises InputError for what is missing or unknown, naming the flag."""
    every = _every(scenario, wanted.model)
    setting = _setting(scenario.serve.args if scenario is not None else {}, wanted)
    lengths, source = _lengths(scenario, wanted)
    found = [
        estimate(one.shape, name, gpu, count, variant=one.name, setting=_setting(one.args, wanted, one.merge_dtype), lengths=lengths, lora=one.lora)
        for name, gpu in wanted.gpus for one, count in _counted(every, wanted)
    ]  # fmt: skip
    shape = every[0].shape
    prompt, answer = (sum(values) / len(lengths) for values in zip(*lengths, strict=True))
    return EstimateReport(
        model=shape.model_type, parameters=shape.parameters, active_parameters=shape.active_parameters, input_tokens=prompt, output_tokens=answer,
        lengths_from=source, weights=setting.weights, kv_dtype=setting.kv, gpu_memory_utilization=setting.memory_utilization,
        gpus={name: gpu.model_dump(mode="json", exclude={"aliases", "nvml"}) for name, gpu in wanted.gpus}, estimates=found,
        assumptions=[*assumptions(shape), *(_variation_lines(scenario) if scenario is not None else [])],
    )  # fmt: skip


def _counted(every: Sequence[_Served], wanted: Wanted) -> list[tuple[_Served, int]]:
    """Each with the counts of GPUs that were asked for, else with that of its flags."""
    if wanted.counts:
        return [(one, count) for count in wanted.counts for one in every]
    return [(one, _number(one.args, "tensor-parallel-size") or 1) for one in every]


def _every(scenario: Scenario | None, model: Path | None) -> list[_Served]:
    """What the scenario would serve of its own. A merge keeps its base's sizes, and so does a variation those of what it is made of."""
    shapes = _shapes(scenario, model)
    if scenario is None or not scenario.kinds:
        return [_Served(variant, shape, {}, None) for variant, shape in shapes.items()]
    found = []
    for name, kind in scenario.kinds.items():
        variation = scenario.variations.get(name)
        args = {**scenario.serve.args, **(variation.args if variation is not None else {})}
        own = variation.adapter if variation is not None else None
        lora = _lora(scenario, args, own) if kind in ("base+lora", "adapter") else None
        found.append(_Served(name, shapes[kind], args, lora, variation.merge_dtype if variation is not None else None))
    return found


def _variation_lines(scenario: Scenario) -> list[str]:
    """What each variation changes, in a sentence."""
    found = []
    for name, variation in scenario.variations.items():
        changed = [f"{flag} {value}" for flag, value in variation.args.items()]
        changed += [f"adapter {variation.adapter.hub or variation.adapter.path}"] if variation.adapter is not None else []
        changed += [f"adapters in use: {variation.adapters_in_use}"] if variation.adapters_in_use is not None else []
        changed += [f"weights in {variation.merge_dtype}"] if variation.merge_dtype is not None else []
        found.append(f"{name} is {variation.of}" + (f" with {', '.join(changed)}." if changed else " as it is."))
    return found


def _shapes(scenario: Scenario | None, model: Path | None) -> dict[str, ModelShape]:
    """Way of serving -> the sizes of its model."""
    kinds = tuple(dict.fromkeys(scenario.kinds.values())) if scenario is not None else ()
    if model is not None:
        return dict.fromkeys(kinds or ("base",), shape_of_path(model))
    if scenario is None or not kinds:
        raise InputError("expected a scenario with models of its own, or --model with a folder or a config.json: the model behind an endpoint is not known")
    models = scenario.models
    by_kind = {kind: models.merged if kind == "merged" and models.merged is not None else models.base or models.merged for kind in kinds}
    return {kind: shape_of_model(ref) for kind, ref in by_kind.items() if ref is not None}


def _setting(args: dict[str, Any], wanted: Wanted, merge_dtype: str | None = None) -> Setting:
    utilization = args.get("gpu-memory-utilization")
    given = {"memory_utilization": float(utilization)} if isinstance(utilization, int | float) else {}
    weights = _BY_TORCH.get(str(args.get("dtype", merge_dtype or "")), "auto")
    if wanted.weights is not None:
        weights = _choice(wanted.weights, get_args(Weights), "--weights")
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


def _lora(scenario: Scenario, args: dict[str, Any], own: ModelRef | None) -> Lora | None:
    """The slots that a LoRA server reserves; `own` is the adapter of a variation, alone on its server. None without an adapter."""
    models = scenario.models
    first = own or models.adapter
    if first is None:
        return None
    infos = [inspect_adapter(config_folder(ref, "adapter_config.json")) for ref in ((first,) if own else (first, *models.adapters.values()))]
    rank = max((info.lora_rank or 0 for info in infos), default=0)
    sufficient = next((allowed for allowed in VLLM_MAX_LORA_RANKS if allowed >= rank), VLLM_MAX_LORA_RANKS[-1])
    return Lora(
        max_loras=_number(args, "max-loras") or 1,
        max_rank=_number(args, "max-lora-rank") or sufficient,
        adapter_parameters=infos[0].parameters or 0,
    )
