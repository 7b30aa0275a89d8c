"""Which metrics may decide a task, which of them only support, and what the keys of a quality block must be together. Pure data and checks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from perfbench.errors import Finding

REFUSED = "refused_when_due"
"""Share of the samples that must be refused and were: a metric of every task whose block names `must_refuse`."""

QUALITY_METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1", "micro_f1", "macro_precision", "macro_recall", "micro_precision", "micro_recall"),
    "extraction": ("exact_match", "json_validity", "schema_validity", "field_accuracy", "field_f1", "field_precision", "field_recall"),
    "qa": ("exact_match", "token_f1", "token_precision", "token_recall", "contains", "fuzzy"),
    "domain_qa": ("fact_recall", "answer_correctness", "token_f1"),
    "summarisation": ("coverage", "faithfulness", "rouge1", "rouge2", "rouge_l", "length_ok", "bertscore"),
    "translation": ("chrf", "bleu", "sentence_chrf", "bertscore", "comet"),
    "chat": ("rubric_score", "win_rate", "human_score"),
    "instructions": ("prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose"),
    "coding": ("tests_pass", "pass_at_1", "test_share", "visible_pass"),
    "rag": ("contains", "answer_correctness", "faithfulness", "token_f1", "quotes_supported", "citation_precision", "citation_recall"),
}
"""Metrics that may decide, by task; the first is the default. Coding has `pass_at_K` too, with the block's `k`."""

JUDGED = ("rubric_score", "win_rate", "answer_correctness", "faithfulness")
"""Metrics that a judge gives; not run without one."""

WEAK: dict[str, str] = {
    "rouge1": "counts words in common with one reference; a summary can share them and say the opposite",
    "rouge2": "counts pairs of words in common with one reference; a summary can share them and say the opposite",
    "rouge_l": "counts words in the same order as one reference; a summary can share them and say the opposite",
    "bleu": "counts words in common with the reference and hardly notices a wrong name or number",
    "bertscore": "measures how alike the words are in their contexts and hardly notices a wrong name, a wrong number or a `not`",
    "comet": "is a model's opinion, which hardly notices a wrong name or number (Amrhein and Sennrich 2022)",
    "json_validity": "says that the answer can be parsed, not that it is right",
    "schema_validity": "says that the answer has the right form, not that it is right",
    "token_f1": "counts words in common with the right answer, wrong ones weigh little",
    "token_precision": "counts words in common with the right answer; one right word is enough",
    "token_recall": "counts words in common with the right answer, whatever else is said",
    "fuzzy": "measures how alike the letters are, not what they say",
    "length_ok": "says nothing of what the summary says",
    "micro_precision": "is high for a model that answers seldom",
    "citation_precision": "says which passages are named, not whether the answer is right",
    "citation_recall": "says which passages are named, not whether the answer is right",
    "quotes_supported": "says that the quotes are real, not that the answer is right",
    "instruction_loose": "forgives what the loose reading strips, and single constraints of a prompt",
    "visible_pass": "counts tests that the prompt shows; code can be written to pass them and nothing else",
    "test_share": "counts single tests; a program that fails one of ten is wrong",
    "win_rate": "says which answer a judge prefers, and judges prefer long and confident ones",
}
"""Metrics that mislead when they decide alone, each with the reason."""

_NEEDS = {
    "schema_validity": "json_schema",
    "coverage": "key_points",
    "length_ok": "max_words",
    "visible_pass": "visible_tests",
    "bertscore": "bertscore",
    "comet": "comet",
}
"""Metric -> the key of its task without which there is none."""
_OF_RETRIEVAL = ("context_recall", "context_precision")
_DEPLOYMENT = re.compile(
    r"(ttft|tpot|ntpot|itl|icl|e2e|latency|throughput|goodput|requests_per|output_tokens|tokens_per|usd|cost|vram|host_rss|kv_|energy|memory|power|qps"
    r"|prompt_tokens|send_lag|failed_share|gpus|server_hour|workload_sequences|(lora|rest|weights)_bytes)",
    re.IGNORECASE,
)


def quality_findings(scenario: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with the metrics of a scenario's quality block."""
    quality = _mapping(scenario.get("quality"))
    task = _mapping(quality.get("task"))
    kind = task.get("task")
    if not isinstance(kind, str) or kind not in QUALITY_METRICS:
        return
    if isinstance(task.get("samples"), int) and task["samples"] > 1 and not _mapping(scenario.get("decoding")).get("temperature"):
        yield Finding("quality.task.samples", "greedy answers are all the same; set `decoding.temperature` above 0, or ask once")
    yield from _under_load(scenario, quality)
    gates = quality.get("metrics") if isinstance(quality.get("metrics"), (list, tuple)) else []
    if gates and quality.get("metric") is not None:
        yield Finding("quality.metric", "`metrics` is given too; give one of the two")
    named = [("quality.metric", quality.get("metric"))] if quality.get("metric") is not None else []
    named += [(f"quality.metrics[{number}]", _mapping(gate).get("metric", gate)) for number, gate in enumerate(gates or ())]
    seen: set[str] = set()
    for key, metric in named or [("quality.metric", QUALITY_METRICS[kind][0])]:
        if not isinstance(metric, str):
            continue
        problem = _problem(metric, kind, task, quality, given=bool(named)) or ("stands there twice; name each metric once" if metric in seen else None)
        seen.add(metric)
        if problem is not None:
            yield Finding(key, problem)


def _under_load(scenario: Mapping[str, Any], quality: Mapping[str, Any]) -> Iterator[Finding]:
    if quality.get("under_load") is None:
        return
    load, most = _mapping(scenario.get("load")), quality.get("max_tokens", 256)
    if load.get("data") is None or load.get("conversation") is not None:
        yield Finding("quality.under_load", "needs single prompts with expected answers; give `load.data`, without `conversation`")
    stages = [_mapping(stage) for stage in load.get("stages") or () if isinstance(load.get("stages"), (list, tuple))]
    if not any(_mapping(stage.get("output")).get("max_tokens") == most and stage.get("response_format") is None for stage in stages):
        yield Finding("quality.under_load", f"no stage asks as the check does; give one `output: {{max_tokens: {most}}}`, as `quality.max_tokens`")


def _problem(metric: str, kind: str, task: Mapping[str, Any], quality: Mapping[str, Any], *, given: bool) -> str | None:
    known = QUALITY_METRICS[kind]
    if kind == "coding":
        known = tuple(dict.fromkeys((*known, f"pass_at_{task.get('k') or 1}")))
    if metric == REFUSED:
        return None if quality.get("must_refuse") is not None else f"`{metric}` needs `quality.must_refuse`, the column that says which samples these are"
    if metric in known:
        need = _NEEDS.get(metric)
        if need is None or task.get(need) is not None or (metric == "length_ok" and task.get("min_words") is not None):
            return None
        return f"`{metric}` needs `quality.task.{need}`{'' if given else '; add it, or choose another metric: ' + ', '.join(known[1:])}"
    expected = f"expected one of {', '.join(known)}"
    if _DEPLOYMENT.match(metric):
        told = f"`{metric}` says how fast or dear an answer is, not whether it is right: deployment metrics are never quality"
        return f"{told}; put its limit into `slo`; here {expected}"
    if metric in _OF_RETRIEVAL:
        return f"`{metric}` says what the retrieval brought, which is the same for every variant, so it decides nothing; {expected}"
    return f"`{metric}` does not fit task `{kind}`; {expected}"


def quality_warnings(quality: Mapping[str, Any]) -> list[str]:
    """What weakens a verdict before anything has run: a weak metric that decides alone. Takes the block as it stands in a scenario."""
    kind = str(_mapping(quality.get("task")).get("task"))
    gates = [str(_mapping(gate).get("metric", gate)) for gate in quality.get("metrics") or ()]
    deciding = gates or [str(quality.get("metric") or QUALITY_METRICS[kind][0])]
    if any(metric not in WEAK for metric in deciding):
        return []
    told = "; ".join(f"{metric} {WEAK[metric]}" for metric in deciding)
    better = [metric for metric in QUALITY_METRICS[kind] if metric not in WEAK]
    return [f"a weak metric decides alone: {told}. Decide by {' or '.join(better)}, or add one to `quality.metrics`"]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
