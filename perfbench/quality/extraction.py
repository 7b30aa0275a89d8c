"""Extraction: the answer is a JSON object.

Two readings of an answer. *Strict*: the whole answer, white space around it aside, is one JSON object (RFC 8259: no NaN, no
key twice). *Found*: else, the object in the only fenced block, else the first object that starts somewhere in the text.

| per-sample score | reading | rule |
|---|---|---|
| json_validity | strict | 1 if there is an object: a program that parses the answer as it stands goes on |
| exact_match | strict | 1 if the object equals the expected one |
| schema_validity | strict | 1 if the object meets the scenario's JSON Schema (only with one) |
| field_accuracy | found | right fields / fields in either object |
| field_precision, field_recall, field_f1 | found | right / answered, right / expected, their harmonic mean; nothing out of nothing is 1 |

So an object inside a fenced block is `wrong format` with json_validity 0 and exact_match 0, while its field scores still say
what the model knows. Equality: key order does not matter, list order does; 3 equals 3.0, true does not equal 1; strings are
compared after NFC and without the white space around them, case matters. A *field* is a leaf: `rooms[0].name`; an empty list or
object is a leaf too. Over all samples every score is a mean in which each sample weighs the same.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any

import msgspec

from perfbench.errors import Finding, ScenarioError
from perfbench.quality import labels as why
from perfbench.quality.refusals import refuses
from perfbench.quality.rows import HeldOutRows
from perfbench.quality.schema import Schema, read_schema
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.quality import Extraction

_FENCE = re.compile(r"```[A-Za-z0-9_-]*\s*\n?(?P<inside>.*?)```", re.DOTALL)
_MOST_STARTS = 50
"""An answer of nothing but braces would otherwise be parsed from each of them."""

FIELD_SCORES = ("field_accuracy", "field_precision", "field_recall", "field_f1")
Path = tuple[str | int, ...]


def scorer(task: Extraction, rows: HeldOutRows) -> Scorer:
    """Ready to score the rows. Raises ScenarioError for rows without an object, a schema that is none, and objects that do not meet it."""
    objects = rows.column(task.expected, "quality.task.expected", expected_object)
    try:
        schema = None if task.json_schema is None else read_schema(task.json_schema)
    except ValueError as error:
        raise ScenarioError("scenario", [Finding("quality.task.json_schema", str(error))]) from None
    if schema is not None:
        problems = [(number, problem) for number, value in objects.items() if (problem := schema.problem(value)) is not None]
        if problems:
            first = f"row {problems[0][0]}: {problems[0][1]}"
            text = f"{len(problems)} expected objects do not meet it, {first}; correct the data or the schema"
            raise ScenarioError("scenario", [Finding("quality.task.json_schema", text)])

    def score_row(row: int, answer: Answered) -> Scored:
        return score(answer.output, objects[row], schema, finish_reason=answer.finish_reason)

    return Scorer({number: msgspec.json.encode(value, order="sorted").decode() for number, value in objects.items()}, score_row)


class Reading(msgspec.Struct, frozen=True):
    """The object in an answer, and whether it was the whole answer."""

    value: dict[str, Any] | None
    strict: bool


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is, or None: no object, no JSON, a key twice, NaN, too deep or too long a number."""
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands there twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def read_answer(output: str) -> Reading:
    """The strict reading of an answer where there is one, else what is found in it."""
    whole = parse_object(output)
    if whole is not None:
        return Reading(whole, True)
    fenced = _FENCE.findall(output)
    inside = parse_object(fenced[0]) if len(fenced) == 1 else None
    return Reading(inside if inside is not None else _first_object(output), False)


def _first_object(output: str) -> dict[str, Any] | None:
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    for start in [match.start() for match in re.finditer(r"\{", output)][:_MOST_STARTS]:
        try:
            value, _ = decoder.raw_decode(output, start)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None


def flatten(value: dict[str, Any]) -> dict[Path, Any]:
    """Leaves by their path: {"a": {"b": [1, 2]}} is {("a", "b", 0): 1, ("a", "b", 1): 2}. Empty lists and objects are leaves."""
    leaves: dict[Path, Any] = {}
    left: list[tuple[Path, Any]] = [((key,), child) for key, child in value.items()]  # no recursion: an answer may be nested 900 deep
    while left:
        path, item = left.pop()
        if isinstance(item, dict) and item:
            left += [((*path, key), child) for key, child in item.items()]
        elif isinstance(item, list) and item:
            left += [((*path, index), child) for index, child in enumerate(item)]
        else:
            leaves[path] = item
    return leaves


def same_leaf(left: Any, right: Any) -> bool:
    """Equality of two leaves as JSON values; see the module's text."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, str) and isinstance(right, str):
        return unicodedata.normalize("NFC", left).strip() == unicodedata.normalize("NFC", right).strip()
    return bool(left == right)


def score(output: str | None, expected: dict[str, Any], schema: Schema | None, *, finish_reason: str | None) -> Scored:
    """Score one answer; `output` is None for a request that failed."""
    reading = Reading(None, False) if output is None else read_answer(output)
    wanted, answered = flatten(expected), {} if reading.value is None else flatten(reading.value)
    right = sum(path in answered and same_leaf(answered[path], leaf) for path, leaf in wanted.items())
    equal = reading.value is not None and right == len(wanted) == len(answered)
    exact = equal and reading.strict
    scores = {"exact_match": float(exact), "json_validity": float(reading.strict), **_field_scores(reading, wanted, answered, right)}
    if schema is not None:
        scores["schema_validity"] = float(reading.strict and schema.accepts(reading.value))
    if output is None:
        return Scored(scores=scores, passed=False, label=why.NO_ANSWER)
    label = why.CORRECT if exact else _why_wrong(output, reading, wanted, answered, finish_reason)
    return Scored(scores=scores, passed=exact, label=label)


def _field_scores(reading: Reading, wanted: dict[Path, Any], answered: dict[Path, Any], right: int) -> dict[str, float]:
    if reading.value is None:
        return dict.fromkeys(FIELD_SCORES, 0.0)
    if not wanted and not answered:
        return dict.fromkeys(FIELD_SCORES, 1.0)
    precision, recall = (right / len(fields) if fields else 0.0 for fields in (answered, wanted))
    values = (right / len(wanted.keys() | answered.keys()), precision, recall, 2 * right / (len(answered) + len(wanted)))
    return dict(zip(FIELD_SCORES, values, strict=True))


def _why_wrong(output: str, reading: Reading, wanted: dict[Path, Any], answered: dict[Path, Any], finish_reason: str | None) -> str:
    if not output.strip():
        return why.TOO_SHORT
    if reading.value is None:
        return _why_unread(output, finish_reason)
    if not reading.strict:
        return why.WRONG_FORMAT
    other = any(path in answered and not same_leaf(answered[path], leaf) for path, leaf in wanted.items())
    missing, extra = bool(wanted.keys() - answered.keys()), bool(answered.keys() - wanted.keys())
    if missing and not extra and not other:
        return why.INCOMPLETE
    if extra and not missing and not other:
        return why.HALLUCINATED
    return why.WRONG


def _why_unread(output: str, finish_reason: str | None) -> str:
    if finish_reason == "length":
        return why.TOO_VERBOSE
    if refuses(output):
        return why.UNSAFE_REFUSAL
    return why.INVALID_JSON if "{" in output else why.IGNORED


def expected_object(value: object) -> dict[str, Any]:
    """The expected column's value as an object: itself, or the object that its text is; ValueError for anything else."""
    found = parse_object(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object, or text that is one")
    if isinstance(value, str):
        return found
    if _holds_nan(value):
        raise ValueError("expected a JSON object, and JSON has no NaN or infinity")
    try:
        plain: dict[str, Any] = msgspec.json.decode(_AS_JSON.encode(value))  # Parquet has dates and decimals
    except (OverflowError, TypeError, RecursionError) as error:
        raise ValueError(f"expected an object that JSON can hold: {error}") from None
    return plain


_AS_JSON = msgspec.json.Encoder(decimal_format="number")


def _holds_nan(value: object) -> bool:
    if isinstance(value, dict):
        return any(_holds_nan(child) for child in value.values())
    if isinstance(value, list):
        return any(_holds_nan(child) for child in value)
    return isinstance(value, float) and not math.isfinite(value)
