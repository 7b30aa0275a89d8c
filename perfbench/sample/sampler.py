"""The sampling process: `python -m perfbench.sample.sampler`, started by `sample.Sampler`, fed on stdin (spec.py), ends when it closes.

One thread a source, each on its own absolute schedule, so that a slow answer of one never moves another: the GPUs (gpu_hz), the host
and who is on the GPUs (host_hz), each server's `/metrics` (server_hz). Rows go to the session's spool as they are read and become
Parquet at the end. A source that fails is named once, counted, and tried again at its next turn.
"""

from __future__ import annotations

import http.client
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from perfbench.records import Sample
from perfbench.result_tables import write_samples
from perfbench.results import RunFolder
from perfbench.sample.host import HostReader
from perfbench.sample.nvml import Gpus
from perfbench.sample.processes import ProcessGroups
from perfbench.sample.spec import Order, SamplerSpec, SampleTarget, Status
from perfbench.sample.vllm_metrics import MetricsScraper
from perfbench.spool import Spool, read_spool

STATUS_PERIOD_S = 1.0
LATEST_MAX_AGE_NS = 5_000_000_000
SCRAPE_TIMEOUT_MAX_S = 5.0


class Journal:
    """Where all threads put their rows: the spool, the newest values, and what was missed."""

    def __init__(self, folder: RunFolder, session: str) -> None:
        self._spool_path, self._parquet_path = folder.telemetry_spool(session), folder.telemetry_path(session)
        self._spool: Spool[Sample] = Spool(self._spool_path)
        self._lock = threading.Lock()
        self._latest: dict[tuple[str, str], Sample] = {}
        self._measured: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._missed: dict[str, int] = {}
        self._missed_told: dict[str, int] = {}
        self._finished = False

    def append(self, samples: list[Sample]) -> None:
        with self._lock:
            if self._finished:
                return  # a scrape that answered after the end; its descriptor may be another file's by now
            for sample in samples:
                self._spool.append(sample)
                self._latest[_owner(sample), sample.name] = sample
                self._measured.add(_subject(sample))

    def miss(self, subject: str, reason: str) -> None:
        """One reading of `subject` failed."""
        with self._lock:
            self._missed[subject] = self._missed.get(subject, 0) + 1
            self._reasons.setdefault(subject, reason)

    def overrun(self, subject: str, readings: int) -> None:
        """So many readings were left out because the one before them took too long: counted, but `subject` can be measured."""
        with self._lock:
            self._missed[subject] = self._missed.get(subject, 0) + readings

    def not_measured(self, subject: str, reason: str) -> None:
        """`subject` cannot be measured here at all: named, not counted."""
        with self._lock:
            self._reasons.setdefault(subject, reason)

    def tell_missed(self) -> None:
        """A row for each count that has changed since the last call."""
        with self._lock:
            changed = {subject: count for subject, count in self._missed.items() if self._missed_told.get(subject) != count}
            self._missed_told.update(changed)
            for subject, count in changed.items():
                labels = {"of": subject}
                self._spool.append(
                    Sample(t_ns=time.monotonic_ns(), source=_source(subject), name="missed_readings", value=float(count), unit="readings", labels=labels)
                )

    def status(self, *, finished: bool = False) -> Status:
        oldest = time.monotonic_ns() - LATEST_MAX_AGE_NS
        with self._lock:
            latest: dict[str, dict[str, float]] = {}
            for (owner, name), sample in self._latest.items():
                if sample.t_ns >= oldest:
                    latest.setdefault(owner, {})[name] = sample.value
            never = {subject: reason for subject, reason in self._reasons.items() if subject not in self._measured}
            return Status(latest=latest, not_measured=never, missed=dict(self._missed), finished=finished)

    def finish(self) -> None:
        """Spool to Parquet."""
        self.tell_missed()
        with self._lock:
            self._finished = True
            self._spool.close()
            write_samples(self._parquet_path, read_spool(self._spool_path, Sample))
            self._spool_path.unlink(missing_ok=True)  # a resumed run may have recovered it already


def _owner(sample: Sample) -> str:
    """Whose value it is, for the progress line."""
    if "server" in sample.labels:
        return sample.labels["server"]
    if "device" in sample.labels:
        return f"gpu {sample.labels['device']}"
    return "client" if sample.source == "client" else "machine"


def _subject(sample: Sample) -> str:
    """The name that a failure of this reading goes by (`miss`)."""
    if sample.source == "server":
        return f"metrics of server {sample.labels['server']}"
    if "server" in sample.labels:
        return f"{sample.name} of server {sample.labels['server']}"
    return f"{sample.name} of gpu {sample.labels['device']}" if "device" in sample.labels else sample.name


def _source(subject: str) -> str:
    return "server" if subject.startswith("metrics of ") else "nvml" if " of gpu " in subject or subject.startswith("vram_bytes") else "host"


class Schedule(threading.Thread):
    """Calls `read` every 1/hz s after the start, never earlier or later by drift; turns that a slow reading overran are counted as missed."""

    def __init__(self, name: str, hz: float, read: Callable[[], None], overrun: Callable[[int], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._period_s, self._read, self._overrun = 1.0 / hz, read, overrun
        self._stop_now = threading.Event()

    def run(self) -> None:
        start, turn = time.monotonic(), 0
        while not self._stop_now.is_set():
            self._read()
            next_turn = max(turn + 1, math.ceil((time.monotonic() - start) / self._period_s))
            if next_turn > turn + 1:
                self._overrun(next_turn - turn - 1)
            turn = next_turn
            self._stop_now.wait(start + turn * self._period_s - time.monotonic())

    def stop(self) -> None:
        """Ask it to end; `join` waits for the reading under way."""
        self._stop_now.set()


class Sampling:
    """All sources of one session."""

    def __init__(self, spec: SamplerSpec) -> None:
        self._spec = spec
        self.journal = Journal(RunFolder(Path(spec.folder)), spec.session)
        self._groups = ProcessGroups(client_root=spec.parent_pid, sampler_root=os.getpid())
        self._host = HostReader(self._groups)
        self._targets: dict[str, SampleTarget] = {}
        self._targets_changed = True
        self._scrapes: dict[str, Schedule] = {}
        self._gpus = Gpus()
        if self._gpus.unavailable is not None:
            for name in ("vram_bytes", "energy_j"):
                self.journal.not_measured(name, self._gpus.unavailable)
        elif not spec.targets:
            self._gpus.set_baseline()
        self._schedules = [Schedule("host", spec.host_hz, self._guarded("host readings", self._read_host), self._overrun("host readings"))]
        if self._gpus.available():
            self._schedules.append(Schedule("gpus", spec.gpu_hz, self._guarded("gpu readings", self._read_gpus), self._overrun("gpu readings")))
        for target in spec.targets:
            self.add(target)

    def start(self) -> None:
        """First readings at once, then on schedule."""
        self.journal.append(self._gpus.read_totals(self.journal.miss))
        for schedule in self._schedules:
            schedule.start()

    def follow(self, order: Order) -> None:
        if order.remove is not None:
            self._remove(order.remove)
        if order.add is not None:
            self._remove(order.add.server)
            self.add(order.add)

    def add(self, target: SampleTarget) -> None:
        self._targets = {**self._targets, target.server: target}
        self._targets_changed = True
        subject = f"metrics of server {target.server}"
        if target.metrics_url is None:
            self.journal.not_measured(subject, "it has no metrics address")
            return
        scraper = MetricsScraper(target, timeout_s=min(0.8 / self._spec.server_hz, SCRAPE_TIMEOUT_MAX_S))

        def scrape() -> None:
            try:
                self.journal.append(scraper.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.journal.miss(subject, f"{target.metrics_url}: {error}" if str(error) else f"{target.metrics_url}: {type(error).__name__}")

        self._scrapes[target.server] = Schedule(subject, self._spec.server_hz, scrape, self._overrun(subject))
        self._scrapes[target.server].start()

    def _remove(self, server: str) -> None:
        self._targets = {name: target for name, target in self._targets.items() if name != server}
        self._targets_changed = True
        schedule = self._scrapes.pop(server, None)
        if schedule is not None:
            schedule.stop()

    def end(self) -> None:
        for schedule in (*self._schedules, *self._scrapes.values()):
            schedule.stop()
        for schedule in (*self._schedules, *self._scrapes.values()):
            schedule.join(SCRAPE_TIMEOUT_MAX_S + 1)
        self._gpus.close()
        self.journal.finish()

    def _read_gpus(self) -> None:
        self.journal.append(self._gpus.read_devices(self.journal.miss))

    def _read_host(self) -> None:
        if self._targets_changed:  # asked here, in the one thread that may touch the groups
            self._targets_changed = False
            self._groups.set_servers({target.server: target.root_pid for target in self._targets.values() if target.root_pid is not None})
        targets = list(self._targets.values())
        self._groups.refresh()
        samples = [*self._host.read_machine(), *self._host.read_client()]
        for target in targets:
            samples += self._host.read_server(target, self.journal.miss)
        if self._gpus.available():
            samples += self._gpus.read_processes(targets, self._groups, self.journal.miss)
        self.journal.append(samples)

    def _guarded(self, subject: str, read: Callable[[], None]) -> Callable[[], None]:
        """A system call that fails in an odd way costs one reading, not the source."""

        def reading() -> None:
            try:
                read()
            except OSError as error:
                self.journal.miss(subject, str(error))

        return reading

    def _overrun(self, subject: str) -> Callable[[int], None]:
        def count(turns: int) -> None:
            self.journal.overrun(subject, turns)

        return count


def main() -> None:
    """Sample until stdin closes or the parent is gone."""
    threading.excepthook = _die_of
    lines = _Lines(sys.stdin.fileno())
    first = lines.wait_for_first()
    if first is None:
        return
    spec = msgspec.json.decode(first, type=SamplerSpec)
    sampling = Sampling(spec)
    sampling.start()
    orders = msgspec.json.Decoder(Order)
    due = time.monotonic()
    # A pipe end that some child of the run has inherited would keep stdin open after the run is dead: the parent's pid says so too.
    while not lines.closed and os.getppid() == spec.parent_pid:
        for line in lines.read(max(0.0, due - time.monotonic())):
            sampling.follow(orders.decode(line))
        if time.monotonic() >= due:
            due += STATUS_PERIOD_S
            sampling.journal.tell_missed()
            _say(sampling.journal.status())
    sampling.end()
    _say(sampling.journal.status(finished=True))


def _die_of(arguments: threading.ExceptHookArgs) -> None:
    """A source that dies of a defect ends the process: samples that silently stop would be worse. The run says SampleError."""
    sys.stderr.write(f"{type(arguments.exc_value).__name__} in the thread for {arguments.thread.name if arguments.thread else '?'}: {arguments.exc_value}\n")
    sys.stderr.flush()
    os._exit(1)


def _say(status: Status) -> None:
    try:
        sys.stdout.buffer.write(msgspec.json.encode(status) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the run is dead; the loop sees that too and still writes the Parquet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Lines:
    """Whole lines of a pipe, waited for at most so long."""

    def __init__(self, file: int) -> None:
        self._file, self._rest, self.closed = file, b"", False

    def wait_for_first(self) -> bytes | None:
        """The spec; None when the pipe closes before it."""
        while b"\n" not in self._rest and not self.closed:
            self._fill(None)
        first, _, self._rest = self._rest.partition(b"\n")
        return None if self.closed and not first else first

    def read(self, timeout_s: float) -> list[bytes]:
        self._fill(0.0 if b"\n" in self._rest else timeout_s)
        *lines, self._rest = self._rest.split(b"\n")
        return lines

    def _fill(self, timeout_s: float | None) -> None:
        ready, _, _ = select.select([self._file], [], [], timeout_s)
        if ready:
            more = os.read(self._file, 65536)
            self.closed = not more
            self._rest += more


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
