from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import psutil
import pytest

from perfbench.hardware import cgroup_limits, describe_hardware, installed_versions

GIB = 2**30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine_is_described() -> None:
    found = describe_hardware()
    assert found["cpu"]["threads"] == psutil.cpu_count()
    assert 1 <= found["cpu"]["threads_usable"] <= found["cpu"]["threads"]
    assert found["cpu"]["model"]
    assert found["memory_bytes"] == psutil.virtual_memory().total
    assert (found["kernel"], found["python"]) == (platform.release(), platform.python_version())
    assert (found["gpus"] == []) == (found["gpus_unavailable"] is not None)
    listed = Path("/proc/cpuinfo").read_text().split()
    assert ("avx2" in found["cpu"]["flags"]) == ("avx2" in listed)


def test_versions_are_those_installed() -> None:
    found = installed_versions()
    assert found["msgspec"] == metadata.version("msgspec")
    assert found["perfbench"] == metadata.version("perfbench")
    assert None not in found.values()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, (None, None)),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{4 * GIB}\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, (4 * GIB, 1.5)),
        (  # the tightest of a group and those it lies in
            {
                "proc/self/cgroup": "0::/pod/one\n", "sys/fs/cgroup/pod/one/memory.max": "max", "sys/fs/cgroup/pod/memory.max": f"{2 * GIB}",
                "sys/fs/cgroup/pod/one/cpu.max": "400000 100000", "sys/fs/cgroup/pod/cpu.max": "800000 100000",
            },
            (2 * GIB, 4.0),
        ),
        (
            {
                "proc/self/cgroup": "7:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n", "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": f"{GIB}",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712", "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            (GIB, 0.5),
        ),
        ({}, (None, None)),
    ],
    ids=["version 2, no limit", "version 2", "version 2, nested", "version 1", "no control groups"],
)  # fmt: skip
def test_limits_of_the_control_group(tmp_path: Path, files: dict[str, str], expected: tuple[float | None, float | None]) -> None:
    limits = cgroup_limits(tree(tmp_path, files))
    assert (limits["memory_bytes"], limits["cpus"]) == expected
