"""Facts, summaries, domain questions, document questions and chat: published figures, and counts made by hand."""

from typing import Any

import pytest

from perfbench.quality import chat, domain_qa, facts, rag, summarisation
from perfbench.quality.scoring import Answered
from perfbench.scenario.quality import Summarisation


def said(output: str | None, finish: str = "stop") -> Answered:
    return Answered(output=output, finish_reason=finish)


@pytest.mark.parametrize(
    ("text", "wordings", "is_stated"),
    [
        ("The boiler must be bled twice a year.", ["bled twice a year"], True),
        ("The boilers must be bled, twice each year", ["bled twice a year", "twice each year"], True),
        ("Pressure stays at 1.5 bar", ["1.5 bar"], True),
        ("Pressure stays at 2.5 bar", ["1.5 bar"], False),
        ("It takes 130 days", ["30 days"], False),
        ("Close the isolating valves first", ["close the isolating valve"], True),  # one letter more in 25
        ("cat", ["car"], False),  # short words are not forgiven a letter
        ("", ["anything at all"], False),
    ],
)
def test_facts(text: str, wordings: list[str], is_stated: bool) -> None:
    assert facts.stated(text, wordings) is is_stated


@pytest.mark.parametrize("value", [[], "x", ["a", ""], [["a", 3]], [[]], None, "[broken"])
def test_what_are_no_facts(value: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        facts.facts(value)


def test_facts_of_a_csv_field() -> None:
    assert facts.facts('["a b", ["c", "d"]]') == [["a b"], ["c", "d"]]


def test_rouge_by_the_published_example() -> None:
    """rouge-score's README: 6 of 9 words and 6 of 8 shared, P 0.75 and R 0.667 for ROUGE-1; ROUGE-L 5 of 8 and 5 of 9."""
    found = summarisation.rouge("The quick brown dog jumps on the log.", ["The quick brown fox jumps over the lazy dog"])
    assert found["rouge1"] == pytest.approx(2 * 6 / (8 + 9))
    assert found["rouge_l"] == pytest.approx(2 * 5 / (8 + 9))
    assert found["rouge2"] == pytest.approx(2 * 2 / (7 + 8))


def test_the_best_reference_counts_and_sentences_are_lines() -> None:
    assert summarisation.rouge("It rained. Dams broke.", ["nothing alike", "Dams broke. It rained."])["rouge_l"] == 1.0
    assert summarisation.lines("It rained by 3.5 mm. (Dams broke.) Then, e.g. now, sun") == "It rained by 3.5 mm.\n(Dams broke.\nThen, e.g. now, sun"


SUMMARY = Summarisation(task="summarisation", expected="s", key_points="k", max_words=8, pass_at=0.5)
POINTS = [["dams broke", "dam failure"], ["nobody was hurt"]]


@pytest.mark.parametrize(
    ("output", "finish", "label", "coverage"),
    [
        ("Dams broke, nobody was hurt.", "stop", "correct answer", 1.0),
        ("A dam failure in the north.", "stop", "correct answer", 0.5),
        ("It rained a lot.", "stop", "wrong answer", 0.0),
        ("Dams broke and nobody was hurt in all of the north.", "stop", "too verbose", 1.0),
        ("", "stop", "too short", 0.0),
        ("It rained", "length", "too verbose", 0.0),
        (None, "stop", "no answer", 0.0),
    ],
)
def test_summaries(output: str | None, finish: str, label: str, coverage: float) -> None:
    scored = summarisation.score(said(output, finish), ["Dams broke. Nobody was hurt."], POINTS, SUMMARY)
    assert (scored.label, scored.scores["coverage"]) == (label, coverage)
    assert scored.passed == (label == "correct answer")
    assert all(0 <= value <= 1 for value in scored.scores.values())
    assert scored.scores["length_ok"] == float(bool(output) and len((output or "").split()) <= 8)  # nothing is no summary of the right length


def test_domain_answers() -> None:
    wanted = [["close the gas valve"], ["call 112", "call the emergency number"]]
    right = domain_qa.score(said("Close the gas valve and call 112."), "Close the gas valve, then call 112", wanted, 1.0)
    assert (right.passed, right.label, right.scores["fact_recall"]) == (True, "correct answer", 1.0)
    half = domain_qa.score(said("Please close the gas valve."), "x", wanted, 1.0)
    assert (half.label, half.scores["fact_recall"]) == ("incomplete answer", 0.5)
    assert half.details == {"facts not stated": "call 112"}
    assert domain_qa.score(said("Please close the gas valve."), "x", wanted, 0.5).passed
    assert domain_qa.score(said("Open a window"), "x", wanted, 1.0).label == "wrong answer"
    assert domain_qa.score(said(" "), "x", wanted, 0.0).label == "too short"


CONTEXTS = [rag.Passage("doc1", "The ferry leaves at nine from pier two."), rag.Passage("doc2", "Tickets cost four euros.")]


def rag_scores(output: str | None, relevant: list[str] | None = None) -> Any:
    return rag.score(said(output), ["nine", "9 o'clock"], CONTEXTS, relevant or ["doc1"])


def test_retrieval_is_measured_apart_from_the_answer() -> None:
    scored = rag_scores("I do not know.", ["doc1", "doc9"])
    assert scored.scores["context_recall"] == 0.5
    assert scored.scores["context_precision"] == 0.5
    assert (scored.scores["contains"], scored.label) == (0, "wrong answer")
    right = rag_scores("At nine [doc1].", ["doc9"])  # poor retrieval, right answer
    assert (right.passed, right.scores["context_recall"]) == (True, 0)
    assert "citation_recall" not in right.scores  # nothing relevant was there to be cited


@pytest.mark.parametrize(
    ("output", "precision", "recall", "quotes", "label"),
    [
        ("At nine [doc1].", 1, 1, None, "correct answer"),
        ("At nine [doc1, doc2].", 0.5, 1, None, "correct answer"),
        ("At nine.", 0, 0, None, "correct answer"),
        ("At nine [doc2].", 0, 0, None, "correct answer"),
        ("At nine [doc7].", 0, 0, None, "hallucinated detail"),
        ("At nine [sic].", 0, 0, None, "correct answer"),
        ('It says "the ferry leaves at nine" [doc1].', 1, 1, 1.0, "correct answer"),
        ('"The ferry leaves at ten", so not nine. "Tickets cost four euros"', 0, 0, 0.5, "hallucinated detail"),
        ('The "pier two" at nine', 0, 0, None, "correct answer"),  # two words are a name, not a quote
        (None, 0, 0, None, "no answer"),
    ],
)
def test_citations_and_quotes(output: str | None, precision: float, recall: float, quotes: float | None, label: str) -> None:
    scored = rag_scores(output)
    assert scored.scores["citation_precision"] == precision
    assert scored.scores["citation_recall"] == recall
    assert scored.scores.get("quotes_supported") == quotes
    assert scored.label == label
    assert scored.scores["context_recall"] == 1


@pytest.mark.parametrize("value", ["x", [{"id": 1}], [{"id": 1, "text": "a"}, {"id": "1", "text": "b"}], None])
def test_what_are_no_passages(value: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a list of passages|same id"):
        rag.passages(value)


def test_a_chat_answer_is_not_guessed() -> None:
    scored = chat.score(said("Hello!"))
    assert (scored.passed, scored.label, scored.scores) == (None, "not judged", {})
    assert chat.score(said("")).label == "too short"
    assert chat.score(said(None)).passed is False
