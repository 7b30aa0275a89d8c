"""SQuAD's normalisation and scores: published examples (SQuAD 1.1 dev, Super Bowl 50) and counts made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.quality import qa

WHERE = ["Santa Clara, California", "Levi's Stadium", "Levi's Stadium in the San Francisco Bay Area at Santa Clara, California."]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Denver Broncos!", "denver broncos"),
        ("Levi's Stadium", "levis stadium"),
        ("  an  apple a day ", "apple day"),
        ("theatre", "theatre"),
        ("24\u201310", "24\u201310"),  # a dash outside ASCII is no punctuation in the published script
        ("the", ""),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert qa.normalise(text) == normal


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "f1"),
    [
        ("Denver Broncos", ["Denver Broncos"], 1, 1.0),
        ("the Denver Broncos.", ["Denver Broncos"], 1, 1.0),
        ("Levis Stadium", WHERE, 1, 1.0),
        ("Santa Clara", WHERE, 0, 2 * 2 / (2 + 3)),  # best of 0.8 against the first, 0 against the second, 4/14 against the third
        ("It was the Denver Broncos", ["Denver Broncos"], 0, 2 * 2 / (4 + 2)),
        ("gold gold", ["gold"], 0, 2 * 1 / (2 + 1)),  # bags of words: the second `gold` is not shared
        ("Carolina Panthers", ["Denver Broncos"], 0, 0.0),
        ("", ["Denver Broncos"], 0, 0.0),
        ("the", ["a"], 1, 1.0),  # nothing is left of either: SQuAD 2.0 calls them equal
    ],
)
def test_exact_match_and_token_f1(answer: str, golds: list[str], exact: int, f1: float) -> None:
    scored = qa.score(answer, golds, finish_reason="stop")
    assert scored.scores["exact_match"] == exact
    assert scored.scores["token_f1"] == pytest.approx(f1)


@pytest.mark.parametrize(
    ("output", "finish", "label"),
    [
        (None, "stop", "no answer"),
        (" ", "stop", "too short"),
        ("Denver Broncos", "stop", "correct answer"),
        ("Broncos", "stop", "incomplete answer"),
        ("The answer is Denver Broncos of course", "stop", "too verbose"),
        ("Well, let me think about", "length", "too verbose"),
        ("Carolina Panthers", "stop", "wrong answer"),
        ("Denver Panthers", "stop", "wrong answer"),
    ],
)
def test_labels(output: str | None, finish: str, label: str) -> None:
    scored = qa.score(output, ["Denver Broncos"], finish_reason=finish)
    assert scored.label == label
    assert scored.passed == (label == "correct answer")


def test_contains_means_whole_words_next_to_each_other() -> None:
    assert qa.contains("I think: the Denver Broncos won", "Denver Broncos")
    assert not qa.contains("Denver has the Broncos inside", "Denver Broncos")
    assert not qa.contains("10 of them", "1")


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=3))
def test_scores_are_shares_and_a_right_answer_is_right(answer: str, golds: list[str]) -> None:
    scored = qa.score(answer, golds, finish_reason="stop")
    assert all(0 <= value <= 1 for value in scored.scores.values())
    assert qa.score(golds[-1], golds, finish_reason="stop").passed
    assert scored.scores["token_f1"] == 1 or not scored.passed
