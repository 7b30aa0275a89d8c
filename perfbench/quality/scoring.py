"""What goes into a task's scoring and what comes out: an answer as it came, the answer scored, and a task ready to score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from perfbench.quality.sandbox_levels import Reached


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One answer as it came."""

    output: str | None
    """None for a request that failed."""
    finish_reason: str | None = None
    attempts: tuple[str | None, ...] = ()
    """All answers to the same question where a task asks more than once (pass@k); the first one is `output`. Else empty."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, scored: per-sample scores in 0..1, whether it is right, and why."""

    scores: dict[str, float]
    passed: bool | None
    """None where only a judge can say, and has not."""
    label: str
    details: dict[str, str] = {}
    """What a person who looks at the sample wants to know: constraints that were broken, a judge's reason, a test's output."""


class Scorer(msgspec.Struct, frozen=True):
    """A task, ready to score the rows of its file, each by its number from 0."""

    expected: Mapping[int, str]
    """The expected answers as text, for records."""
    score: Callable[[int, Answered], Scored]
    must_refuse: frozenset[int] = frozenset()
    """Rows that are right when they are refused."""
    attempts: int = 1
    """So many answers are asked for to each question."""
    workers: int = 1
    """So many answers may be scored at a time; more than one where scoring waits for other processes."""
    sandbox: Callable[[], Reached] | None = None
    """Where answers are run: which sandbox holds on this machine. Raises SandboxError where none does."""


def narrowed(scorer: Scorer, rows: Sequence[int]) -> Scorer:
    """The scorer over some of its rows, which are numbered from 0; a row may come several times."""
    return msgspec.structs.replace(
        scorer,
        expected={number: scorer.expected[row] for number, row in enumerate(rows)},
        score=lambda number, answer: scorer.score(rows[number], answer),
        must_refuse=frozenset(number for number, row in enumerate(rows) if row in scorer.must_refuse),
    )
