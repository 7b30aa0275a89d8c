"""Host memory and CPU by psutil: each server's process tree, the client's, the whole machine, and who else is busy on it."""

from __future__ import annotations

import time

import psutil

from perfbench.records import Sample
from perfbench.sample.processes import CLIENT, SAMPLER, ProcessGroups, server_group
from perfbench.sample.spec import Miss, SampleTarget

PSS_PERIOD_S = 10.0
"""The kernel walks every page for it: 50 ms for 2 GiB, measured on a vLLM worker, where RSS takes 0.03 ms."""


class HostReader:
    """Reads all host samples; `groups` must have been refreshed just before. One thread."""

    def __init__(self, groups: ProcessGroups) -> None:
        self._groups = groups
        self._pss_due_s: dict[str, float] = {}
        self._before: tuple[float, float, float] | None = None

    def read_server(self, target: SampleTarget, miss: Miss) -> list[Sample]:
        """Memory, CPU and size of one server's process tree; nothing for an endpoint, whose processes are not ours to see."""
        if target.root_pid is None:
            return []
        group = server_group(target.server)
        rss = threads = processes = 0
        begun = time.monotonic_ns()
        for process in self._groups.members(group):
            try:
                with process.oneshot():
                    rss += process.memory_info().rss
                    threads += process.num_threads()
                processes += 1
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied:
                miss(f"host_rss_bytes of server {target.server}", f"process {process.pid} belongs to another user")
                return []
        t_ns = (begun + time.monotonic_ns()) // 2
        if rss == 0:  # none left, or only ones that have ended and wait to be collected
            miss(f"host_rss_bytes of server {target.server}", f"its process {target.root_pid} has ended")
            return []
        found = [
            ("host_rss_bytes", float(rss), "bytes"),
            ("server_cpu_s", self._groups.cpu_s(group), "s"),
            ("server_threads", float(threads), "threads"),
            ("server_processes", float(processes), "processes"),
        ]
        return _samples(t_ns, "host", found, target.labels()) + self._read_pss(target, miss)

    def _read_pss(self, target: SampleTarget, miss: Miss) -> list[Sample]:
        """Proportional set size: a page shared by n processes counts 1/n in each, so the sum over a tree counts it once."""
        now = time.monotonic()
        if now < self._pss_due_s.get(target.server, 0.0):
            return []
        self._pss_due_s[target.server] = now + PSS_PERIOD_S
        total = 0
        begun = time.monotonic_ns()
        for process in self._groups.members(server_group(target.server)):
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
            except (psutil.AccessDenied, AttributeError, OSError):
                miss(f"host_pss_bytes of server {target.server}", f"/proc/{process.pid}/smaps_rollup cannot be read")
                return []
        return _samples((begun + time.monotonic_ns()) // 2, "host", [("host_pss_bytes", float(total), "bytes")], target.labels()) if total else []

    def read_client(self) -> list[Sample]:
        """The run's own process tree (load processes included) and the sampler's own CPU."""
        rss = processes = 0
        for process in self._groups.members(CLIENT):
            try:
                rss += process.memory_info().rss
                processes += 1
            except psutil.Error:
                continue
        found = [("client_cpu_s", self._groups.cpu_s(CLIENT), "s"), ("sampler_cpu_s", self._groups.cpu_s(SAMPLER), "s")]
        if processes:
            found += [("client_rss_bytes", float(rss), "bytes"), ("client_processes", float(processes), "processes")]
        return _samples(time.monotonic_ns(), "client", found, {})

    def read_machine(self) -> list[Sample]:
        """The whole machine; `other_cpu_cores` is what neither servers, client nor sampler used, in cores, since the last reading."""
        now = time.monotonic()
        times = psutil.cpu_times()
        # guest time is part of user time already, and steal is what the hypervisor kept for others.
        steal = float(getattr(times, "steal", 0.0))
        busy = times.user + times.nice + times.system + times.irq + times.softirq
        found = [
            ("machine_cpu_s", busy, "s"),
            ("machine_steal_s", steal, "s"),
            ("machine_available_bytes", float(psutil.virtual_memory().available), "bytes"),
            ("machine_load1", psutil.getloadavg()[0], "processes"),
        ]
        ours = self._groups.all_cpu_s()
        if self._before is not None and now > self._before[0]:
            # Kernel ticks of 10 ms can make our share look larger than the whole; less than nothing is nothing.
            others = max(0.0, (busy - self._before[1]) - (ours - self._before[2])) / (now - self._before[0])
            found.append(("other_cpu_cores", others, "cores"))
        self._before = (now, busy, ours)
        return _samples(time.monotonic_ns(), "host", found, {})


def _samples(t_ns: int, source: str, found: list[tuple[str, float, str]], labels: dict[str, str]) -> list[Sample]:
    return [Sample(t_ns=t_ns, source=source, name=name, value=value, unit=unit, labels=labels) for name, value, unit in found]
