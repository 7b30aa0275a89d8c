"""What stands by the quality table: weak metrics, metrics not run, what the judge took."""

from __future__ import annotations

import msgspec

from perfbench.records import JudgeSummary, Summary
from perfbench.report.evidence import quality_table


def test_the_notes_of_the_quality_table(summary: Summary) -> None:
    name, variant = next((name, variant) for name, variant in summary.variants.items() if variant.quality is not None)
    assert variant.quality is not None
    judge = JudgeSummary(model="big", verdicts=40, unread=2, prompt_tokens=12_000, output_tokens=900, inconsistent=0.125, kappa=0.61, kappa_n=20)
    quality = msgspec.structs.replace(
        variant.quality, warnings=["a weak metric decides alone: bleu"], not_run={"human_score": "no human labels have been imported"}, judge=judge
    )
    changed = msgspec.structs.replace(summary, variants={**summary.variants, name: msgspec.structs.replace(variant, quality=quality)})
    details = quality_table(changed).details
    assert "Warning: a weak metric decides alone: bleu." in details
    assert "Not run: human_score (no human labels have been imported)." in details
    assert "judged by big: 40 verdicts, 2 unread, 12,000 + 900 tokens, 12.5 % of pairs changed with the order, kappa with people 0.61 over 20 ans" in details


def test_what_is_not_known_of_the_judge_is_not_mentioned(summary: Summary) -> None:
    name, variant = next((name, variant) for name, variant in summary.variants.items() if variant.quality is not None)
    assert variant.quality is not None
    quality = msgspec.structs.replace(variant.quality, judge=JudgeSummary(model="big", verdicts=9, usd=0.25))
    changed = msgspec.structs.replace(summary, variants={name: msgspec.structs.replace(variant, quality=quality)})
    assert f"{name} was judged by big: 9 verdicts, 0 unread, cost 0.25 USD." in quality_table(changed).details
