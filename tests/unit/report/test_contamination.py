"""What is said of held-out samples that the training text holds: the rows themselves, and the scores with and without them."""

from __future__ import annotations

from typing import Any

import msgspec

from perfbench.records import Estimate, Summary
from perfbench.report import contamination


def match(sample: str, row: int, ratio: float | None = None) -> dict[str, Any]:
    return {"sample_id": sample, "text": f"text of {sample}\x1b[1m", "training_row": row, "training_text": "seen", "ratio": ratio}


def test_flagged_rows_are_listed_and_scores_stand_with_and_without_them(summary: Summary) -> None:
    found = {"samples": 40, "training_rows": 9, "exact": [match("a", 3)], "ngram": [], "fuzzy": [match(f"f{n}", n, 91.5) for n in range(120)]}
    variants = {}
    for name, variant in summary.variants.items():
        assert variant.quality is not None
        without = {"exact_match": Estimate(value=0.5, ci95_low=0.4, ci95_high=0.6)}
        variants[name] = msgspec.structs.replace(variant, quality=msgspec.structs.replace(variant.quality, without_contaminated=without))
    seen = msgspec.structs.replace(summary, contamination=found, variants=variants)
    assert contamination.contamination_note(seen) == (
        "40 held-out samples against 9 training rows: 1 equal one and is left out of the verdict, 0 share 13 words in a row with one, "
        "120 are alike to one (similarity of at least 90)."
    )
    table = contamination.contamination_table(seen)
    assert [cell.text for cell in table.rows[0]] == ["a", "equal", "—", "text of a␛[1m", "3", "seen"]
    assert (table.rows[1][1].text, table.rows[1][2].text, len(table.rows)) == ("alike", "91.5", 100)
    assert "21 more are in summary.json" in table.caption
    row = next(row for row in contamination.scores_table(seen).rows if row[0].text == "merged")
    assert [cell.text for cell in row] == ["merged", "exact_match", "80.0 %", "50.0 %", "1"]


def test_without_training_data_it_is_unknown_not_clean(summary: Summary) -> None:
    unknown = msgspec.structs.replace(summary, contamination=None)
    assert "is unknown: the scenario names no training data" in contamination.contamination_note(unknown)
    assert contamination.contamination_table(unknown).rows == contamination.scores_table(unknown).rows == ()
    unchecked = {name: msgspec.structs.replace(variant, quality=None) for name, variant in summary.variants.items()}
    assert contamination.contamination_note(msgspec.structs.replace(unknown, variants=unchecked)) == ""
