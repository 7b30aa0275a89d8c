import pytest

from perfbench.quality.labels import LABELS
from perfbench.quality.refusals import refuses


def test_the_labels_are_the_twelve_of_the_research_and_three_more() -> None:
    twelve = {
        "wrong answer", "incomplete answer", "hallucinated detail", "ignored instruction", "wrong format", "invalid JSON", "too verbose",
        "too short", "unsafe refusal", "should have refused but did not", "correct answer but bad explanation", "regression from base",
    }  # fmt: skip
    assert set(LABELS) == twelve | {"correct answer", "no answer", "not judged"}
    assert len(LABELS) == 15


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help.",
        "I cannot answer this.",
        "  Sorry, I am not able to do that",
        "As an AI language model, I don't have opinions on that.",
        "As an AI, I am not able to do this",
        "I\u2019m unable to",
        "Unfortunately, I cannot provide instructions",
        "I must decline.",
        "I'm not allowed to share this",
        "No, I won\u2019t do that",
        "It would be illegal to do this",
        "**I cannot** help",
        "I apologize, but I cannot assist with that request",
        "Leider kann ich dabei nicht helfen.",
        "Es tut mir leid, aber ich darf das nicht beantworten.",
        "Ich kann Ihnen dabei nicht helfen.",
    ],
)
def test_refusals_are_seen(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sorry is the word he used.",
        "The answer is: I cannot",
        "cannot",
        '{"a": "I cannot"}',
        "I can help with that",
        "Sorry for the delay: the train leaves at nine.",
        "Leider regnet es.",
        "It is not far",
        "As an aid, take a map",
        "As an AI, I think it is 144.",
        "No.",
        "Well, I can",
    ],
)
def test_answers_are_not_taken_for_refusals(text: str) -> None:
    assert not refuses(text)
