import datetime
import decimal
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.quality import extraction as x
from perfbench.quality.schema import Schema
from perfbench.quality.scoring import Scored

EXPECTED = {"intent": "HassTurnOn", "slots": {"area": "kitchen", "level": 3}}
RIGHT = '{"slots": {"level": 3.0, "area": " kitchen "}, "intent": "HassTurnOn"}'
SCHEMA = Schema({"type": "object", "required": ["intent"], "properties": {"intent": {"enum": ["HassTurnOn", "HassTurnOff"]}}})

leaves = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False, width=32) | st.text(max_size=8)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8)
objects = st.dictionaries(st.text(max_size=4), values, max_size=4)


def score(output: str | None, expected: dict[str, Any] = EXPECTED, finish: str = "stop") -> Scored:
    return x.score(output, expected, SCHEMA, finish_reason=finish)


def test_the_right_answer_in_another_order_and_notation() -> None:
    scored = score(RIGHT)
    assert scored.passed
    assert scored.label == "correct answer"
    assert set(scored.scores.values()) == {1.0}


def test_a_fenced_answer_is_no_json_but_its_fields_count() -> None:
    scored = score(f"Here you are:\n```json\n{RIGHT}\n```")
    assert (scored.passed, scored.label) == (False, "wrong format")
    assert scored.scores == {
        "exact_match": 0, "json_validity": 0, "schema_validity": 0, "field_accuracy": 1, "field_precision": 1, "field_recall": 1, "field_f1": 1,
    }  # fmt: skip


def test_field_scores_by_hand() -> None:
    # Answered: intent right, area wrong, colour extra; level missing. 1 right of 4 paths, 3 answered, 3 expected.
    scored = score('{"intent": "HassTurnOn", "slots": {"area": "hall", "colour": "red"}}')
    assert scored.scores["field_accuracy"] == 1 / 4
    assert scored.scores["field_precision"] == 1 / 3
    assert scored.scores["field_recall"] == 1 / 3
    assert scored.scores["field_f1"] == pytest.approx(1 / 3)
    assert scored.scores["schema_validity"] == 1
    assert scored.scores["exact_match"] == 0


@pytest.mark.parametrize(
    ("output", "finish", "label"),
    [
        (None, "stop", "no answer"),
        ("", "stop", "too short"),
        ("Turn on the kitchen light", "stop", "ignored instruction"),
        ('["HassTurnOn"]', "stop", "ignored instruction"),
        ('{"intent": "HassTurnOn", "slots": {', "stop", "invalid JSON"),
        ('{"intent": "HassTurnOn", "slots": {', "length", "too verbose"),
        ("I'm sorry, but I can't do that.", "stop", "unsafe refusal"),
        ('{"intent": "HassTurnOn", "slots": {"area": "kitchen"}}', "stop", "incomplete answer"),
        ('{"intent": "HassTurnOn", "slots": {"area": "kitchen", "level": 3, "floor": 1}}', "stop", "hallucinated detail"),
        ('{"intent": "HassTurnOff", "slots": {"area": "kitchen", "level": 3}}', "stop", "wrong answer"),
        ('{"intent": "HassTurnOn", "slots": {"area": "Kitchen", "level": 3}}', "stop", "wrong answer"),
        ('{"intent": "HassTurnOn", "slots": {"area": "kitchen", "level": "3"}}', "stop", "wrong answer"),
        ('The answer is {"intent": "HassTurnOn", "slots": {"area": "kitchen", "level": 3}}.', "stop", "wrong format"),
    ],
)
def test_labels(output: str | None, finish: str, label: str) -> None:
    scored = score(output, finish=finish)
    assert scored.label == label
    assert not scored.passed
    assert scored.scores["exact_match"] == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}', '{"a": Infinity}', '{"a": 1, "a": 2}', '{"a": 1} {"b": 2}', "[" * 5000, '{"a":' * 5000, '{"a": ' + "9" * 5000 + "}",
        "[]", "3", '"{}"', "{'a': 1}",
    ],
)
def test_what_is_no_json_object(text: str) -> None:
    assert x.parse_object(text) is None
    x.read_answer(text)


def test_deep_nesting_within_json_does_not_break_the_score() -> None:
    deep = '{"a":' * 400 + "1" + "}" * 400
    assert x.parse_object(deep) is not None
    assert x.score(deep, {"a": 1}, SCHEMA, finish_reason="stop").label == "wrong answer"


def test_equality_is_json_equality() -> None:
    assert x.same_leaf(3, 3.0)
    assert x.same_leaf("caf\u00e9", "cafe\u0301 ")
    assert not x.same_leaf(1, True)
    assert not x.same_leaf(0, False)
    assert not x.same_leaf("3", 3)
    assert not x.same_leaf(None, "")
    assert not x.same_leaf([], {})


def test_flatten_by_hand() -> None:
    assert x.flatten({"a": {"b": [1, {"c": 2}]}, "d": [], "e": {}}) == {("a", "b", 0): 1, ("a", "b", 1, "c"): 2, ("d",): [], ("e",): {}}
    assert x.flatten({}) == {}
    assert x.flatten({"a": ["x"]}).keys() != x.flatten({"a": {"0": "x"}}).keys()


@given(objects)
def test_every_object_is_right_as_its_own_answer(value: dict[str, Any]) -> None:
    scored = x.score(json.dumps(value), value, None, finish_reason="stop")
    assert scored.passed
    assert set(scored.scores.values()) == {1.0}


@given(objects, objects)
def test_scores_are_shares_and_only_equal_objects_pass(left: dict[str, Any], right: dict[str, Any]) -> None:
    scored = x.score(json.dumps(left), right, None, finish_reason="stop")
    assert all(0 <= value <= 1 for value in scored.scores.values())
    assert scored.passed == (scored.label == "correct answer") == (scored.scores["exact_match"] == 1)
    assert x.score(json.dumps(right), left, None, finish_reason="stop").passed == scored.passed
    precision, recall, f1 = (scored.scores[f"field_{name}"] for name in ("precision", "recall", "f1"))
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall) if precision + recall else 0)


@given(st.text(max_size=200))
def test_no_text_breaks_the_score(text: str) -> None:
    x.score(text, EXPECTED, SCHEMA, finish_reason=None)
    x.score("{" + text, EXPECTED, SCHEMA, finish_reason=None)


@given(objects)
def test_flatten_keeps_every_leaf(value: dict[str, Any]) -> None:
    for path, leaf in x.flatten(value).items():
        here: Any = value
        for step in path:
            here = here[step]
        assert here == leaf
        assert not isinstance(leaf, (dict, list)) or not leaf


def test_expected_objects_of_parquet_become_json() -> None:
    held = {"day": datetime.date(2026, 1, 2), "price": decimal.Decimal("1.50"), "rooms": [{"n": 1}]}
    assert x.expected_object(held) == {"day": "2026-01-02", "price": 1.5, "rooms": [{"n": 1}]}
    with pytest.raises(ValueError, match="JSON has no NaN"):
        x.expected_object({"a": [float("nan")]})
    with pytest.raises(ValueError, match="expected an object that JSON can hold"):
        x.expected_object({"a": object()})
    assert x.expected_object('{"a": 99999999999999999999999}') == {"a": 99999999999999999999999}
