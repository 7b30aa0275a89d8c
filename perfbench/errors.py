"""Every error that perfbench raises on purpose, and the exit code each one ends with.

    PerfbenchError                      1   something perfbench names, none of the below
    |-- InputError                      2   what the user gave cannot be used; nothing has been started
    |   |-- ScenarioError               2   a scenario file: every finding in it, each with its key path
    |   |-- ModelError                  2   a model, adapter or merge that cannot be, or does not belong together
    |   |-- EndpointError               2   a running endpoint that refuses, or does not serve what was asked for
    |   |-- RunFolderError              2   a folder that is no run, or a run that cannot be resumed
    |   |-- SandboxError                2   code that a model wrote cannot be run safely on this machine
    |   `-- NotComparableError          2   two runs of which a difference would say nothing
    |-- MissingPartError                2   an optional part (vLLM, torch, ...) that is not installed
    |-- ServerError                     4   a server that we started and that did not become or stay ready
    |-- ReferenceMismatchError          5   served answers that the reference model calls nonsense
    |-- LoadError                       6   the load process died or could not drive the stage
    |-- SampleError                     7   the sampling process died
    `-- InterruptedRunError           130   Ctrl-C or SIGTERM: drained, saved, servers stopped

    (no class)                          0   done, or a gate that passed
    (no class)                          1   a gate that found a regression
    (no class)                          3   a gate or verdict that cannot tell
    (no class)                         70   a fault of perfbench itself; never 1, which a gate would read as a regression
    (no class)                        130   Ctrl-C before a run had begun, or where nothing is to be saved
    (no class)                        141   whoever read our output went away (`| head`); never 0, which a gate would read as a pass

A message is one sentence that names the file or key, what was expected, and what to do. `hint` is printed on a line of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EXIT_FAULT = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_CANNOT_TELL = 3


class PerfbenchError(Exception):
    """Root of the tree. `exit_code` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(PerfbenchError):
    """What the user gave cannot be used."""

    exit_code = 2


@dataclass(frozen=True)
class Finding:
    """One thing wrong in a scenario: where (`load.stages[0].rate_per_s`), what was expected, and what to do."""

    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}" if self.key else self.problem


class ScenarioError(InputError):
    """All findings of one scenario file at once."""

    def __init__(self, file: str, findings: Sequence[Finding]) -> None:
        self.file = file
        self.findings = tuple(findings)
        count = "1 problem" if len(self.findings) == 1 else f"{len(self.findings)} problems"
        lines = "\n".join(f"  {finding}" for finding in self.findings)
        super().__init__(f"{file}: {count}; nothing has been started\n{lines}")

    @classmethod
    @contextmanager
    def named(cls, file: Path | None) -> Iterator[None]:
        """What is found inside is of this file; whoever looks at single values cannot know."""
        try:
            yield
        except ScenarioError as error:
            if file is None or error.file != "scenario":
                raise
            raise cls(str(file), error.findings) from None


class ModelError(InputError):
    """A model, adapter or merge that cannot be, or does not belong together."""


class EndpointError(InputError):
    """A running endpoint that refuses, or does not serve what was asked for."""


class RunFolderError(InputError):
    """A folder that is no run, or a run that cannot be resumed."""


class SandboxError(InputError):
    """Code that a model wrote cannot be run safely on this machine."""


class NotComparableError(InputError):
    """Two runs of which a difference would say nothing: they asked other questions, or ran on other machines."""


class MissingPartError(PerfbenchError):
    """An optional part that is not installed; the hint says which command installs it."""

    exit_code = 2


class ServerError(PerfbenchError):
    """A server that we started and that did not become or stay ready. The message holds vLLM's own reason and the log's path."""

    exit_code = 4


class ReferenceMismatchError(PerfbenchError):
    """Served answers that the reference (transformers, same weights) calls nonsense. No load has been driven."""

    exit_code = 5


class LoadError(PerfbenchError):
    """The load process died or could not drive the stage."""

    exit_code = 6


class SampleError(PerfbenchError):
    """The sampling process died."""

    exit_code = 7


class InterruptedRunError(PerfbenchError):
    """Ctrl-C or SIGTERM ended a run: what had finished is on disk, and no process is left."""

    exit_code = EXIT_INTERRUPTED

    def __init__(self, folder: Path) -> None:
        super().__init__(f"interrupted; everything that had finished is in {folder}", hint=f"perfbench run --resume {folder}")
