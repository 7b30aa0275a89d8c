"""Instruction following: constraints that a program can check, strictly and loosely, by prompt and by instruction.

The four figures follow IFEval (Zhou et al. 2023, arXiv 2311.07911); the constraints and their code are our own (`constraints`).

| per-sample score | rule |
|---|---|
| prompt_strict | 1 if every constraint of the prompt holds |
| instruction_strict | constraints that hold / constraints of the prompt |
| prompt_loose, instruction_loose | the same, where a constraint also holds if it does in one of the loose readings |

Loose readings: without the first line ("Sure, here you are:"), without the last, without both, and each of these without asterisks. The mean of
`instruction_*` weighs every prompt the same. A sample passes by `prompt_strict`. Not passed: `wrong format` where only the strict reading fails,
`too short` for nothing, `too verbose` for an answer that was cut off, else `ignored instruction`; the details name the constraints that do not hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perfbench.quality import labels as why
from perfbench.quality.constraints import Constraint, read_constraints
from perfbench.quality.rows import HeldOutRows
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.quality import Instructions


def scorer(task: Instructions, rows: HeldOutRows) -> Scorer:
    """Ready to score the rows. Raises ScenarioError for constraints that are unknown or cannot be kept."""
    constraints = rows.column(task.constraints, "quality.task.constraints", read_constraints)
    expected = {number: msgspec.json.encode(given).decode() for number, given in constraints.items()}
    return Scorer(expected, lambda row, answer: score(answer, constraints[row]))


def score(answer: Answered, constraints: Sequence[Constraint]) -> Scored:
    """Score one answer."""
    names = ("prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose")
    if answer.output is None:
        return Scored(scores=dict.fromkeys(names, 0.0), passed=False, label=why.NO_ANSWER)
    strict = [keeps(answer.output, constraint) for constraint in constraints]
    readings = loose_readings(answer.output)
    loose = [any(keeps(reading, constraint) for reading in readings) for constraint in constraints]
    values = (float(all(strict)), sum(strict) / len(strict), float(all(loose)), sum(loose) / len(loose))
    broken = [msgspec.json.encode(constraint).decode() for constraint, kept in zip(constraints, strict, strict=True) if not kept]
    label = why.CORRECT if all(strict) else _why_wrong(answer, loose=all(loose))
    return Scored(
        scores=dict(zip(names, values, strict=True)), passed=all(strict), label=label, details={"constraints broken": "; ".join(broken)} if broken else {}
    )


def keeps(text: str, constraint: Constraint) -> bool:
    """Whether a text keeps a constraint; nothing at all keeps none, not even "no commas"."""
    return bool(text.strip()) and constraint.holds(text)


def loose_readings(output: str) -> list[str]:
    """The answer, and what is left of it without its first line, its last line, both; each with and without asterisks."""
    lines = output.strip().split("\n")
    parts = [output, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return list(dict.fromkeys([*parts, *(part.replace("*", "") for part in parts)]))


def _why_wrong(answer: Answered, *, loose: bool) -> str:
    if not (answer.output or "").strip():
        return why.TOO_SHORT
    if loose:
        return why.WRONG_FORMAT
    return why.TOO_VERBOSE if answer.finish_reason == "length" else why.IGNORED
