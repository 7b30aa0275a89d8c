"""Question answering with known answers: exact match and token F1 as SQuAD defines them, against several right answers.

Both sides are normalised first (Rajpurkar et al. 2016, the rules of the evaluation script of SQuAD 1.1): lower case, ASCII punctuation
removed, the words a, an and the removed, white space collapsed. Exact match is equality of what is left. Token F1 treats both as bags
of words: precision = shared / answered, recall = shared / expected, F1 their harmonic mean. With several right answers each score is
its best over them. Where both are empty after normalisation they are equal (SQuAD 2.0); where one is, F1 is 0.

| per-sample score | rule |
|---|---|
| exact_match | 1 if the answer equals a right answer after normalisation |
| contains | 1 if the words of a right answer stand in the answer, next to each other; says that the model knew, not that it obeyed |
| token_f1, token_precision, token_recall | of the right answer with the best F1 |
| fuzzy | rapidfuzz's `ratio` of the normalised texts / 100 |

A sample passes by exact match. Not passed: `too verbose` where it was cut off or a right answer stands inside other words, `incomplete
answer` where every word is right and some are missing, `hallucinated detail` never: words cannot tell it.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import msgspec

from perfbench.quality import labels as why
from perfbench.quality.rows import HeldOutRows, texts
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.quality import QuestionAnswering

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class TokenScores(msgspec.Struct, frozen=True):
    """Shared words of an answer and one right answer, all in 0..1."""

    f1: float
    precision: float
    recall: float


def scorer(task: QuestionAnswering, rows: HeldOutRows) -> Scorer:
    """Ready to score the rows. Raises ScenarioError for rows without an answer."""
    golds = rows.column(task.expected, "quality.task.expected", texts)

    def score_row(row: int, answer: Answered) -> Scored:
        return score(answer.output, golds[row], finish_reason=answer.finish_reason)

    return Scorer({number: expected_text(gold) for number, gold in golds.items()}, score_row)


def expected_text(golds: Sequence[str]) -> str:
    """Right answers as a record keeps them: the only one as it is, several as a JSON list."""
    return golds[0] if len(golds) == 1 else msgspec.json.encode(list(golds)).decode()


def normalise(text: str) -> str:
    """A text in the form in which answers are compared (SQuAD 1.1)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_scores(answer: str, gold: str) -> TokenScores:
    """Token precision, recall and F1 of an answer against one right answer."""
    answered, wanted = normalise(answer).split(), normalise(gold).split()
    if not answered or not wanted:
        same = float(answered == wanted)
        return TokenScores(same, same, same)
    shared = sum((Counter(answered) & Counter(wanted)).values())
    return TokenScores(2 * shared / (len(answered) + len(wanted)), shared / len(answered), shared / len(wanted))


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """Whether an answer equals one of the right ones after normalisation."""
    return normalise(answer) in {normalise(gold) for gold in golds}


def contains(answer: str, gold: str) -> bool:
    """Whether the words of a right answer stand in an answer next to each other."""
    words = normalise(gold)
    return bool(words) and f" {words} " in f" {normalise(answer)} "


def score(output: str | None, golds: Sequence[str], *, finish_reason: str | None) -> Scored:
    """Score one answer; `output` is None for a request that failed."""
    from rapidfuzz import fuzz

    answer = output or ""
    exact, inside = exact_match(answer, golds), any(contains(answer, gold) for gold in golds)
    best = max((token_scores(answer, gold) for gold in golds), key=lambda scores: scores.f1)
    fuzzy = max(fuzz.ratio(normalise(answer), normalise(gold)) for gold in golds) / 100
    scores = {
        "exact_match": float(exact), "token_f1": best.f1, "token_precision": best.precision, "token_recall": best.recall,
        "contains": float(inside), "fuzzy": fuzzy,
    }  # fmt: skip
    if output is None:
        return Scored(scores=dict.fromkeys(scores, 0.0), passed=False, label=why.NO_ANSWER)
    return Scored(scores=scores, passed=exact, label=why.CORRECT if exact else _why_wrong(output, inside, best, finish_reason))


def _why_wrong(output: str, inside: bool, best: TokenScores, finish_reason: str | None) -> str:
    if not output.strip():
        return why.TOO_SHORT
    if inside or finish_reason == "length":
        return why.TOO_VERBOSE
    return why.INCOMPLETE if best.precision == 1 and best.recall > 0 else why.WRONG
