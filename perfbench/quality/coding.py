"""Coding: the answer is Python code, and unit tests say whether it is right. It runs in the sandbox, never here.

Reading an answer: the longest fenced block that parses as Python (those marked as Python first; a fence that is never closed counts to the
end); without a fence the whole answer, else what follows its first line of code. With `prefix`, that code goes before it.

A test is one or more Python statements that raise if the code is wrong (`assert add(1, 2) == 3`), run after the code in a process of its
own. *Visible* tests are those that the prompt shows, *hidden* ones it does not.

| per-sample score | rule |
|---|---|
| tests_pass | 1 if the first answer passes every test, visible and hidden |
| visible_pass | 1 if the first answer passes every visible test (only with some) |
| test_share | tests that the first answer passes / all tests |
| pass_at_1, pass_at_K | chance that at least one of K answers drawn from the n that were given passes: 1 - C(n - c, K) / C(n, K), c of n passing |

pass@k by Chen et al. 2021 (arXiv 2107.03374, equation 1); the mean over samples is unbiased. Not passed: `incomplete answer` where some tests
pass, `wrong answer` where none does or the code is no Python, `ignored instruction` where there is no code, `too verbose` where it was cut off.
"""

from __future__ import annotations

import ast
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from perfbench.quality import coding_runner
from perfbench.quality import labels as why
from perfbench.quality.rows import HeldOutRows, text, texts
from perfbench.quality.sandbox import Limits, Sandbox
from perfbench.quality.sandbox_levels import Reached, open_sandbox
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.quality import Coding

_FENCE = re.compile(r"^[ \t]*```[ \t]*(?P<language>[A-Za-z0-9_+-]*)[^\n]*\n(?P<inside>.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_FIRST_CODE = re.compile(r"^(def |class |import |from |@|async def )", re.MULTILINE)
_PYTHON = ("python", "py", "python3")
_TOLD = 5
"""Failed tests named in a record."""
_MORE_S = 5.0
"""What starting the sandbox may take beside the tests."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How one answer did: per test None for passed, else how it failed. `problem` where no test was run."""

    outcomes: list[str | None] = []
    problem: str | None = None

    @property
    def passes(self) -> bool:
        return self.problem is None and all(outcome is None for outcome in self.outcomes)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One row: its tests, visible ones first, and the code that goes before an answer."""

    visible: list[str]
    hidden: list[str]
    prefix: str = ""

    @property
    def tests(self) -> list[str]:
        return [*self.visible, *self.hidden]


class _Opened:
    """The sandbox, proven when it is first needed: reading a scenario starts nothing."""

    def __init__(self, *, allow_weak: bool) -> None:
        self._allow_weak = allow_weak
        self._open: tuple[Sandbox, Reached] | None = None

    def sandbox(self) -> Sandbox:
        self.reached()
        assert self._open is not None
        return self._open[0]

    def reached(self) -> Reached:
        if self._open is None:
            self._open = open_sandbox(allow_weak=self._allow_weak)
        return self._open[1]


def scorer(task: Coding, rows: HeldOutRows) -> Scorer:
    """Ready to score the rows. Raises ScenarioError for rows without tests, or with tests that are no Python."""
    hidden = rows.column(task.hidden_tests, "quality.task.hidden_tests", tests_of)
    visible = rows.column(task.visible_tests, "quality.task.visible_tests", tests_of) if task.visible_tests is not None else {}
    prefixes = rows.column(task.prefix, "quality.task.prefix", str) if task.prefix is not None else {}
    solutions = rows.column(task.expected, "quality.task.expected", text) if task.expected is not None else {}
    problems = {number: Problem(visible=visible.get(number, []), hidden=tests, prefix=prefixes.get(number, "")) for number, tests in hidden.items()}
    opened = _Opened(allow_weak=task.allow_weak_sandbox)

    def score_row(row: int, answer: Answered) -> Scored:
        return score(answer, problems[row], task, opened.sandbox())

    expected: Mapping[int, str] = {number: solutions.get(number, "\n".join(problem.tests)) for number, problem in problems.items()}
    return Scorer(expected, score_row, attempts=task.samples, workers=os.cpu_count() or 1, sandbox=opened.reached)


def tests_of(value: object) -> list[str]:
    """A row's tests: a text or a list of texts; ValueError for what is no Python."""
    found = texts(value)
    for number, test in enumerate(found, 1):
        try:
            ast.parse(test)
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"test {number} is no Python: {error}") from None
    return found


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of pass@k from n answers of which c pass (Chen et al. 2021, equation 1). Raises ValueError for k > n."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from {n} answers, {c} of them right")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def extract_code(output: str) -> str | None:
    """The code in an answer, or None where there is none; it need not parse."""
    blocks = [(match["language"].lower(), match["inside"]) for match in _FENCE.finditer(output)]
    if blocks:
        marked = [inside for language, inside in blocks if language in _PYTHON] or [inside for language, inside in blocks if language == ""]
        return max(marked, key=lambda block: (parses(block), len(block)), default=None)
    if output.strip() and parses(output):
        return output if _is_code(output) else None
    first = _FIRST_CODE.search(output)
    return None if first is None else _without_prose_after(output[first.start() :])


def _is_code(source: str) -> bool:
    """Whether what parses is more than a name or a word: prose of one word is Python too."""
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in ast.parse(source).body)


def _without_prose_after(source: str) -> str:
    """`source` without the lines at its end that keep it from parsing; all of it where that does not help."""
    lines = source.splitlines()
    for end in range(len(lines), 0, -1):
        part = "\n".join(lines[:end])
        if parses(part):
            return part
    return source


def parses(source: str) -> bool:
    """Whether a text is Python."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def run_tests(output: str | None, problem: Problem, sandbox: Sandbox, task: Coding) -> Verdict:
    """Put one answer to its tests."""
    if output is None:
        return Verdict(problem="the request failed")
    code = extract_code(output) if not problem.prefix else extract_code(output) or output
    if code is None:
        return Verdict(problem="no code in the answer")
    program = problem.prefix + code
    given = msgspec.json.encode({"code": program, "tests": problem.tests, "test_s": task.test_s})
    time_s = task.test_s * len(problem.tests) + _MORE_S
    limits = Limits(time_s=time_s, cpu_s=math.ceil(time_s), memory_bytes=task.memory_mb << 20)
    outcome = sandbox.run(Path(coding_runner.__file__).read_text(encoding="utf-8"), given, limits)
    try:
        outcomes = msgspec.json.decode(outcome.stdout, type=list[str | None])
    except msgspec.DecodeError:
        outcomes = []
    if len(outcomes) != len(problem.tests):
        return Verdict(problem=f"stopped by the limit on {outcome.ending}" if outcome.ending != "ended" else "the code ended the process that tests it")
    return Verdict(outcomes=outcomes)


def score(answer: Answered, problem: Problem, task: Coding, sandbox: Sandbox) -> Scored:
    """Score all answers to one question; label and details are the first answer's."""
    answers = answer.attempts or (answer.output,)
    verdicts: dict[str | None, Verdict] = {}  # equal answers are tested once
    for output in answers:
        if output not in verdicts:
            verdicts[output] = run_tests(output, problem, sandbox, task)
    first = verdicts[answers[0]]
    n, c = len(answers), sum(verdicts[output].passes for output in answers)
    failed = [True] * len(problem.tests) if first.problem is not None else [outcome is not None for outcome in first.outcomes]
    scores = {"tests_pass": float(first.passes), "test_share": failed.count(False) / len(failed)}
    scores |= {f"pass_at_{k}": pass_at_k(n, c, k) for k in (1, task.k) if k <= n}
    if problem.visible:
        scores["visible_pass"] = float(not any(failed[: len(problem.visible)]))
    label = why.CORRECT if first.passes else _why_wrong(answers[0], first, failed, answer.finish_reason)
    return Scored(scores=scores, passed=first.passes, label=label, details=_details(problem, first, n, c))


def _why_wrong(output: str | None, verdict: Verdict, failed: Sequence[bool], finish_reason: str | None) -> str:
    if output is None:
        return why.NO_ANSWER
    if not output.strip():
        return why.TOO_SHORT
    code = extract_code(output)
    if finish_reason == "length" and (code is None or not parses(code)):
        return why.TOO_VERBOSE
    if code is None:
        return why.IGNORED
    return why.WRONG if all(failed) else why.INCOMPLETE


def _details(problem: Problem, verdict: Verdict, n: int, c: int) -> dict[str, str]:
    """Which tests failed and how, for a person."""
    details = {"answers": f"{c} of {n} pass"} if n > 1 else {}
    if verdict.problem is not None:
        return {**details, "tests": verdict.problem}
    total = len(verdict.outcomes)
    details["tests"] = f"{verdict.outcomes.count(None)} of {total} pass"
    failures = [(number, outcome) for number, outcome in enumerate(verdict.outcomes) if outcome is not None]
    for number, outcome in failures[:_TOLD]:
        visible = number < len(problem.visible)
        name = f"visible test {number + 1}" if visible else f"hidden test {number + 1 - len(problem.visible)}"
        details[name] = f"{problem.tests[number].strip()}\n{outcome}"
    if len(failures) > _TOLD:
        details["more"] = f"{len(failures) - _TOLD} further tests failed"
    return details
