"""Do merged weights answer as base and adapter do? Speed alone would say nothing if they did not.

Three looks, from what matters to what explains it:

    task        the difference in the metric that decides, over the held-out samples, by two one-sided tests (TOST): the verdict. How many samples flip
                between passed and failed, with Wilson's interval: a difference of zero may hide as many lost as won.
    answers     the same prompts answered greedily, token by token: the share that differs at all, where the first difference is, and whether it was a
                near-tie, which any other order of additions would have turned.
    numbers     log-probabilities of the same token after the same tokens, which is every position before the first difference; after it the two read
                different texts, and nothing there is comparable.

Byte equality is no criterion: adapter and merged add in another order, and batches differ (vllm#5148, peft#1904). What the adapter's own answers differ
by when it is asked twice stands beside it, where the spot-check has asked the same greedily.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from perfbench.analyse.experiment import Experiment
from perfbench.records import Estimate, FidelitySummary, Manifest, QualityRecord, TokenAnswer
from perfbench.results import RunFolder
from perfbench.scenario.quality import Quality

ADAPTER = "adapter"
NEAR_TIE_NATS = 0.1
"""Two tokens this close are 52.5% to 47.5%: rounding in float16 or bfloat16 moves logits by as much (quality/reference.py has figures)."""


def fidelity(folder: RunFolder, manifest: Manifest, experiment: Experiment, quality: Mapping[str, Sequence[QualityRecord]]) -> list[FidelitySummary]:
    """One summary for each merged variant; empty where the run has no adapter or nothing merged, or asks no held-out samples."""
    if ADAPTER not in experiment.variants or experiment.quality is None:
        return []
    decoding = manifest.scenario.get("decoding") or {}
    left = folder.token_answers(ADAPTER)
    again = _again(left, quality.get(ADAPTER, [])) if not decoding.get("temperature") else None
    found = []
    for variant, dtype in merged_dtypes(manifest).items():
        by_task = _by_task(quality.get(ADAPTER, []), quality.get(variant, []), experiment.quality)
        by_token = _by_token(left, folder.token_answers(variant))
        parts = {**by_task, **by_token}
        missing = "; ".join(str(part["not_measured"]) for part in (by_task, by_token) if "not_measured" in part)
        told = {**parts, "left": ADAPTER, "right": variant, "dtype": dtype, "asked_again_differing": again, "not_measured": missing}
        found.append(msgspec.convert(told, FidelitySummary))
    return found


def merged_dtypes(manifest: Manifest) -> dict[str, str | None]:
    """Merged variant -> type of its weights; None where that is not known, as of an endpoint."""
    variations: Mapping[str, Mapping[str, object]] = manifest.scenario.get("variations") or {}
    names = [name for name in (*(manifest.scenario.get("variants") or ()), *(manifest.scenario.get("endpoints") or ())) if name == "merged"]
    names += [name for name, variation in variations.items() if variation.get("of") == "merged"]
    return {name: model.dtype if (model := manifest.models.get(name, manifest.models.get("merged"))) is not None else None for name in names}


def _by_task(left: Sequence[QualityRecord], right: Sequence[QualityRecord], quality: Quality | None) -> dict[str, object]:
    from perfbench.quality.equivalence import equivalent

    try:
        if quality is None or not left or not right:
            raise ValueError("no quality check of both")
        found = equivalent(left, right, quality)
    except ValueError as error:
        return {"verdict": "cannot tell", "reason": f"the task was not measured: {error}", "not_measured": f"task: {error}"}
    where = {"equal": "inside", "not equal": "outside of", "cannot tell": "across"}[found.verdict]
    interval = f"90% interval {found.low:+.3f} to {found.high:+.3f}"
    return {
        "verdict": found.verdict,
        "reason": f"{found.metric} differs by {found.difference:+.3f} ({interval}), {where} +-{found.margin:g}",
        "metric": found.metric, "margin": found.margin, "samples": found.n, "difference": found.difference, "ci90_low": found.low,
        "ci90_high": found.high, "n_to_decide": found.n_to_decide, "flip_rate": found.flip_rate,
    }  # fmt: skip


def _by_token(left: Sequence[TokenAnswer], right: Sequence[TokenAnswer]) -> dict[str, object]:
    by_id = {answer.prompt_id: answer for answer in left}
    pairs = [(by_id[answer.prompt_id], answer) for answer in right if answer.prompt_id in by_id]
    pairs = [(one, other) for one, other in pairs if one.token_ids and other.token_ids and one.prompt_sha256 == other.prompt_sha256]
    if not pairs:
        return {"not_measured": "tokens: no prompt was answered with tokens and log-probabilities by both"}
    places = [first_difference(one.token_ids, other.token_ids) for one, other in pairs]
    differing = [(one, other, place) for (one, other), place in zip(pairs, places, strict=True) if place is not None]
    shared = [len(one.token_ids) if place is None else place for (one, _), place in zip(pairs, places, strict=True)]
    drifts = [np.subtract(other.logprobs[:until], one.logprobs[:until]) for (one, other), until in zip(pairs, shared, strict=True)]
    drift = np.concatenate(drifts)
    return {
        "answers": len(pairs),
        "differing": _share(len(differing), len(pairs)),
        "first_differences": sorted(place for _, _, place in differing),
        "near_ties": sum(near_tie(one, other, place) for one, other, place in differing),
        "drift_tokens": len(drift),
        "drift_mean": float(drift.mean()) if len(drift) else None,
        "drift_mean_abs": float(np.abs(drift).mean()) if len(drift) else None,
        "drift_max_abs": float(np.abs(drift).max()) if len(drift) else None,
    }


def first_difference(left: Sequence[int], right: Sequence[int]) -> int | None:
    """Place of the first token that differs, from 0; where one answer ends inside the other, its length. None for equal answers."""
    for place, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return place
    return None if len(left) == len(right) else min(len(left), len(right))


def near_tie(left: TokenAnswer, right: TokenAnswer, place: int) -> bool:
    """Whether the right variant took what was the left one's second choice by less than NEAR_TIE_NATS."""
    if place >= len(left.token_ids) or place >= len(right.token_ids) or left.runner_up_ids[place] != right.token_ids[place]:
        return False
    second = left.runner_up_logprobs[place]
    return second is not None and left.logprobs[place] - second < NEAR_TIE_NATS


def _again(answers: Sequence[TokenAnswer], records: Sequence[QualityRecord]) -> Estimate | None:
    """How often one variant's two greedy answers to the same prompt differ; None where none was asked twice."""
    asked = {record.prompt_sha256: record.output for record in records if record.output is not None}
    both = [(answer.output, asked[answer.prompt_sha256]) for answer in answers if answer.output is not None and answer.prompt_sha256 in asked]
    return _share(sum(one != other for one, other in both), len(both)) if both else None


def _share(count: int, n: int) -> Estimate:
    from perfbench.quality.intervals import wilson

    low, high = wilson(count, n)
    return Estimate(value=count / n, ci95_low=low, ci95_high=high)
