"""Summarisation: what a summary mentions, how long it is, and how much of a reference it shares.

| per-sample score | rule |
|---|---|
| coverage | share of the row's key points that the summary mentions (`facts`); only with `key_points` |
| length_ok | 1 if its words are within `min_words` and `max_words`; only with a limit |
| rouge1, rouge2 | F1 of shared words and pairs of words (Lin 2004), best over the references; rouge-score, Porter's stemmer |
| rouge_l | summary-level ROUGE-L F1: longest common subsequences line by line (sentences are split into lines first) |
| faithfulness | share of the summary's claims that the source supports, by a judge; only with a judge and `source` |

ROUGE supports, it does not decide: a summary can share every word and say the opposite. A sample passes when its length is right and `coverage` (without
key points: ROUGE-1) reaches `pass_at`. rouge-score would split sentences with NLTK's data, which is not there offline: lines are split here, by end
punctuation that a space and a capital, a digit or a quote follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from perfbench.errors import MissingPartError
from perfbench.quality import facts as facts_of
from perfbench.quality import labels as why
from perfbench.quality.qa import expected_text
from perfbench.quality.rows import HeldOutRows, text, texts
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.quality import Summarisation

_SENTENCE_END = re.compile(r"(?<=[.!?\u3002])[\"')\u201d]?\s+(?=[\"'(\u201c]?[A-Z0-9\u00c0-\u00de])")
_ROUGE = {"rouge1": "rouge1", "rouge2": "rouge2", "rouge_l": "rougeLsum"}


def scorer(task: Summarisation, rows: HeldOutRows) -> Scorer:
    """Ready to score the rows. Raises ScenarioError for rows without what the task names, MissingPartError without rouge-score."""
    _rouge_scorer()
    references = rows.column(task.expected, "quality.task.expected", texts)
    points = rows.column(task.key_points, "quality.task.key_points", facts_of.facts) if task.key_points is not None else {}
    if task.source is not None:
        rows.column(task.source, "quality.task.source", text)

    def score_row(row: int, answer: Answered) -> Scored:
        return score(answer, references[row], points.get(row), task)

    return Scorer({number: expected_text(given) for number, given in references.items()}, score_row)


def score(answer: Answered, references: Sequence[str], points: list[facts_of.Fact] | None, task: Summarisation) -> Scored:
    """Score one summary; `points` is None where the task has none."""
    output = answer.output or ""
    scores = rouge(output, references)
    missing = facts_of.missing(output, points) if points is not None else []
    if points is not None:
        scores["coverage"] = 1 - len(missing) / len(points)
    words = len(output.split())
    fits = bool(words) and (task.min_words is None or words >= task.min_words) and (task.max_words is None or words <= task.max_words)
    if task.min_words is not None or task.max_words is not None:
        scores["length_ok"] = float(fits)
    if answer.output is None:
        return Scored(scores=dict.fromkeys(scores, 0.0), passed=False, label=why.NO_ANSWER)
    enough = scores["coverage" if points is not None else "rouge1"] >= task.pass_at
    passed = fits and enough
    details = {"points not mentioned": "; ".join(missing)} if missing else {}
    label = why.CORRECT if passed else _why_wrong(words, scores.get("coverage"), answer.finish_reason, task)
    return Scored(scores=scores, passed=passed, label=label, details={**details, "words": str(words)})


def _why_wrong(words: int, coverage: float | None, finish_reason: str | None, task: Summarisation) -> str:
    if not words or (task.min_words is not None and words < task.min_words):
        return why.TOO_SHORT
    if finish_reason == "length" or (task.max_words is not None and words > task.max_words):
        return why.TOO_VERBOSE
    return why.INCOMPLETE if coverage else why.WRONG


def rouge(output: str, references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2 and summary-level ROUGE-L F1, each best over the references."""
    scorer_, said = _rouge_scorer(), lines(output)
    found = [scorer_.score(lines(reference), said) for reference in references]
    return {name: max(float(one[kind].fmeasure) for one in found) for name, kind in _ROUGE.items()}


def lines(summary: str) -> str:
    """A summary with one sentence a line."""
    return "\n".join(part.strip() for line in summary.splitlines() for part in _SENTENCE_END.split(line) if part.strip())


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingPartError("task `summarisation` needs rouge-score, which is not installed", hint="pip install 'perfbench[quality]'") from None
    return RougeScorer(list(_ROUGE.values()), use_stemmer=True)
