"""Domain questions: a few sentences that must state known facts.

| per-sample score | rule |
|---|---|
| fact_recall | share of the row's facts that the answer states (`facts`) |
| token_f1, token_precision | of the reference answer, as in `qa`; supporting |
| answer_correctness | 1 if a judge finds the answer right by the reference; only with a judge |

A sample passes when `fact_recall` reaches the task's `pass_at`. `incomplete answer`: some facts and not enough. `wrong answer`: none. With a judge, an
answer that states its facts and whose reasons the judge rejects is a `correct answer but bad explanation` (`judge_apply`).
"""

from __future__ import annotations

from perfbench.quality import facts as facts_of
from perfbench.quality import labels as why
from perfbench.quality.qa import token_scores
from perfbench.quality.rows import HeldOutRows, text
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.quality import DomainQuestions


def scorer(task: DomainQuestions, rows: HeldOutRows) -> Scorer:
    """Ready to score the rows. Raises ScenarioError for rows without a reference answer or facts."""
    expected = rows.column(task.expected, "quality.task.expected", text)
    facts = rows.column(task.facts, "quality.task.facts", facts_of.facts)

    def score_row(row: int, answer: Answered) -> Scored:
        return score(answer, expected[row], facts[row], task.pass_at)

    return Scorer(expected, score_row)


def score(answer: Answered, expected: str, facts: list[facts_of.Fact], pass_at: float) -> Scored:
    """Score one answer."""
    if answer.output is None:
        return Scored(scores={"fact_recall": 0.0, "token_f1": 0.0, "token_precision": 0.0}, passed=False, label=why.NO_ANSWER)
    missing = facts_of.missing(answer.output, facts)
    recall = 1 - len(missing) / len(facts)
    tokens = token_scores(answer.output, expected)
    passed = recall >= pass_at and bool(answer.output.strip())
    return Scored(
        scores={"fact_recall": recall, "token_f1": tokens.f1, "token_precision": tokens.precision},
        passed=passed,
        label=why.CORRECT if passed else _why_wrong(answer, recall),
        details={"facts not stated": "; ".join(missing)} if missing else {},
    )


def _why_wrong(answer: Answered, recall: float) -> str:
    if not (answer.output or "").strip():
        return why.TOO_SHORT
    if recall > 0:
        return why.INCOMPLETE
    return why.TOO_VERBOSE if answer.finish_reason == "length" else why.WRONG
