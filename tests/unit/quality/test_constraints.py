"""Every kind of constraint by hand: a text that keeps it and one that does not."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.quality.constraint_counts import Sentences
from perfbench.quality.constraints import KINDS, read_constraints
from perfbench.quality.instructions import loose_readings, score
from perfbench.quality.scoring import Answered

TABLE = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"
BY_HAND: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": "words", "exactly": 3}, "don't stop now", "one two"),
    ({"kind": "words", "at_least": 2, "at_most": 3}, "well-known fact", "one"),
    ({"kind": "sentences", "exactly": 2}, "It rains. Take a coat!", "It rains... really? Yes."),
    ({"kind": "sentences", "at_most": 1}, "No end mark", "One.\nTwo"),
    ({"kind": "paragraphs", "exactly": 2}, "a\nb\n\nc", "a\nb"),
    ({"kind": "lines", "at_most": 2}, "a\n\nb\n", "a\nb\nc"),
    ({"kind": "characters", "at_most": 5}, " abcde ", "abcdef"),
    ({"kind": "bullets", "exactly": 2}, "- a\n* b", "- a\nb\n-c"),
    ({"kind": "numbered_items", "at_least": 2}, "1. a\n2) b", "1. a\nfor 2. no"),
    ({"kind": "headings", "exactly": 1}, "# Title\ntext", "#tag\ntext"),
    ({"kind": "placeholders", "at_least": 2}, "Dear [name], from [city]", "Dear [name]"),
    ({"kind": "highlights", "at_least": 2}, "*one* and **two**", "2 * 3 * 4"),
    ({"kind": "numbers", "exactly": 2}, "1,000 of 3.5", "one"),
    ({"kind": "capital_words", "at_most": 1}, "I like the NASA", "NASA and ESA"),
    ({"kind": "word_times", "word": "sea", "exactly": 2}, "The sea, the SEA.", "The seaside sea"),
    ({"kind": "word_times", "word": "new york", "at_least": 1}, "In New York", "new old york"),
    ({"kind": "letter_times", "letter": "z", "at_most": 1}, "Zebra", "zigzag"),
    ({"kind": "includes", "words": ["sun", "warm rain"]}, "Sun and warm rain", "sunny warm rain"),
    ({"kind": "avoids", "words": ["very"]}, "every day", "Very good"),
    ({"kind": "avoids_characters", "characters": ",!"}, "no marks.", "well, no"),
    ({"kind": "starts_with", "text": "Dear"}, "  Dear Sir", "dear Sir"),
    ({"kind": "ends_with", "text": "Any questions?"}, "Done. Any questions?\n", "Any questions? No"),
    ({"kind": "paragraph_starts", "paragraph": 2, "word": "later"}, "Now.\n\nLater, we", "Later\n\nNow"),
    ({"kind": "lowercase"}, "all small, 1", "Not small"),
    ({"kind": "uppercase"}, "ALL 2", "ALL but one"),
    ({"kind": "one_of", "options": ["My answer is yes", "My answer is no"]}, "my answer is yes.", "My answer is maybe"),
    ({"kind": "json"}, "[1, 2]", "{'a': 1}"),
    ({"kind": "json", "keys": ["a"]}, '{"a": 1, "b": 2}', '{"b": 2}'),
    ({"kind": "code_block", "language": "python"}, "Here:\n```python\nx = 1\n```", "```\nx = 1\n```"),
    ({"kind": "table", "columns": 2, "rows": 2}, f"See:\n{TABLE}", "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\n| 1 | 2 | 3 |"),
    ({"kind": "quoted"}, '"All of it."', '"Part" of it'),
    ({"kind": "title"}, "<<Spring>>\ntext", "<< >> text"),
    ({"kind": "postscript"}, "Bye\nP.S. Write soon", "P.S. Write\nBye"),
    ({"kind": "sections", "titles": ["Cause", "Cure"]}, "## Cause\nx\n**Cure:**\ny", "Cure\nCause"),
    ({"kind": "separated", "parts": 2}, "one\n***\ntwo", "one *** two"),
    ({"kind": "script", "script": "cyrillic"}, "\u041f\u0440\u0438\u0432\u0435\u0442, 12!", "Privet \u043c\u0438\u0440"),
    ({"kind": "ascii"}, "plain", "na\u00efve"),
]


@pytest.mark.parametrize(("constraint", "keeps", "breaks"), BY_HAND, ids=[str(entry[0]) for entry in BY_HAND])
def test_by_hand(constraint: dict[str, Any], keeps: str, breaks: str) -> None:
    (one,) = read_constraints([constraint])
    assert one.holds(keeps)
    assert not one.holds(breaks)


def test_every_kind_is_tried_and_there_are_more_than_twenty() -> None:
    assert {entry[0]["kind"] for entry in BY_HAND} == set(KINDS)
    assert len(KINDS) > 30
    assert all(KINDS.values())


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "at least one"),
        ("nonsense", "expected a list of constraints"),
        ([{"kind": "word"}], "`word` is no kind of constraint; expected one of words"),
        ([{"kind": "words"}], "needs at least one of `at_least`"),
        ([{"kind": "words", "at_least": 5, "at_most": 3}], "limits that no text can keep"),
        ([{"kind": "words", "atleast": 5}], "unknown field `atleast`"),
        ([{"kind": "includes", "words": []}], "is to hold words"),
        ([{"kind": "starts_with"}], "missing required field `text`"),
        ([{"kind": "letter_times", "letter": "ab", "at_least": 1}], "one character"),
        ([{"kind": "script", "script": "runic"}], "invalid enum value"),
        ([{"kind": "words", "at_most": "3"}], r"constraint 0 \(`words`\): `at_most`: expected a whole number, got a text"),
        ([{"kind": "includes", "words": "sea"}], "`words`: expected a list, got a text"),
    ],
)
def test_what_is_no_constraint_has_its_sentence(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_constraints(value)


@given(st.text(alphabet="a_ .!?\n-", max_size=40))
def test_sentences_are_what_lies_between_ends_and_holds_a_letter(text: str) -> None:
    found = len(re.findall(r"[^.!?\n]*[^\W_][^.!?\n]*(?:[.!?]+|\n|$)", text))  # takes quadratic time: 200,000 underscores 10 s
    assert Sentences(exactly=found).holds(text)


@given(st.text(max_size=120))
def test_no_text_breaks_a_constraint(text: str) -> None:
    for constraint, _, _ in BY_HAND:
        read_constraints([constraint])[0].holds(text)


def scores(output: str | None, *constraints: dict[str, Any], finish: str = "stop") -> tuple[dict[str, float], str]:
    scored = score(Answered(output=output, finish_reason=finish), read_constraints(list(constraints)))
    assert scored.passed == (scored.label == "correct answer")
    return scored.scores, scored.label


SHORT, SMALL = {"kind": "words", "at_most": 4}, {"kind": "lowercase"}


def test_strict_and_loose_by_prompt_and_by_instruction() -> None:
    """Counted by hand: the first line is in the way of both, and only the loose reading takes it away."""
    found, label = scores("Sure! Here is what you asked for:\nfour small words here", SHORT, SMALL)
    assert found == {"prompt_strict": 0, "instruction_strict": 0, "prompt_loose": 1, "instruction_loose": 1}
    assert label == "wrong format"
    found, label = scores("One small word more than four", SHORT, SMALL, {"kind": "ascii"})
    assert found == {"prompt_strict": 0, "instruction_strict": pytest.approx(1 / 3), "prompt_loose": 0, "instruction_loose": pytest.approx(1 / 3)}
    assert label == "ignored instruction"
    assert scores("just so", SHORT, SMALL) == ({"prompt_strict": 1, "instruction_strict": 1, "prompt_loose": 1, "instruction_loose": 1}, "correct answer")


def test_nothing_keeps_nothing() -> None:
    assert scores("", {"kind": "avoids_characters", "characters": ","})[1] == "too short"
    assert scores(None, SHORT) == (dict.fromkeys(("prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose"), 0), "no answer")
    assert scores("Far Too Many Words Here", SMALL, finish="length")[1] == "too verbose"


def test_loose_readings_by_hand() -> None:
    assert set(loose_readings("*a*\nb\nc")) == {"*a*\nb\nc", "b\nc", "*a*\nb", "b", "a\nb\nc", "a\nb"}
