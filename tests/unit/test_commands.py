"""What every command owes a person: an example in its help, and a first line that does not wait for heavy imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from perfbench.__main__ import main
from perfbench.cli import app

# Not Pydantic: Typer itself reads options with it.
HEAVY = ("gevent", "httptools", "locust", "numpy", "pandas", "plotly", "polars", "pyarrow", "scipy", "sklearn", "torch", "transformers", "vllm")


def commands() -> list[tuple[str, ...]]:
    """Every command line up to its options: `('run',)`, `('quality', 'init')`."""
    group = typer.main.get_command(app)
    found: list[tuple[str, ...]] = []
    waiting: list[tuple[tuple[str, ...], object]] = [((), group)]
    while waiting:
        words, command = waiting.pop()
        children = getattr(command, "commands", None)
        if children is None:
            found.append(words)
        else:
            waiting += [((*words, name), child) for name, child in children.items()]
    return sorted(found)


def perfbench(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from perfbench.cli import app\ntry: app()\nfinally: print('\\nMODULES', *sys.modules)"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_has_an_example_and_needs_nothing_heavy(words: tuple[str, ...]) -> None:
    done = perfbench(*words, "--help")
    assert done.returncode == 0, done.stderr
    told, _, modules = done.stdout.partition("MODULES")
    assert f"Example: perfbench {' '.join(words)}" in " ".join(told.split())
    loaded = {module.split(".")[0] for module in modules.split()}
    assert loaded & set(HEAVY) == set()


def test_the_first_page_lists_every_group_and_needs_nothing_heavy() -> None:
    done = perfbench("--help")
    told, _, modules = done.stdout.partition("MODULES")
    assert {words[0] for words in commands()} <= set(told.split())
    assert {module.split(".")[0] for module in modules.split()} & set(HEAVY) == set()


def test_an_unknown_command_or_option_is_a_users_mistake() -> None:
    for words in (("runn",), ("run", "--nonsense")):
        done = perfbench(*words)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("error", "code"), [(ValueError("x"), 70), (BrokenPipeError(), 141), (KeyboardInterrupt(), 130)])
def test_no_accident_ends_as_a_gate_that_passed_or_found_a_regression(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("perfbench.cli.app", fail)
    monkeypatch.setattr("perfbench.__main__.os.dup2", lambda *files: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
