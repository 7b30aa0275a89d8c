import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.quality import classification as c

KNOWN = ("positive", "negative", "Card Arrival")


@pytest.mark.parametrize(
    ("output", "label"),
    [
        ("positive", "positive"),
        ("  Positive.\n", "positive"),
        ("**NEGATIVE**", "negative"),
        ("Label: negative", "negative"),
        ("card  arrival", "Card Arrival"),
        ("negative\n\nBecause the customer is angry.", "negative"),
        ("\uff50ositive", "positive"),  # full-width p, by NFKC
        ("not positive", c.UNPARSED),
        ("positive or negative", c.UNPARSED),
        ("", c.UNPARSED),
        ("neutral", c.UNPARSED),
    ],
)
def test_reading_an_answer(output: str, label: str) -> None:
    assert c.predict(output, KNOWN) == label


@pytest.mark.parametrize(
    ("output", "finish", "label"),
    [
        ("positive", "stop", "correct answer"),
        ("negative", "stop", "wrong answer"),
        (None, None, "no answer"),
        (" \n", "stop", "too short"),
        ("I'm sorry, I cannot judge that.", "stop", "unsafe refusal"),
        ("It is not positive at all", "stop", "wrong format"),
        ("Well, let me think about", "length", "too verbose"),
        ("blue", "stop", "ignored instruction"),
        ("nonpositive", "stop", "ignored instruction"),
    ],
)
def test_labels(output: str | None, finish: str | None, label: str) -> None:
    scored = c.score(output, "positive", KNOWN, finish_reason=finish)
    assert scored.label == label
    assert scored.passed == (label == "correct answer")
    assert scored.scores == {"accuracy": float(scored.passed)}


EXPECTED = ["a", "a", "a", "b", "b", "c"]
PREDICTED = ["a", "a", "b", "b", c.UNPARSED, "c"]


def test_corpus_metrics_by_hand() -> None:
    # a: p 2/2, r 2/3, f 4/5; b: p 1/2, r 1/2, f 1/2; c: 1, 1, 1. Micro: 4 right, 5 parsed, 6 expected.
    metrics = c.corpus_metrics(EXPECTED, PREDICTED, ("a", "b", "c", "never expected"))
    assert metrics == pytest.approx(
        {
            "accuracy": 4 / 6,
            "macro_precision": (1 + 1 / 2 + 1) / 3, "macro_recall": (2 / 3 + 1 / 2 + 1) / 3, "macro_f1": (4 / 5 + 1 / 2 + 1) / 3,
            "micro_precision": 4 / 5, "micro_recall": 4 / 6, "micro_f1": 8 / 11,
        }
    )  # fmt: skip


def test_a_label_that_is_never_expected_still_costs_micro_precision() -> None:
    metrics = c.corpus_metrics(["a", "a"], ["a", "z"], ("a", "z"))
    assert metrics["micro_precision"] == 0.5
    assert metrics["macro_recall"] == 0.5


def test_confusion_has_unparsed_as_a_column_and_loses_nobody() -> None:
    table = c.confusion(EXPECTED, PREDICTED)
    assert table == {"a": {"a": 2, "b": 1}, "b": {"b": 1, "unparsed": 1}, "c": {"c": 1}}


@given(st.text(max_size=80), st.lists(st.text(alphabet="abAB _-", min_size=1, max_size=6), min_size=1, max_size=5))
def test_reading_never_fails_and_every_usable_label_is_read_as_itself(output: str, known: list[str]) -> None:
    assert c.predict(output, known) in (*known, c.UNPARSED)
    if not c.label_problems(known):
        assert [c.predict(label, known) for label in known] == known


def test_label_problems() -> None:
    assert c.label_problems(["yes", "no"]) == []
    assert "`Yes` and `yes`" in c.label_problems(["Yes", "yes"])[0]
    assert "punctuation" in c.label_problems(["..."])[0]
    assert "rename" in c.label_problems(["Unparsed"])[0]


@pytest.mark.parametrize(("value", "label"), [("x", "x"), (3, "3"), (True, "true")])
def test_expected_labels(value: object, label: str) -> None:
    assert c.expected_label(value) == label


@pytest.mark.parametrize("value", [None, "", "  ", 1.5, ["x"], {}])
def test_what_is_no_label(value: object) -> None:
    with pytest.raises(ValueError, match="expected a label"):
        c.expected_label(value)
