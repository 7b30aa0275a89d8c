"""Whether variants were asked the same thing. Pure. Without that a difference says nothing about the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfbench.prompts import RenderedPrompt, hash_all, sha256_of
from perfbench.records import QualityRecord, QualitySummary
from perfbench.scenario.model import Decoding, Prompt


def asked_hashes(prompts: Sequence[RenderedPrompt], prompt: Prompt, decoding: Decoding, max_tokens: int) -> dict[str, str]:
    """sha256 of the prompts as rendered, of the template, of the decoding settings and of the seed: the same for every variant of a run."""
    return {
        "quality_prompts": hash_all(prompts),
        "quality_template": sha256_of(prompt.model_dump(mode="json")),
        "quality_decoding": sha256_of({**decoding.model_dump(mode="json", exclude={"seed"}), "max_tokens": max_tokens}),
        "quality_seed": sha256_of(decoding.seed),
    }


def check_same_asked(records_by_variant: Mapping[str, Sequence[QualityRecord]]) -> list[str]:
    """One sentence for each variant that was asked something else than the first one; empty where the comparison is fair."""
    names = list(records_by_variant)
    findings = []
    for name in names[1:]:
        problem = not_comparable(records_by_variant[names[0]], records_by_variant[name])
        if problem is not None:
            findings.append(f"variant `{name}` is not comparable with `{names[0]}`: {problem}")
    return findings


def not_comparable(left: Sequence[QualityRecord], right: Sequence[QualityRecord]) -> str | None:
    """Why two sets of records cannot be paired, or None: other samples, prompts, expected answers, template, decoding or seed."""
    asked = [{record.sample_id: (record.prompt_sha256, record.expected) for record in records} for records in (left, right)]
    if asked[0].keys() != asked[1].keys():
        return f"{len(asked[0].keys() ^ asked[1].keys())} samples were put to one of them only"
    other = [sample for sample, what in asked[0].items() if asked[1][sample] != what]
    if other:
        return f"{len(other)} samples had another prompt or expected answer, the first is `{other[0]}`"
    for what, told in (("template_sha256", "another prompt template"), ("decoding_sha256", "other decoding settings"), ("seed", "another seed")):
        if {getattr(record, what) for record in left} != {getattr(record, what) for record in right}:
            return f"they were asked with {told}"
    return None


def computed_otherwise(left: QualitySummary | None, right: QualitySummary | None, metric: str) -> str | None:
    """Why a model's metric (BERTScore, COMET) cannot be compared over two runs, or None: another model, layer or baseline; folder and version aside."""
    told = ["" if one is None else one.signatures.get(metric, "").partition(", sha256 ")[2].rpartition(", ")[0] for one in (left, right)]
    return None if told[0] == told[1] else f"it was computed by other models (sha256 {told[0] or 'unknown'}; {told[1] or 'unknown'})"
