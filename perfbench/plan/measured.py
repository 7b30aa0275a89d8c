"""How near a measured run came to what its GPUs can do at most: the roofline's bound over what was measured, for every closed-loop stage.

Only a closed loop says how many sequences ran together; a stage of N streams is held to the bound of N. Needs a GPU that is in the table, known by the
driver's name (manifest.hardware), and the model's sizes (manifest.models). A share is never above 1 unless the figures of the table are wrong.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perfbench.analyse.cost import gpus_per_server
from perfbench.plan.estimate import Setting, Weights, served
from perfbench.plan.gpus import gpus_of_run, known_gpus
from perfbench.plan.roofline import Served, tpot_bound_s, ttft_bound_s
from perfbench.records import Manifest, RooflineShare, Summary, TrialSummary, VariantSummary

_BY_TORCH: dict[str, Weights] = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}


def with_roofline(summary: Summary, manifest: Manifest) -> Summary:
    """The summary with the roofline's share in every variant that we served on a GPU of the table; as it is for all others."""
    found = gpus_of_run(manifest.hardware.get("gpus") or [], known_gpus())
    if found is None:
        return summary
    name, _ = found
    variants = {key: msgspec.structs.replace(variant, roofline=_shares(key, variant, manifest, name)) for key, variant in summary.variants.items()}
    return msgspec.structs.replace(summary, variants=variants)


def _shares(variant: str, measured: VariantSummary, manifest: Manifest, gpu: str) -> list[RooflineShare]:
    model = _served(variant, manifest, gpu)
    if model is None:
        return []
    streams = {stage["name"]: stage.get("concurrency") for stage in manifest.scenario["load"]["stages"] if stage["arrival"] == "closed"}
    found = []
    for stage, concurrency in streams.items():
        trials = [trial for trial in measured.trials if trial.stage == stage and trial.audit.verdict != "void"]
        share = _share(model, gpu, stage, concurrency or 1, trials)
        if share is not None:
            found.append(share)
    return found


def _share(model: Served, gpu: str, stage: str, streams: int, trials: list[TrialSummary]) -> RooflineShare | None:
    prompt, answer, ttft, tpot = (_mean(trials, metric) for metric in ("prompt_tokens", "output_tokens", "ttft_s", "tpot_s"))
    if prompt is None or answer is None or tpot is None:
        return None
    bound = tpot_bound_s(model, batch=streams, context_tokens=prompt + answer / 2)
    first = ttft_bound_s(model, prompt)
    return RooflineShare(
        gpu=gpu, gpus=model.devices, stage=stage, streams=streams, tpot_s=tpot, tpot_bound_s=bound, tpot_share=bound / tpot,
        ttft_s=ttft, ttft_bound_s=first, ttft_share=first / ttft if ttft else None,
    )  # fmt: skip


def _mean(trials: list[TrialSummary], metric: str) -> float | None:
    """Over all requests of the repeats."""
    found = [(one.mean, one.n) for trial in trials if (one := trial.metrics.get(metric)) is not None and one.mean is not None]
    requests = sum(n for _, n in found)
    return sum(mean * n for mean, n in found) / requests if requests else None


def _served(variant: str, manifest: Manifest, gpu: str) -> Served | None:
    """The variant's model as it was served; None for an endpoint, and where the model's sizes are not known."""
    variation = (manifest.scenario.get("variations") or {}).get(variant)
    if variation is None and variant not in (manifest.scenario.get("variants") or ()):
        return None
    kind = variation["of"] if variation is not None else variant
    models = manifest.models
    own = models.get(variant) if variation is not None else None
    info = own if own is not None and own.shape is not None else models.get("merged" if kind == "merged" else "base")
    if info is None or info.shape is None:
        return None
    args: dict[str, Any] = {**((manifest.scenario.get("serve") or {}).get("args") or {}), **((variation or {}).get("args") or {})}
    setting = Setting(weights=_BY_TORCH.get(str(args.get("dtype", "")), "auto"), kv="fp8" if str(args.get("kv-cache-dtype", "")).startswith("fp8") else "auto")
    adapter = own if own is not None and own.lora_rank is not None else models.get("adapter")
    parameters = adapter.parameters or 0 if kind == "adapter" and adapter is not None else 0
    # Data-parallel replicas have the weights each: a sequence runs on the tensor-parallel group.
    replicas = str(args.get("data-parallel-size", 1))
    devices = gpus_per_server(args) // (int(replicas) if replicas.isdigit() and int(replicas) else 1)
    return served(info.shape, known_gpus()[gpu], gpu, devices, setting, parameters)
