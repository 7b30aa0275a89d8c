"""What is marked in an answer, by hand and by property: the answer stays readable in its pieces."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.records import QualityRecord
from perfbench.report.marks import Piece, held_against, pieces


@pytest.mark.parametrize(
    ("answer", "against", "marked"),
    [
        ("the red lamp is on", "the blue lamp is on", [("red", "only here"), ("blue", "missing")]),
        ("turn it off", "turn it off now", [(" now", "missing")]),
        ("same", "same", []),
        ("anything", "", []),
        ("", "missing", []),
        ("completely other words here", "x y z", [("completely other words here", "only here")]),
        ('{"b": 2, "a": 1}', '{"a":1,"b":2}', []),  # another order of keys is no difference
        ('{"a": 3, "b": 2}', '{"a":1,"b":2}', [("3", "only here")]),
    ],
)
def test_differences_by_hand(answer: str, against: str, marked: list[tuple[str, str]]) -> None:
    assert [(piece.text, piece.kind) for piece in pieces(answer, against) if piece.kind != "same"] == marked


@given(st.text(max_size=80), st.text(max_size=80))
def test_what_is_not_missing_is_the_answer(answer: str, against: str) -> None:
    found = pieces(answer, against)
    assert "".join(piece.text for piece in found if piece.kind != "missing") == answer
    assert all(piece.text for piece in found)


def test_very_long_texts_are_shown_unmarked() -> None:
    long = "word " * 3000
    assert pieces(long, "word") == (Piece(long, "same"),)


@pytest.mark.parametrize(
    ("expected", "more", "against"),
    [
        ("Paris", {}, "Paris"),
        ('["four euros", "4 euros"]', {}, "4 euros"),  # the right answer that is most like it
        ("[1, 2", {}, "[1, 2"),
        ('[{"kind":"uppercase"}]', {}, ""),  # what a program looks for is no answer
        ("(must be refused)", {"must_refuse": True}, ""),
        ("Names two ways.", {"scores": {"rubric_score": 0.5, "win_rate": 1.0}}, ""),
        ("Names two ways.", {"scores": {}, "label": "not judged"}, ""),
    ],
)
def test_what_an_answer_is_held_against(expected: str, more: dict[str, Any], against: str) -> None:
    record = QualityRecord(
        **{"sample_id": "s", "variant": "base", "prompt": "", "prompt_sha256": "", "expected": expected, "output": "It costs 4 euros.", "passed": False}
        | {"label": "wrong answer", "scores": {"exact_match": 0.0}} | more
    )  # fmt: skip
    assert held_against(record) == against
