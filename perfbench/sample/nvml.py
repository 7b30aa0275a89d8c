"""NVIDIA GPUs by NVML (nvidia-ml-py, the vendor's own binding): memory, utilisation, power, energy, clocks, and who is on them.

All devices of the machine are sampled, each labelled with its NVML index and uuid. CUDA_VISIBLE_DEVICES does not change that: it may
hold indices in CUDA's order, which need not be NVML's, or uuids; the processes that NVML names on a device say which server uses it.

In a container NVML may name processes by the host's pids, name none, or give them no memory. Then `vram_bytes` is the device's memory
minus the first reading of the session, labelled `device minus baseline`; it needs a session that began before the server did, and one
server at a time. Foreign processes cannot be told then, and are not measured.

What the tests' stand-in library cannot show, and only a real GPU can: whether a driver's readings are right, how often its counters
move (power and energy are refreshed every 20 to 100 ms by the hardware, whatever gpu_hz says), what a call costs under load, MIG.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pynvml

from perfbench.records import Sample
from perfbench.sample.processes import CLIENT, ProcessGroups, server_group
from perfbench.sample.spec import Miss, SampleTarget

_REASONS = {
    0x1: "gpu_idle", 0x2: "applications_clocks_setting", 0x4: "sw_power_cap", 0x8: "hw_slowdown", 0x10: "sync_boost",
    0x20: "sw_thermal_slowdown", 0x40: "hw_thermal_slowdown", 0x80: "hw_power_brake_slowdown", 0x100: "display_clock_setting",
}  # fmt: skip
"""Bits of nvmlClocksEventReasons (nvml.h)."""

PER_PROCESS = "per process"
MINUS_BASELINE = "device minus baseline"


class _Device(NamedTuple):
    number: int
    """NVML's index."""
    uuid: str
    handle: Any

    def labels(self) -> dict[str, str]:
        return {"device": str(self.number), "uuid": self.uuid}


class _Reading(NamedTuple):
    """One call of NVML, and what its answer holds."""

    parts: tuple[tuple[str, str], ...]
    """(name, unit) of each value."""
    read: Callable[[Any], tuple[float, ...]]


def _busy(gpu: Any) -> tuple[float, float]:
    rates = pynvml.nvmlDeviceGetUtilizationRates(gpu)
    return rates.gpu, rates.memory


def _used(gpu: Any) -> tuple[float]:
    return (pynvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2).used,)


def _total(gpu: Any) -> tuple[float]:
    return (pynvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2).total,)


_TOTAL = _Reading((("vram_total_bytes", "bytes"),), _total)
_READINGS = (
    _Reading((("vram_used_bytes", "bytes"),), _used),
    _Reading((("gpu_busy_percent", "%"), ("memory_busy_percent", "%")), _busy),
    _Reading((("power_w", "W"),), lambda gpu: (pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,)),  # NVML: milliwatts
    _Reading((("energy_j", "J"),), lambda gpu: (pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,)),  # NVML: millijoules since the driver was loaded
    _Reading((("sm_clock_mhz", "MHz"),), lambda gpu: (pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),)),
    _Reading((("temperature_c", "C"),), lambda gpu: (pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),)),
    _Reading((("clocks_event_reasons", "bits"),), lambda gpu: (pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu),)),
)

_NEVER = ("NVMLError_NotSupported", "NVMLError_FunctionNotFound", "NVMLError_NoPermission")
"""Answers that do not change: the reading is not asked for again. Any other error (a lost GPU, say) is tried again."""


class Gpus:
    """The NVIDIA devices of this machine. `unavailable` says why there are none; every read is then empty."""

    def __init__(self) -> None:
        self.unavailable: str | None = None
        self._devices: list[_Device] = []
        self._never: set[tuple[int, str]] = set()
        self._told: set[str] = set()
        self._baseline: dict[str, float] | None = None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self.unavailable = f"NVML (libnvidia-ml.so.1, part of NVIDIA's driver) is not usable: {error}"
            return
        try:
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                self._devices.append(_Device(index, pynvml.nvmlDeviceGetUUID(handle), handle))
        except pynvml.NVMLError as error:
            self._devices = []
            self.unavailable = f"NVML does not list the devices: {error}"
            return
        if not self._devices:
            self.unavailable = "NVML lists no device"

    def available(self) -> bool:
        """Whether there is a device to read."""
        return self.unavailable is None

    def close(self) -> None:
        if self._devices:
            pynvml.nvmlShutdown()
            self._devices = []

    def read_totals(self, miss: Miss) -> list[Sample]:
        """Memory of each device, once a session."""
        return [sample for device in self._devices for sample in self._read(device, _TOTAL, miss)]

    def read_devices(self, miss: Miss) -> list[Sample]:
        """All readings of all devices, each stamped around its own call."""
        return [sample for device in self._devices for reading in _READINGS for sample in self._read(device, reading, miss)]

    def _read(self, device: _Device, reading: _Reading, miss: Miss) -> list[Sample]:
        def miss_all(_: str, reason: str) -> None:
            for name, _unit in reading.parts:
                miss(f"{name} of gpu {device.number}", reason)

        before = time.monotonic_ns()
        values = self._ask(device, reading.parts[0][0], reading.read, miss_all)
        t_ns = (before + time.monotonic_ns()) // 2
        found = []
        for (name, unit), value in zip(reading.parts, values or (), strict=False):
            why = {"reasons": ",".join(reason for bit, reason in _REASONS.items() if value & bit)} if name == "clocks_event_reasons" else None
            found.append(self._sample(t_ns, device.number, name, value, unit=unit, labels=why))
        return found

    def _ask(self, device: _Device, name: str, read: Callable[[Any], Any], miss: Miss) -> Any:
        """The answer, or None: not measured, and said so."""
        if (device.number, name) in self._never:
            return None
        try:
            return read(device.handle)
        except pynvml.NVMLError as error:
            if type(error).__name__ in _NEVER:
                self._never.add((device.number, name))
            miss(f"{name} of gpu {device.number}", f"NVML: {error}")
            return None

    def set_baseline(self) -> None:
        """Remember what is used now, before any server of ours runs."""
        used = {device.uuid: self._ask(device, "vram_used_bytes", _used, lambda *_: None) for device in self._devices}
        self._baseline = {uuid: float(value[0]) for uuid, value in used.items() if value is not None}

    # -- who is on a device

    def read_processes(self, targets: list[SampleTarget], groups: ProcessGroups, miss: Miss) -> list[Sample]:
        """Memory by server, by the client and by foreign processes, on each device. `groups` must have been refreshed just before."""
        on_device: dict[int, dict[int, int | None]] = {}
        begun = time.monotonic_ns()
        for device in self._devices:
            listed = self._ask(device, "foreign_gpu_processes", _running, miss)
            if listed is not None:
                on_device[device.number] = listed
        t_ns = (begun + time.monotonic_ns()) // 2
        ours = [target for target in targets if target.root_pid is not None]
        told_apart = _by_group(on_device, groups)
        found: list[Sample] = []
        blind = False
        for target in ours:
            mine = told_apart.get(server_group(target.server), {})
            known = {number: bytes_ for number, bytes_ in mine.items() if bytes_ is not None}
            if known and len(known) == len(mine):
                labels = {**target.labels(), "method": PER_PROCESS}
                found += [self._sample(t_ns, number, "vram_bytes", bytes_, labels=labels) for number, bytes_ in known.items()]
            else:
                blind = True
                found += self._over_baseline(t_ns, target, len(ours), miss)
        found += [self._sample(t_ns, number, "client_vram_bytes", bytes_) for number, bytes_ in told_apart.get(CLIENT, {}).items() if bytes_ is not None]
        return found + self._foreign(t_ns, on_device, groups, blind, miss)

    def _over_baseline(self, t_ns: int, target: SampleTarget, servers: int, miss: Miss) -> list[Sample]:
        """The fallback of the module docstring; nothing, and said so once, where it cannot be right."""
        subject = f"vram_bytes of server {target.server}"
        if self._baseline is None:
            self._once(subject, "NVML does not tell its processes apart, and it ran before sampling began", miss)
            return []
        if servers > 1:
            self._once(subject, "NVML does not tell its processes apart, and several servers run side by side", miss)
            return []
        found = []
        for device in self._devices:
            used = self._ask(device, "vram_used_bytes", _used, miss)
            before = self._baseline.get(device.uuid)
            if used is not None and before is not None and used[0] > before:
                more = used[0] - before
                found.append(self._sample(t_ns, device.number, "vram_bytes", more, labels={**target.labels(), "method": MINUS_BASELINE}))
        if not found:
            self._once(subject, "NVML names no process of it, and no device holds more than before it started", miss)
        return found

    def _foreign(self, t_ns: int, on_device: dict[int, dict[int, int | None]], groups: ProcessGroups, blind: bool, miss: Miss) -> list[Sample]:
        found = []
        for number, listed in on_device.items():
            if blind:
                self._once(f"foreign_gpu_processes of gpu {number}", "NVML does not name the server's own processes, so the others cannot be told", miss)
                continue
            foreign = [bytes_ for pid, bytes_ in listed.items() if groups.group_of(pid) is None]
            found.append(self._sample(t_ns, number, "foreign_gpu_processes", len(foreign), unit="processes"))
            known = [bytes_ for bytes_ in foreign if bytes_ is not None]
            if len(known) == len(foreign):
                found.append(self._sample(t_ns, number, "foreign_vram_bytes", sum(known)))
        return found

    def _once(self, subject: str, reason: str, miss: Miss) -> None:
        """What cannot be known for a whole session is no failure at every reading."""
        if subject not in self._told:
            self._told.add(subject)
            miss(subject, reason)

    def _sample(self, t_ns: int, number: int, name: str, value: float, *, unit: str = "bytes", labels: dict[str, str] | None = None) -> Sample:
        where = self._devices[number].labels()
        return Sample(t_ns=t_ns, source="nvml", name=name, value=float(value), unit=unit, labels={**where, **(labels or {})})

    # -- what the machine has, for the manifest

    def describe(self) -> list[dict[str, Any]]:
        """Each device: index, uuid, name, memory_bytes, compute_capability, power_limit_w; None for what NVML does not say."""

        def ask(device: _Device, name: str, read: Callable[[Any], Any]) -> Any:
            return self._ask(device, name, read, lambda *_: None)

        described = []
        for device in self._devices:
            capability = ask(device, "compute_capability", pynvml.nvmlDeviceGetCudaComputeCapability)
            total = ask(device, "vram_total_bytes", _total)
            limit_mw = ask(device, "power_limit_w", pynvml.nvmlDeviceGetEnforcedPowerLimit)
            described.append(
                {
                    "index": device.number, "uuid": device.uuid, "name": ask(device, "name", pynvml.nvmlDeviceGetName),
                    "memory_bytes": None if total is None else total[0],
                    "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
                    "power_limit_w": None if limit_mw is None else limit_mw / 1e3,
                }
            )  # fmt: skip
        return described

    def driver(self) -> dict[str, str | None]:
        """`driver` version and the newest `cuda` that it supports."""
        if not self._devices:
            return {"driver": None, "cuda": None}
        try:
            cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
            return {"driver": pynvml.nvmlSystemGetDriverVersion(), "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}"}
        except pynvml.NVMLError:
            return {"driver": None, "cuda": None}


def _running(handle: Any) -> dict[int, int | None]:
    """pid -> bytes on one device; None where NVML does not say. A process that computes and draws stands in both lists with one figure."""
    found: dict[int, int | None] = {}
    for listed in (pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle), pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3(handle)):
        for process in listed:
            # A context on the device always takes memory: 0 is how some drivers say that they do not know (containers).
            found[process.pid] = process.usedGpuMemory or found.get(process.pid)
    return found


def _by_group(on_device: dict[int, dict[int, int | None]], groups: ProcessGroups) -> dict[str, dict[int, int | None]]:
    """Group -> device -> bytes; None as soon as one of the group's processes on the device has no figure."""
    found: dict[str, dict[int, int | None]] = {}
    for device, listed in on_device.items():
        for pid, bytes_ in listed.items():
            group = groups.group_of(pid)
            if group is not None:
                devices = found.setdefault(group, {})
                before = devices.get(device, 0)
                devices[device] = None if bytes_ is None or before is None else before + bytes_
    return found
