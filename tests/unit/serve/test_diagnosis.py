"""Reasons found in logs that vLLM 0.32 really wrote: vllm_logs/*.txt are the tails of runs made to fail, paths shortened."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.serve.diagnosis import diagnose, died, last_line

LOGS = Path(__file__).parent / "vllm_logs"
LORA = Path("/adapters/mine")


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("context_too_long", "did not start: vLLM refuses its arguments: User-specified max_model_len (999999) is greater than the derived max_model_len"),
        ("pydantic_field", "did not start: vLLM refuses its arguments: gpu_memory_utilization: Input should be less than or equal to 1"),
        ("no_weights", "did not start; vLLM says: Cannot find any model weights with `noweights`"),
        ("kv_cache_too_small", "did not start for want of memory; vLLM says: To serve at least one request with the model's max seq len (8192), (0.18 GiB KV"),
        ("damaged_adapter", "did not start: vLLM cannot load the adapter /adapters/mine: SafetensorError: Error while deserializing header: header too large"),
        ("worker_killed_starting", "did not start: one of its processes was killed without a word, most probably by the kernel because the machine ran out"),
        ("worker_killed_later", "did not start: its process VllmWorker-0 was killed (SIGKILL), most probably by the kernel because the machine ran out"),
    ],
)
def test_the_reason_is_vllms_own(log: str, reason: str) -> None:
    found = diagnose((LOGS / f"{log}.txt").read_text(), exit_code=1, lora=LORA)
    assert found.reason.startswith(reason)
    assert "\n" not in found.reason and len(found.reason) < 600
    assert not found.port_taken
    assert found.hint


def test_a_taken_port_is_told_apart() -> None:
    assert diagnose((LOGS / "port_taken.txt").read_text(), exit_code=1, lora=None).port_taken


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("api_server.py: error: unrecognized arguments: --max-modle-len", "unrecognized arguments: --max-modle-len"),
        ("api_server.py: error: argument --max-model-len: invalid human_readable_int_or_auto value: 'abc'", "argument --max-model-len: invalid"),
    ],
)
def test_what_argparse_refuses_is_an_argument_to_correct(line: str, reason: str) -> None:
    log = f"WARNING 11-24 04:00:00 [x.py:1] something\nusage: api_server.py [-h] [--headless]\n                     [model_tag]\n{line}\n"
    found = diagnose(log, exit_code=2, lora=None)
    assert found.reason.startswith(f"did not start: vLLM refuses its arguments: {reason}")
    assert "serve.args" in found.hint


@pytest.mark.parametrize(
    "exception",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.2 GiB is free.",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
        "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory utilization (0.92, 72.8 GiB).",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
    ],
)
def test_every_kind_of_missing_memory_is_called_that(exception: str) -> None:
    mark = "(EngineCore_DP0 pid=7) ERROR 11-24 04:00:00 [core.py:9] "
    log = f"{mark}Traceback (most recent call last):\n{mark}{exception}\n"
    found = diagnose(log, exit_code=1, lora=LORA)
    assert found.reason.startswith("did not start for want of memory; vLLM says: ")
    assert "max-model-len" in found.hint


def test_the_kernels_kill_is_seen_where_nothing_was_written() -> None:
    assert "killed (SIGKILL)" in diagnose("", exit_code=-9, lora=None).reason
    assert "killed (SIGKILL)" in diagnose("", exit_code=137, lora=None).reason


def test_of_a_chain_the_last_exception_is_told_and_of_two_processes_the_first() -> None:
    log = """
(Worker pid=2) ERROR 11-24 04:00:01 [w.py:1] Traceback (most recent call last):
(APIServer pid=1) INFO 11-24 04:00:01 [a.py:1] waiting
(Worker pid=2) ERROR 11-24 04:00:01 [w.py:1]   File "w.py", line 1, in load
(Worker pid=2) ERROR 11-24 04:00:01 [w.py:1] KeyError: 'q'
(Worker pid=2) ERROR 11-24 04:00:01 [w.py:1]
(Worker pid=2) ERROR 11-24 04:00:01 [w.py:1] During handling of the above exception, another exception occurred:
(Worker pid=2) ERROR 11-24 04:00:01 [w.py:1]
(Worker pid=2) ERROR 11-24 04:00:01 [w.py:1] Traceback (most recent call last):
(Worker pid=2) ERROR 11-24 04:00:01 [w.py:1]   File "w.py", line 2, in load
(Worker pid=2) ERROR 11-24 04:00:01 [w.py:1] ValueError: the weight `q` is missing
(EngineCore pid=3) ERROR 11-24 04:00:02 [e.py:1] Traceback (most recent call last):
(EngineCore pid=3) ERROR 11-24 04:00:02 [e.py:1] ConnectionResetError: peer went away
"""
    assert diagnose(log, exit_code=1, lora=None).reason == "did not start; vLLM says: the weight `q` is missing"


def test_a_death_in_use_is_not_called_a_failed_start() -> None:
    said = died((LOGS / "worker_killed_later.txt").read_text(), exit_code=0, lora=None)
    assert said.startswith("died while it was in use: its process VllmWorker-0 was killed (SIGKILL)")


def test_the_last_line_is_given_without_process_and_stamp() -> None:
    log = "(EngineCore pid=5) INFO 11-24 04:00:00 [core.py:1] Loading weights\n\n(EngineCore pid=5) INFO 11-24 04:00:00 [core.py:1] \n"
    assert last_line(log) == "Loading weights"
    assert last_line("") == ""


STAMP = "(W pid=1) ERROR 11-24 04:00:00 [a:1] "
LINES = ["Traceback (most recent call last):", STAMP, "(W pid=1) ", "1 validation error for X", "ValueError: x", "  at", "\r", "\n", ""]
LINES += [STAMP + line for line in LINES]


@given(st.lists(st.sampled_from(LINES)).map("\n".join), st.one_of(st.none(), st.integers(-15, 255)))
def test_any_log_gives_one_line(log: str, exit_code: int | None) -> None:
    found = diagnose(log, exit_code=exit_code, lora=None)
    assert found.reason.startswith("did not start")
    assert "\n" not in found.reason
