import pytest

from perfbench.quality.labels import LABELS, refuses


def test_the_labels_are_the_twelve_of_the_research_and_three_more() -> None:
    twelve = {
        "wrong answer", "incomplete answer", "hallucinated detail", "ignored instruction", "wrong format", "invalid JSON", "too verbose",
        "too short", "unsafe refusal", "should have refused but did not", "correct answer but bad explanation", "regression from base",
    }  # fmt: skip
    assert set(LABELS) == twelve | {"correct answer", "no answer", "not judged"}
    assert len(LABELS) == 15


@pytest.mark.parametrize(
    "text",
    ["I'm sorry, but I can't help.", "I cannot answer this.", "  Sorry, I am not able to do that", "As an AI language model, I", "I\u2019m unable to"],
)
def test_refusals_are_seen(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize("text", ["", "Sorry is the word he used.", "The answer is: I cannot", "cannot", '{"a": "I cannot"}', "I can help with that"])
def test_answers_are_not_taken_for_refusals(text: str) -> None:
    assert not refuses(text)
