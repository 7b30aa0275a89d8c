"""Over how many load processes a trial is spread, and what each of them gets. Pure.

Worker w of W takes arrivals i = w mod W of an open loop's schedule, or streams s = w mod W of a closed loop with the requests that fall to them. Request k
of worker w is request k W + w of the trial: the same prompt under the same number as if one process sent all, and no number twice. A conversation is one
such number with all its turns, so it stays with one worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from perfbench.errors import InputError
from perfbench.load.trial import TrialSpec
from perfbench.records import TrialOutcome, WorkerOutcome

if TYPE_CHECKING:
    from perfbench.scenario import Scenario

DEFAULT_PORT = 5557
"""Locust's own."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """The load processes of a run. One alone drives by itself; otherwise a master, which drives nothing, leads workers."""

    processes: int = 1
    """On this machine."""
    workers: int = 0
    """`perfbench worker` processes that are waited for."""
    listen_host: str = "127.0.0.1"
    """Where workers reach the master; `*` is every address of this machine."""
    listen_port: int = 0
    """0: any that is free."""
    page: bool = False
    """Locust's page beside the run."""

    @property
    def total(self) -> int:
        return self.processes + self.workers

    @property
    def led(self) -> bool:
        """Whether there is a master. A page has one too: it would take time from the process that drives."""
        return self.total > 1 or self.workers > 0 or self.page


ONE_PROCESS = Scale()


def check_scale(scenario: Scenario, scale: Scale) -> None:
    """Raises InputError where workers elsewhere could not reach what is to be driven."""
    if not scale.workers:
        return
    if scenario.variants:
        raise InputError(
            "--workers: servers that perfbench starts listen on this machine only, where workers elsewhere do not reach them; "
            "start the server yourself, and drive it as an endpoint"
        )


def make_scale(*, processes: int | None, workers: int, listen: str | None, page: bool) -> Scale:
    """What the command line's options mean; raises InputError. Workers elsewhere are enough by themselves: none is then started here unless asked for."""
    if processes is not None and processes < (0 if workers else 1):
        raise InputError(f"--processes: expected at least 1 load process, got {processes}")
    if workers < 0:
        raise InputError(f"--workers: expected how many `perfbench worker` to wait for, got {workers}")
    here = processes if processes is not None else 0 if workers else 1
    if workers:
        host, port = split_address(listen or "*", "--listen")
        return Scale(processes=here, workers=workers, listen_host=host, listen_port=port, page=page)
    if listen is not None:
        raise InputError("--listen: nobody is waited for; say how many with --workers")
    return Scale(processes=here, page=page)


def split_address(address: str, option: str) -> tuple[str, int]:
    """HOST, HOST:PORT or [IPv6]:PORT, the port Locust's own where none is given; raises InputError."""
    host, colon, port = address.rpartition(":") if not address.endswith("]") else (address, "", "")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = address, str(DEFAULT_PORT)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    if not port.isdecimal() or not 0 < int(port) < 65536 or not host or any(mark in host for mark in "/@ "):
        raise InputError(f"{option}: expected HOST or HOST:PORT, got {address}")
    return host, int(port)


def share(total: int, worker: int, workers: int) -> int:
    """Of `total` things that are dealt out in turn, how many worker number `worker` gets."""
    return total // workers + (worker < total % workers)


def workers_of(spec: TrialSpec, workers: int) -> int:
    """How many of the workers a trial can use: no stream, and no place in flight, can be halved."""
    return min(workers, *(limit for limit in (spec.concurrency, spec.requests) if limit is not None), spec.max_in_flight)


def worker_spec(spec: TrialSpec, worker: int, workers: int) -> TrialSpec:
    """The part of a trial that one worker drives."""
    files = spec.files_of(worker)
    return msgspec.structs.replace(
        spec,
        worker=worker,
        workers=workers,
        concurrency=None if spec.concurrency is None else share(spec.concurrency, worker, workers),
        requests=_requests_of(spec, worker, workers),
        max_in_flight=share(spec.max_in_flight, worker, workers),
        spool_path=files.spool_path,
        records_path=files.records_path,
        further=[],
    )


def _requests_of(spec: TrialSpec, worker: int, workers: int) -> int | None:
    """Those that fall to the worker's streams, so that workers with more streams do not end sooner."""
    if spec.requests is None or spec.concurrency is None:
        return None
    return sum(share(spec.requests, stream, spec.concurrency) for stream in range(worker, spec.concurrency, workers))


def merged(outcomes: Sequence[TrialOutcome], workers: Sequence[WorkerOutcome]) -> TrialOutcome:
    """The outcome of a trial by those of its workers, all on the master's clock: `workers` says by how much each clock is ahead.

    The window ends when the first worker's does: until then every one was driving. Of what makes a client doubtful, the worst counts.
    """
    first = outcomes[0]
    offsets = [worker.clock_offset_ns for worker in workers]
    return msgspec.structs.replace(
        first,
        started_ns=first.started_ns - offsets[0],
        measure_from_ns=first.measure_from_ns - offsets[0],
        measure_until_ns=min(outcome.measure_until_ns - offset for outcome, offset in zip(outcomes, offsets, strict=True)),
        ended_ns=max(outcome.ended_ns - offset for outcome, offset in zip(outcomes, offsets, strict=True)),
        held_back=sum(outcome.held_back for outcome in outcomes),
        client_cpu_s=_worst([outcome.client_cpu_s for outcome in outcomes]),
        gc_collections=sum(outcome.gc_collections for outcome in outcomes),
        loop_lag_max_s=_worst([outcome.loop_lag_max_s for outcome in outcomes]),
        clock_step_max_s=_worst([outcome.clock_step_max_s for outcome in outcomes]),
        stamp="user" if any(outcome.stamp == "user" for outcome in outcomes) else "kernel",
        workers=list(workers),
    )


def _worst(values: Sequence[float | None]) -> float | None:
    """The largest; None where one of them is not known."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None
