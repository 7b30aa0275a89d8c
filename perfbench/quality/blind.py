"""Spot-checks by people who do not know which variant wrote what: a sheet to fill in, and its labels brought home.

    sheet    CSV with `key, prompt, expected, answer, score, stars, comment`: answers of all variants to some samples, in random order. Which key
             is which answer stands in the run folder alone. The same seed makes the same sheet.
    labels   `score` is right or wrong (yes, no, pass, fail), or a number from 0 to 1; or `stars` from 1 to 5. Rows without either are left out.

Agreement of people with the automatic verdict: the share of answers on which both say the same, and Cohen's kappa (Cohen 1960), which takes
off what chance alone would give. An answer counts as right from a score of 0.5.
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from perfbench.errors import InputError
from perfbench.prompts import readable
from perfbench.records import BlindKey, HumanLabel, HumanSummary, QualityRecord

COLUMNS = ("key", "prompt", "expected", "answer", "score", "stars", "comment")
RIGHT_FROM = 0.5
_WORDS = {"right": 1.0, "yes": 1.0, "pass": 1.0, "true": 1.0, "wrong": 0.0, "no": 0.0, "fail": 0.0, "false": 0.0}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def make_sheet(by_variant: Mapping[str, Sequence[QualityRecord]], *, samples: int, seed: int) -> tuple[str, BlindKey]:
    """The sheet as CSV text, and its key. Raises InputError where no variant has answered anything."""
    ids = list(dict.fromkeys(record.sample_id for records in by_variant.values() for record in records))
    if not ids:
        raise InputError("this run has no checked samples to look at")
    generator = random.Random(seed)
    taken = set(generator.sample(ids, min(samples, len(ids))))
    rows = [record for records in by_variant.values() for record in records if record.sample_id in taken and record.output is not None]
    generator.shuffle(rows)
    told = msgspec.json.encode([seed, [[record.sample_id, record.variant, record.output] for record in rows]])
    sheet = hashlib.sha256(told).hexdigest()[:8]
    key = BlindKey(sheet=sheet, seed=seed, rows={f"{sheet}-{number:03}": [record.sample_id, record.variant] for number, record in enumerate(rows, 1)})
    written = io.StringIO(newline="")
    table = csv.writer(written)
    table.writerow(COLUMNS)
    for name, record in zip(key.rows, rows, strict=True):
        table.writerow([name, *(_cell(text) for text in (readable(record.prompt), record.expected, record.output or "")), "", "", ""])
    return written.getvalue(), key


def _cell(text: str) -> str:
    """A spreadsheet would carry out what begins like a formula, and models write such things."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def read_sheet(path: Path, keys: Mapping[str, BlindKey], by: str) -> list[HumanLabel]:
    """The labels of a filled-in sheet. Raises InputError that names the row for a key or a score that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8; a spreadsheet saves it as `CSV UTF-8`"
        raise InputError(f"{path} cannot be read ({why}); expected the CSV file that `perfbench samples --blind` wrote, filled in") from None
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    if "key" not in (reader.fieldnames or ()) or not {"score", "stars"} & set(reader.fieldnames or ()):
        raise InputError(f"{path} has no columns `key` and `score`; expected the CSV file that `perfbench samples --blind` wrote, filled in")
    labels: list[HumanLabel] = []
    seen: dict[str, tuple[int, float]] = {}
    try:
        for number, row in enumerate(reader, 2):
            score = _score(row.get("score") or "", row.get("stars") or "", f"{path}, row {number}")
            if score is None:
                continue
            name = (row["key"] or "").strip()
            key = keys.get(name.partition("-")[0])
            if key is None or name not in key.rows:
                raise InputError(f"{path}, row {number}: the key `{name}` is of no sheet of this run; import it into the run that it was exported from")
            first, before = seen.setdefault(name, (number, score))
            if before != score:
                raise InputError(f"{path}, row {number}: the key `{name}` stands in row {first} too, with another score; keep one of them")
            sample_id, variant = key.rows[name]
            labels.append(HumanLabel(sample_id=sample_id, variant=variant, score=score, comment=row.get("comment") or "", by=by))
    except csv.Error as error:
        raise InputError(f"{path} is no CSV: {error}") from None
    if not labels:
        raise InputError(f"{path} has no row with a `score` or `stars`; fill it in first")
    return labels


def _score(score: str, stars: str, where: str) -> float | None:
    word = score.strip().casefold().replace(",", ".")
    if word and stars.strip():
        raise InputError(f"{where} has both a `score` and `stars`; leave one of them empty")
    if word in _WORDS:
        return _WORDS[word]
    try:
        if word:
            value = float(word)
        elif stars.strip():
            value = (float(stars) - 1) / 4
        else:
            return None
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(f"{where}: expected `score` right, wrong or a number from 0 to 1, or `stars` from 1 to 5, not `{score.strip() or stars.strip()}`")
    return value


def merged(known: Sequence[HumanLabel], new: Sequence[HumanLabel]) -> list[HumanLabel]:
    """All labels; what a person says again about the same answer replaces what they said before."""
    by_answer = {(label.sample_id, label.variant, label.by): label for label in [*known, *new]}
    return list(by_answer.values())


def human_summary(records: Sequence[QualityRecord], labels: Sequence[HumanLabel]) -> HumanSummary | None:
    """What people say of one variant, and how far they agree with the automatic verdict; None where nobody has said anything."""
    verdicts = {record.sample_id: record.passed for record in records}
    variant = records[0].variant if records else None
    mine = [label for label in labels if label.variant == variant and label.sample_id in verdicts]
    if not mine:
        return None
    pairs = [(bool(verdicts[label.sample_id]), label.score >= RIGHT_FROM) for label in mine if verdicts[label.sample_id] is not None]
    return HumanSummary(
        n=len(mine),
        people=len({label.by for label in mine}),
        mean_score=sum(label.score for label in mine) / len(mine),
        agreement=sum(automatic == person for automatic, person in pairs) / len(pairs) if pairs else None,
        kappa=cohens_kappa(pairs),
    )


def cohens_kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """(observed - expected agreement) / (1 - expected); None where nothing or only one word is said by both, so that chance explains all."""
    n = len(pairs)
    if n == 0:
        return None
    observed = sum(left == right for left, right in pairs) / n
    left, right = (sum(pair[side] for pair in pairs) / n for side in (0, 1))
    expected = left * right + (1 - left) * (1 - right)
    return None if expected == 1 else (observed - expected) / (1 - expected)
