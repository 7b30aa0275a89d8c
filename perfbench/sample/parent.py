"""The sampler as the run sees it: a context manager around the sampling process.

Starts the process, tells it which servers to watch, keeps its newest status line for live progress, and ends it. Its death is
never silent: the next call raises SampleError. What it had read is in the run folder's spool and comes back with
`RunFolder.recover_telemetry()`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from types import TracebackType
from typing import IO, Self

import msgspec

from perfbench.errors import SampleError
from perfbench.results import RunFolder
from perfbench.sample.spec import Order, SamplerSpec, SampleTarget, Status
from perfbench.scenario.model import Telemetry

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 300.0
"""Writing an hour of samples as Parquet takes seconds; a machine under load, longer."""


class Sampler:
    """Samples from `with` to the end of the block, into `folder.telemetry_path(session)`.

    Enter it before any server starts: the first reading of the GPUs is then the baseline that a server's memory is told from where
    NVML cannot see processes (containers). Servers are added once they are ready and removed before they are stopped.
    `client` samples are the process tree of the calling process without servers and sampler. Raises SampleError when the sampling
    process does not start, has died, or a session of this name has been sampled before.
    """

    def __init__(self, folder: RunFolder, session: str, targets: list[SampleTarget], telemetry: Telemetry) -> None:
        self._spec = SamplerSpec(
            folder=str(folder.path.absolute()), session=session, parent_pid=os.getpid(), targets=targets,
            gpu_hz=telemetry.gpu_hz, host_hz=telemetry.host_hz, server_hz=telemetry.server_hz,
        )  # fmt: skip
        self._files = (folder.telemetry_path(session), folder.telemetry_spool(session))
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._begun = threading.Event()
        self._status = Status(latest={}, not_measured={}, missed={})

    def __enter__(self) -> Self:
        taken = [path for path in self._files if path.exists()]
        if taken:
            raise SampleError(f"{taken[0]} exists: session `{self._spec.session}` has been sampled before; give this one another name")
        self._stderr = tempfile.TemporaryFile()  # closed in _close: it must outlive this call
        # A session of its own: Ctrl-C at the terminal is the run's to handle, and the sampler ends when its stdin closes.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perfbench.sample.sampler"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read_status, name="sampler-status", daemon=True)
        self._reader.start()
        self._send(self._spec)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._begun.wait(0.05):
            if self._process.poll() is not None or time.monotonic() > deadline:
                reason = self._reason()
                self._close()
                raise SampleError(f"the sampling process did not start: {reason}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        reason = self._end()
        self._close()
        if reason is not None and kind is None:
            raise SampleError(f"the sampling process died: {reason}", hint="what it had read is in the run folder; `perfbench run --resume` keeps it")

    @property
    def pid(self) -> int:
        """Of the sampling process."""
        return self._alive().pid

    def add_target(self, target: SampleTarget) -> None:
        """Watch one more server from now on."""
        self._alive()
        self._send(Order(add=target))

    def remove_target(self, server: str) -> None:
        """Stop watching a server; call it before the server is stopped, so that its end is not counted as failed readings."""
        self._alive()
        self._send(Order(remove=server))

    def latest(self) -> dict[str, dict[str, float]]:
        """Newest values for a progress line: server, `gpu <index>`, `machine` or `client` -> name -> value. Refreshed once a second."""
        self._alive()
        return self._status.latest

    @property
    def not_measured(self) -> dict[str, str]:
        """Readings that this machine or server does not give, each with its reason. Also valid after the end."""
        return self._status.not_measured

    @property
    def missed(self) -> dict[str, int]:
        """Failed readings so far, by source. Also valid after the end."""
        return self._status.missed

    def _alive(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None:
            raise SampleError("the sampler is used outside its `with` block; enter it first")
        if process.poll() is not None:
            raise SampleError(f"the sampling process died: {self._reason()}", hint="what it had read is in the run folder's telemetry spool")
        return process

    def _send(self, message: msgspec.Struct) -> None:
        assert self._process is not None and self._process.stdin is not None
        # A broken pipe means that the process is gone, which every caller finds out from its exit status, with the reason.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()

    def _read_status(self) -> None:
        """Runs in a thread: the pipe must be drained, or a sampler whose status nobody asks for would block on it."""
        assert self._process is not None and self._process.stdout is not None
        decoder = msgspec.json.Decoder(Status)
        for line in self._process.stdout:
            self._status = decoder.decode(line)
            self._begun.set()

    def _end(self) -> str | None:
        """Close stdin, wait for the Parquet; why the process failed, or None."""
        process = self._process
        if process is None or process.stdin is None:
            return None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"it did not finish writing within {END_TIMEOUT_S:.0f} s"
        # Its last word counts, not its exit status, which reads 0 when another part of the run has collected the process.
        self._reader.join()
        return None if self._status.finished else self._reason()

    def _reason(self) -> str:
        """The last line that the process wrote to stderr, else how it ended."""
        assert self._process is not None and self._stderr is not None
        code = self._process.poll()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        ended = "it does not answer" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"{ended} ({lines[-1]})" if lines else ended

    def _close(self) -> None:
        """Whatever happened, leave no process, thread or file."""
        if self._process is None or self._stderr is None:
            return
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process = None
