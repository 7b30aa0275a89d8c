"""Why a server did not start: vLLM's own reason, found in its log. Pure; texts as vLLM 0.32 writes them.

vLLM's processes write into one log, each line marked with its process. The reason is the first traceback that is no mere echo of
another process's death; a chain of exceptions ends with the one that says most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROCESS = re.compile(r"^\(([^()]* pid=\d+)\) ?")
_STAMP = re.compile(r"^(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d [\d:]+ \[[^\]]*\] ?")
_ARGUMENTS = re.compile(r"^\S+\.py: error: (.+)$", re.MULTILINE)
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:: |:?$)")
_CHAIN = ("During handling of the above exception", "The above exception was the direct cause")
_ECHO = re.compile(
    r"See root cause above|See stack trace for root cause|^(?:\S+\.)?(?:KeyboardInterrupt|SystemExit|CancelledError|EngineDeadError|EngineGenerateError)\b|"
    r"Worker failed with error"
)
_DIED = re.compile(r"(?:Worker proc|Engine core proc) (\S+) died unexpectedly(?: \(exit code: (-?\d+)\))?")
_CORE_DIED = re.compile(r"Failed core proc\(s\): \{'([^']+)': (-9|137)\}")
_PORT_TAKEN = re.compile(r"Address already in use")
_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|MemoryError|No available memory for the cache blocks|larger than the available KV cache|"
    r"less than desired GPU memory utilization|less than requested memory for kv|can't allocate memory|Cannot allocate memory",
    re.IGNORECASE,
)
_MEMORY_HINT = "lower `max-model-len`, `max-num-seqs` or the KV cache in `serve`, turn `side_by_side` off, or free memory on the machine"
_BY_KERNEL = "most probably by the kernel because the machine ran out of memory"
_LONGEST_REASON = 400


@dataclass(frozen=True)
class Diagnosis:
    """A clause that ends the sentence "server `NAME` ...", and what to do about it."""

    reason: str
    hint: str
    port_taken: bool = False


@dataclass(frozen=True)
class _Failure:
    """The last exception of a traceback, and whether vLLM's LoRA code stands in it."""

    exception: str
    in_lora: bool


def diagnose(log: str, *, exit_code: int | None, lora: Path | None) -> Diagnosis:
    """What the log of a server that ended early, or was ended by us (`exit_code` None), says of the cause."""
    if refused := _ARGUMENTS.search(log):
        return Diagnosis(f"did not start: vLLM refuses its arguments: {_shortened(refused[1])}", "correct `serve.args` in the scenario")
    if killed := _killed(log, exit_code):
        return Diagnosis(f"did not start: {killed} was killed (SIGKILL), {_BY_KERNEL}", _MEMORY_HINT)
    failures = list(_failures(log))
    failure = next((failure for failure in failures if not _ECHO.search(failure.exception)), None)
    if failure is not None:
        return _from_exception(failure, lora)
    if any("initialization failed" in failure.exception for failure in failures):
        # A worker that fails writes its traceback first; one that vLLM misses without any was killed.
        return Diagnosis(f"did not start: one of its processes was killed without a word, {_BY_KERNEL}", _MEMORY_HINT)
    ended = "gave no reason" if exit_code is None else f"ended with {_exit_words(exit_code)} and gave no reason"
    last = last_line(log)
    return Diagnosis(f"did not start: vLLM {ended}" + (f"; its last line is: {last}" if last else ""), "read the log")


def died(log: str, *, exit_code: int, lora: Path | None) -> str:
    """The clause for a server that was ready and has ended since."""
    return diagnose(log, exit_code=exit_code, lora=lora).reason.replace("did not start", "died while it was in use", 1)


def last_line(log: str) -> str:
    """The last line with something in it, without process and stamp."""
    for line in reversed(log.splitlines()):
        text = _STAMP.sub("", _PROCESS.sub("", line)).strip()
        if text:
            return text[:200]
    return ""


def _from_exception(failure: _Failure, lora: Path | None) -> Diagnosis:
    text = _shortened(failure.exception)
    if _PORT_TAKEN.search(text):
        return Diagnosis("did not start: its port was taken by another program before it could bind it", "start again", port_taken=True)
    if _MEMORY.search(text):
        return Diagnosis(f"did not start for want of memory; vLLM says: {text}", _MEMORY_HINT)
    if lora is not None and failure.in_lora:
        return Diagnosis(f"did not start: vLLM cannot load the adapter {lora}: {text}", "check that the adapter is whole and belongs to this base model")
    if "validation error" in failure.exception.splitlines()[0]:
        return Diagnosis(f"did not start: vLLM refuses its arguments: {text}", "correct `serve.args` in the scenario")
    return Diagnosis(f"did not start; vLLM says: {text}", "read the log")


def _killed(log: str, exit_code: int | None) -> str | None:
    for name, code in (*_DIED.findall(log), *_CORE_DIED.findall(log)):
        if code in ("-9", "137"):
            return f"its process {name}"
    return "it" if exit_code in (-9, 137) else None


def _exit_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _shortened(exception: str) -> str:
    """An exception in one line. Of a pydantic error: the field and the problem, without the echo of all input."""
    lines = [line.strip() for line in exception.splitlines()]
    if "validation error" in lines[0]:
        kept = [re.sub(r"\s*\[type=.*", "", line).removeprefix("Value error, ") for line in lines[1:] if not line.startswith("For further information")]
        lines = [": ".join(line for line in kept if line)]
    text = re.sub(r"\s+", " ", " ".join(line for line in lines if line))
    # The class without its module, and not at all where it says nothing.
    text = re.sub(r"^[\w.]+\.(?=\w+: )", "", text)
    text = re.sub(r"^(?:RuntimeError|ValueError|Exception): ", "", text)
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON].rsplit(" ", 1)[0] + " ..."


def _failures(log: str) -> Iterator[_Failure]:
    """Every chain of tracebacks in the log, by its last exception, in the order in which they ended."""
    streams: dict[str, list[str]] = {}
    ends: list[tuple[int, _Failure]] = []
    numbers: dict[str, list[int]] = {}
    for number, line in enumerate(log.splitlines()):
        marked = _PROCESS.match(line)
        process = marked[1] if marked else ""
        streams.setdefault(process, []).append(_STAMP.sub("", line[marked.end() :] if marked else line))
        numbers.setdefault(process, []).append(number)
    for process, lines in streams.items():
        ends += [(numbers[process][at], failure) for at, failure in _chains(lines)]
    yield from (failure for _, failure in sorted(ends, key=lambda end: end[0]))


def _chains(lines: list[str]) -> Iterator[tuple[int, _Failure]]:
    """(number of the line, failure) for each chain of tracebacks in one process's lines."""
    at, in_lora = 0, False
    while at < len(lines):
        if not lines[at].startswith("Traceback (most recent call last)"):
            at += 1
            continue
        at += 1
        while at < len(lines) and (not lines[at] or lines[at][0] == " " or not _EXCEPTION.match(lines[at])):
            in_lora |= "/vllm/lora/" in lines[at]
            at += 1
        if at == len(lines):
            return
        first, at = at, at + 1
        while at < len(lines) and lines[at].strip() and not lines[at].startswith(("Traceback", "[", "INFO")) and _continues(lines, first, at):
            at += 1
        after = next((line for line in lines[at : at + 3] if line.strip()), "")
        if not after.startswith(_CHAIN):
            yield first, _Failure("\n".join(lines[first:at]), in_lora)
            in_lora = False


def _continues(lines: list[str], first: int, at: int) -> bool:
    """Whether line `at` belongs to the exception that begins at `first`: pydantic's fields stand at the margin, other texts are indented."""
    return lines[at][0] == " " or "validation error" in lines[first]
