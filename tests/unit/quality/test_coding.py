"""Coding: extraction of code, pass@k against its definition, and tests run in the real sandbox."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from answering_server import AnsweringServer, chat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perfbench.errors import ScenarioError
from perfbench.quality import coding
from perfbench.quality.ask import Target
from perfbench.quality.coding import Problem, extract_code, pass_at_k, score
from perfbench.quality.sandbox import Sandbox
from perfbench.quality.sandbox_levels import open_sandbox
from perfbench.quality.scoring import Answered
from perfbench.quality.spot_check import prepare, spot_check
from perfbench.scenario.model import Decoding, Prompt
from perfbench.scenario.quality import Coding, Quality

SHIPPED = Path(__file__).parents[3] / "scenarios" / "quality" / "data" / "coding.jsonl"
TASK = Coding(task="coding", hidden_tests="hidden", visible_tests="visible", test_s=1.0, memory_mb=256)
ADD = Problem(visible=["assert add(1, 2) == 3"], hidden=["assert add(-1, 1) == 0", "assert add('a', 'b') == 'ab'"])
NO_ADD = "NameError: name 'add' is not defined, in the test"
RIGHT = "```python\ndef add(a, b):\n    return a + b\n```"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return open_sandbox()[0]


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_answer(case: tuple[int, int, int]) -> None:
    """The definition: over all ways to draw k of the n answers. And the product that the paper computes it by (figure 3)."""
    n, c, k = case
    draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(draw) for draw in draws) / len(draws))
    product = 1.0
    for i in range(n - c + 1, n + 1):
        product *= 1 - k / i
    assert pass_at_k(n, c, k) == pytest.approx(1.0 if n - c < k else 1 - product)


def test_pass_at_k_needs_k_answers() -> None:
    with pytest.raises(ValueError, match="pass@3 cannot be estimated from 2 answers"):
        pass_at_k(2, 1, 3)
    with pytest.raises(ValidationError, match="raise `samples` or lower `k`"):
        Coding(task="coding", hidden_tests="h", samples=2, k=3)
    assert pass_at_k(200, 2, 100) == pytest.approx(1 - (99 / 199) * (100 / 200))  # by hand: both right answers among the 100 left out


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("Here:\n```\nx = 1\n```\nDone.", "x = 1\n"),
        ("x = 1", "x = 1"),
        ("Sure!\n```python\ndef f():\n    return 1\n```\nUse it:\n```python\nf()\n```", "def f():\n    return 1\n"),
        ("```bash\npip install x\n```\n```py\nx = 1\n```", "x = 1\n"),
        ("```python\ndef f(:\n```\nNo, rather:\n```python\nx = 1\n```", "x = 1\n"),  # the one that parses
        ("```python\ndef f():\n    return 1", "def f():\n    return 1"),  # cut off, still whole
        ("Of course! Here it is:\n\ndef f():\n    return 1\n\nThis returns one.", "def f():\n    return 1\n"),
        ("  ```python\n  x = 1\n  ```", "  x = 1\n"),
        ("I cannot do that.", None),
        ("Sorry", None),
        ("", None),
        ("```bash\nls\n```", None),
        ("def broken(:\n    pass", "def broken(:\n    pass"),
    ],
)
def test_code_is_found_in_an_answer(answer: str, code: str | None) -> None:
    assert extract_code(answer) == code


@given(st.text(max_size=200))
def test_any_answer_can_be_read(answer: str) -> None:
    extract_code(answer)
    extract_code(f"```python\n{answer}")


@pytest.mark.parametrize(
    ("output", "passes", "label", "share", "told"),
    [
        (RIGHT, True, "correct answer", 1.0, {"tests": "3 of 3 pass"}),
        ("def add(a, b): return abs(a) + b", False, "incomplete answer", 1 / 3, {"hidden test 1": f"{ADD.hidden[0]}\nAssertionError, in the test"}),
        ("def add(a, b): return 0.5", False, "wrong answer", 0.0, {"visible test 1": f"{ADD.visible[0]}\nAssertionError, in the test"}),
        ("def plus(a, b): return a + b", False, "wrong answer", 0.0, {"hidden test 1": f"{ADD.hidden[0]}\n{NO_ADD}"}),
        ("def add(a, b) return a", False, "wrong answer", 0.0, {}),
        ("raise SystemExit(0)", False, "wrong answer", 0.0, {"hidden test 2": "assert add('a', 'b') == 'ab'\nSystemExit: 0, in the code"}),
        ("import os\nos._exit(0)", False, "wrong answer", 0.0, {"hidden test 2": "assert add('a', 'b') == 'ab'\nended before the test did"}),
        ("import ctypes\nctypes.string_at(0)", False, "wrong answer", 0.0, {"visible test 1": f"{ADD.visible[0]}\nended by signal 11 before the test did"}),
        ("import os\nos.kill(os.getppid(), 9)", False, "wrong answer", 0.0, {"tests": "the code ended the process that tests it"}),
        ("def add(a, b):\n    while a == -1: pass\n    return a + b", False, "incomplete answer", 2 / 3, {"hidden test 1": f"{ADD.hidden[0]}\nno end within 1 s"}),  # noqa: E501
        ("print('x' * 10_000_000)\ndef add(a, b): return a + b", True, "correct answer", 1.0, {}),
        ("import socket\nsocket.socket()", False, "wrong answer", 0.0, {}),
        ("I will think about it.", False, "ignored instruction", 0.0, {"tests": "no code in the answer"}),
        ("", False, "too short", 0.0, {}),
        (None, False, "no answer", 0.0, {"tests": "the request failed"}),
    ],
)  # fmt: skip
def test_answers_are_put_to_their_tests(sandbox: Sandbox, output: str | None, passes: bool, label: str, share: float, told: dict[str, str]) -> None:
    scored = score(Answered(output=output, finish_reason="stop"), ADD, TASK, sandbox)
    assert (scored.passed, scored.label, scored.scores["tests_pass"], scored.scores["pass_at_1"]) == (passes, label, float(passes), float(passes))
    assert scored.scores["test_share"] == pytest.approx(share)
    assert told.items() <= scored.details.items(), scored.details


def test_cut_off_code_is_too_verbose(sandbox: Sandbox) -> None:
    assert score(Answered(output="```python\ndef add(a, b):\n    return (a", finish_reason="length"), ADD, TASK, sandbox).label == "too verbose"


def test_several_answers_give_an_estimate_and_the_first_one_is_told_of(sandbox: Sandbox) -> None:
    task = Coding(task="coding", hidden_tests="h", samples=4, k=2, test_s=1.0)
    scored = score(Answered(output="nothing", attempts=("nothing", RIGHT, None, RIGHT)), ADD, task, sandbox)
    assert scored.scores == {"tests_pass": 0.0, "test_share": 0.0, "pass_at_1": 0.5, "pass_at_2": pytest.approx(5 / 6), "visible_pass": 0.0}
    assert scored.label == "ignored instruction"
    assert scored.details["answers"] == "2 of 4 pass"


def test_code_before_the_answer_completes_it(sandbox: Sandbox) -> None:
    problem = Problem(visible=[], hidden=["assert add(1, 2) == 3"], prefix="def add(a, b):\n")
    assert score(Answered(output="    return a + b\n"), problem, TASK, sandbox).passed
    assert score(Answered(output=RIGHT), Problem(visible=[], hidden=ADD.hidden, prefix='def add(a, b):\n    """Add."""\n'), TASK, sandbox).passed


def test_every_shipped_problem_is_solved_by_its_solution_and_by_no_other(sandbox: Sandbox) -> None:
    rows = [json.loads(line) for line in SHIPPED.read_text().splitlines()]
    assert 10 <= len(rows) <= 20
    for number, row in enumerate(rows):
        problem = Problem(visible=row["visible_tests"], hidden=row["hidden_tests"])
        assert coding.run_tests(row["solution"], problem, sandbox, TASK).passes, row["id"]
        assert not coding.run_tests(rows[number - 1]["solution"], problem, sandbox, TASK).passes, row["id"]
        assert all(test not in row["prompt"] for test in row["hidden_tests"])


def test_from_server_to_records(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": "add", "text": "add", "hidden": ADD.hidden, "visible": ADD.visible},
        {"id": "sub", "text": "sub", "hidden": "assert sub(3, 1) == 2", "visible": "assert 1"},
    ]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quality = Quality.model_validate(
        {"data": {"path": str(tmp_path / "eval.jsonl")}, "margin": 0.1, "task": {**TASK.model_dump(), "samples": 2, "k": 2}, "metric": "pass_at_2"}
    )

    def reply(body: dict[str, Any]) -> Any:
        return chat(RIGHT if body["seed"] == 8 else "def add(a, b): return None")

    decoding = Decoding(seed=7, temperature=0.5)
    shown: list[tuple[int, int]] = []
    with AnsweringServer(reply) as server:
        held_out = prepare(quality, Prompt(user="{{ text }}"), decoding)
        target = Target(url=server.url, model="m")
        records = spot_check(held_out, quality, decoding, target, variant="base", on_progress=lambda done, of: shown.append((done, of)))
        assert sorted(body["seed"] for body in server.bodies) == [7, 7, 8, 8]
    assert [record.attempts for record in records] == [["def add(a, b): return None", RIGHT]] * 2
    assert [record.scores["pass_at_2"] for record in records] == [1.0, 0.0]
    assert [record.passed for record in records] == [False, False]
    assert [record.label for record in records] == ["wrong answer", "incomplete answer"]
    assert (4, 4) in shown
    assert shown[-1] == (2, 2)


def test_rows_without_usable_tests_are_refused(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text('{"text": "a", "hidden": ["assert f(1) =="], "visible": "assert f(1)"}\n{"text": "b", "visible": "x"}\n')
    quality = Quality.model_validate({"data": {"path": str(tmp_path / "eval.jsonl")}, "margin": 0.1, "task": TASK.model_dump()})
    with pytest.raises(ScenarioError, match=r"row 1 of .* lacks column `hidden`(.|\n)*row 0, column `hidden`: test 1 is no Python"):
        prepare(quality, Prompt(user="{{ text }}"), Decoding())
