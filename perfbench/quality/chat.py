"""Open-ended chat: only a judge or a person can say how good an answer is.

| per-sample score | rule |
|---|---|
| rubric_score | the judge's 1 to 5 by the rubric, as (score - 1) / 4 |
| win_rate | against base, the judge asked in both orders: 1 won both, 0 lost both, else 0.5 (a tie, or a verdict that changed with the order) |
| human_score | a person's 0..1, imported (`labels of people` in docs/quality.md) |

Before a verdict is there nothing is scored: `passed` is None and the label `not judged`, unless the answer is empty (`too short`) or a failed request.
A sample passes when its rubric score (a person's score, where there is one) reaches `pass_at`.
"""

from __future__ import annotations

from perfbench.quality import labels as why
from perfbench.quality.rows import HeldOutRows, text
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.quality import Chat


def scorer(task: Chat, rows: HeldOutRows) -> Scorer:
    """Ready to score the rows. Raises ScenarioError for rows without the column that the task names."""
    expected = dict.fromkeys(rows.rows, "") if task.expected is None else rows.column(task.expected, "quality.task.expected", text)
    return Scorer(expected, lambda row, answer: score(answer))


def score(answer: Answered) -> Scored:
    """What can be said of an answer before it is judged."""
    if answer.output is None:
        return Scored(scores={}, passed=False, label=why.NO_ANSWER)
    if not answer.output.strip():
        return Scored(scores={}, passed=False, label=why.TOO_SHORT)
    return Scored(scores={}, passed=None, label=why.NOT_JUDGED)
