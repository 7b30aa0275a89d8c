"""The real nvidia-ml-py against a stand-in libnvidia-ml.so.1 (standin.c) whose every answer is known: exact values, missing readings,
a GPU lost in mid-run, containers. Each test runs in a process of its own, because a process loads the library once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perfbench.results import RunFolder
from perfbench.sample import Sampler, SampleTarget
from perfbench.scenario.model import Telemetry

GIB, MIB = 2**30, 2**20


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the compiled stand-in."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the stand-in NVML with")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("standin.c")
    subprocess.run([compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(source)], check=True)
    return folder


PRELUDE = """
import json, os, subprocess, sys
from perfbench.sample.nvml import Gpus
from perfbench.sample.processes import ProcessGroups
from perfbench.sample.spec import SampleTarget
missed = []
miss = lambda subject, reason: missed.append([subject, reason])
def told(samples):
    return [[s.name, s.value, s.unit, s.labels] for s in samples]
"""


def run(code: str, library: Path | None, **environment: str) -> Any:
    """What `code` leaves in `result`, from a fresh interpreter that finds NVML in `library`."""
    paths = {"LD_LIBRARY_PATH": str(library)} if library else {}
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}\n{code}\nprint(json.dumps(result))"],
        env={**os.environ, **paths, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


READ_THREE_TIMES = """
gpus = Gpus()
result = {'totals': told(gpus.read_totals(miss)), 'rounds': [told(gpus.read_devices(miss)) for _ in range(3)], 'missed': missed}
"""


def values(rounds: list[list[Any]], device: int, name: str) -> list[float | None]:
    """One value a round; None where the row is absent."""
    return [next((v for n, v, _, labels in one if n == name and labels["device"] == str(device)), None) for one in rounds]


def test_every_reading_has_its_exact_value_and_unit(library: Path) -> None:
    read = run(READ_THREE_TIMES, library)
    zero, one = {"device": "0", "uuid": "GPU-standin-0"}, {"device": "1", "uuid": "GPU-standin-1"}
    assert read["totals"] == [["vram_total_bytes", 80 * GIB, "bytes", zero], ["vram_total_bytes", 40 * GIB, "bytes", one]]
    # The total is read by the same call as the use, so the first use is the second answer (k = 1).
    assert read["rounds"][0] == [
        ["vram_used_bytes", GIB + MIB, "bytes", zero],
        ["gpu_busy_percent", 10, "%", zero],
        ["memory_busy_percent", 20, "%", zero],
        ["power_w", 100.0, "W", zero],
        ["energy_j", 5000.0, "J", zero],
        ["sm_clock_mhz", 1410, "MHz", zero],
        ["temperature_c", 40, "C", zero],
        ["clocks_event_reasons", 0x44, "bits", {**zero, "reasons": "sw_power_cap,hw_thermal_slowdown"}],
        ["vram_used_bytes", 2 * GIB + MIB, "bytes", one],
        ["gpu_busy_percent", 11, "%", one],
        ["memory_busy_percent", 21, "%", one],
        ["power_w", 150.0, "W", one],
        ["sm_clock_mhz", 1411, "MHz", one],
        ["temperature_c", 41, "C", one],
        ["clocks_event_reasons", 1, "bits", {**one, "reasons": "gpu_idle"}],
    ]
    assert values(read["rounds"], 0, "energy_j") == [5000.0, 5012.5, 5025.0]
    assert values(read["rounds"], 0, "power_w") == [100.0, 100.001, 100.002]
    assert values(read["rounds"], 1, "vram_used_bytes") == [2 * GIB + MIB, 2 * GIB + 2 * MIB, 2 * GIB + 3 * MIB]


def test_an_unsupported_reading_is_absent_named_once_and_not_asked_again(library: Path) -> None:
    read = run(READ_THREE_TIMES, library)
    assert values(read["rounds"], 1, "energy_j") == [None, None, None]
    assert read["missed"] == [["energy_j of gpu 1", "NVML: Not Supported"]]


def test_a_lost_gpu_keeps_what_was_read_and_leaves_the_other_alone(library: Path) -> None:
    read = run(READ_THREE_TIMES, library, NVML_STANDIN_LOST_AFTER="2")
    # Lost with the second power reading: what comes after it in that round is absent already.
    assert values(read["rounds"], 0, "power_w") == [100.0, 100.001, None]
    assert values(read["rounds"], 0, "energy_j") == [5000.0, None, None]
    assert values(read["rounds"], 0, "vram_used_bytes") == [GIB + MIB, GIB + 2 * MIB, None]
    assert values(read["rounds"], 1, "power_w") == [150.0, 150.001, 150.002]
    lost = [subject for subject, reason in read["missed"] if reason == "NVML: GPU is lost"]
    assert lost.count("energy_j of gpu 0") == 2, "a lost GPU is tried again, each failure is counted"
    assert lost.count("gpu_busy_percent of gpu 0") == lost.count("memory_busy_percent of gpu 0") == 1


def test_no_library_and_no_driver_are_told_apart(library: Path, tmp_path: Path) -> None:
    code = "gpus = Gpus()\nresult = [gpus.available(), gpus.unavailable, told(gpus.read_devices(miss)), gpus.describe(), gpus.driver()]"
    available, reason, read, described, driver = run(code, library, NVML_STANDIN_NO_DRIVER="1")
    assert (available, read, described, driver) == (False, [], [], {"driver": None, "cuda": None})
    assert "Driver Not Loaded" in reason
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"no library")
    available, reason, *_ = run(code, tmp_path)
    assert available is False
    assert "libnvidia-ml.so.1" in reason
    assert "Not Found" in reason


def test_the_manifest_names_each_device_and_leaves_the_unknown_open(library: Path) -> None:
    described = run("from perfbench.hardware import describe_hardware\nresult = describe_hardware()", library)
    assert described["gpus_unavailable"] is None
    assert (described["gpu_driver"], described["cuda"]) == ("580.1.2", "13.1")
    assert described["gpus"] == [
        {"index": 0, "uuid": "GPU-standin-0", "name": "Stand-in 0", "memory_bytes": 80 * GIB, "compute_capability": "9.0", "power_limit_w": 700.0},
        {"index": 1, "uuid": "GPU-standin-1", "name": "Stand-in 1", "memory_bytes": 40 * GIB, "compute_capability": "9.1", "power_limit_w": None},
    ]


def test_the_doctor_names_the_reading_that_the_gpu_does_not_give(library: Path) -> None:
    checks = run("from dataclasses import asdict\nfrom perfbench.doctor import examine\nresult = [asdict(check) for check in examine()]", library)
    by_name = {check["name"]: check for check in checks}
    assert by_name["gpu"]["ok"] is True
    assert "Stand-in 0 (80 GiB), Stand-in 1 (40 GiB); driver 580.1.2, CUDA up to 13.1" in by_name["gpu"]["found"]
    assert by_name["gpu readings"]["ok"] is None
    assert "energy_j of gpu 1" in by_name["gpu readings"]["found"]


SERVER_OF_TWO = """
root = subprocess.Popen(['sh', '-c', 'sleep 60 & echo $!; wait'], stdout=subprocess.PIPE, start_new_session=True)
child = int(root.stdout.readline())
groups = ProcessGroups(client_root=os.getpid(), sampler_root=-1)
targets = [SampleTarget(server='base', root_pid=root.pid, metrics_url=None, variants=['base', 'base+lora'])]
groups.set_servers({'base': root.pid})
def list_processes(*lines):
    with open(os.environ['NVML_STANDIN_PROCESSES'], 'w') as file:
        file.write(''.join(f'{line}\\n' for line in lines))
def read():
    groups.refresh()
    return told(gpus.read_processes(targets, groups, miss))
def stop():
    import signal
    os.killpg(root.pid, signal.SIGKILL); root.wait(); root.stdout.close()
gpus = Gpus()
"""


def test_memory_is_told_by_server_client_and_foreign_process(library: Path, tmp_path: Path) -> None:
    code = f"""{SERVER_OF_TWO}
foreign = os.getppid()
list_processes(f'0 {{root.pid}} 1000 C', f'0 {{child}} 200 C', f'0 {{child}} 200 G', f'1 {{child}} 5000 C', f'0 {{os.getpid()}} 70 C', f'1 {{foreign}} 9000 G')
result = [read(), missed]
stop()
"""
    read, missed = run(code, library, NVML_STANDIN_PROCESSES=str(tmp_path / "processes"))
    zero, one = {"device": "0", "uuid": "GPU-standin-0"}, {"device": "1", "uuid": "GPU-standin-1"}
    server = {"server": "base", "variants": "base,base+lora", "method": "per process"}
    assert sorted(read, key=lambda row: (row[0], row[3]["device"])) == [
        ["client_vram_bytes", 70, "bytes", zero],
        ["foreign_gpu_processes", 0, "processes", zero],
        ["foreign_gpu_processes", 1, "processes", one],
        ["foreign_vram_bytes", 0, "bytes", zero],
        ["foreign_vram_bytes", 9000, "bytes", one],
        ["vram_bytes", 1200, "bytes", {**zero, **server}],
        ["vram_bytes", 5000, "bytes", {**one, **server}],
    ]
    assert missed == []


@pytest.mark.parametrize(
    "listing",
    ["list_processes('0 4194301 3000 C')", "list_processes()", "list_processes(f'0 {child} -1 C')", "list_processes(f'0 {child} 0 C')"],
    ids=["the host's pids", "no pids", "our pid, memory not available", "our pid, memory 0"],
)
def test_in_a_container_memory_is_the_device_minus_what_was_there_before(library: Path, tmp_path: Path, listing: str) -> None:
    code = f"{SERVER_OF_TWO}\ngpus.set_baseline()\n{listing}\nresult = [read(), read(), missed]\nstop()"
    first, second, missed = run(code, library, NVML_STANDIN_PROCESSES=str(tmp_path / "processes"))
    assert [(name, value, labels["device"], labels["method"]) for name, value, _, labels in first] == [
        ("vram_bytes", MIB, "0", "device minus baseline"),
        ("vram_bytes", MIB, "1", "device minus baseline"),
    ]
    assert [value for _, value, _, _ in second] == [2 * MIB, 2 * MIB]
    # Whose the others are cannot be known then: absent, and said once a device.
    assert [subject for subject, _ in missed] == ["foreign_gpu_processes of gpu 0", "foreign_gpu_processes of gpu 1"]


def test_without_a_baseline_or_with_two_servers_the_fallback_refuses(library: Path, tmp_path: Path) -> None:
    code = f"""{SERVER_OF_TWO}
list_processes()
late = read()
gpus.set_baseline()
targets.append(SampleTarget(server='merged', root_pid=os.getpid(), metrics_url=None))
groups.set_servers({{'base': root.pid, 'merged': os.getpid()}})
result = [late, read(), read(), missed]
stop()
"""
    late, two, again, missed = run(code, library, NVML_STANDIN_PROCESSES=str(tmp_path / "processes"))
    assert late == two == again == []
    reasons = {subject: reason for subject, reason in missed if subject.startswith("vram_bytes")}
    assert "before sampling began" in reasons["vram_bytes of server base"]
    assert "side by side" in reasons["vram_bytes of server merged"]
    assert len(missed) == 4, "each is named once, not at every reading"


def test_the_whole_sampler_writes_the_known_sequence(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("NVML_STANDIN_PROCESSES", str(tmp_path / "processes"))
    folder = RunFolder.create(tmp_path, "t")
    server = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (tmp_path / "processes").write_text(f"1 {server.pid} 7000 C\n")
        with Sampler(folder, "s", [], Telemetry(gpu_hz=50.0, host_hz=20.0)) as sampler:
            sampler.add_target(SampleTarget(server="base", root_pid=server.pid, metrics_url=None))
            while "vram_bytes" not in sampler.latest().get("base", {}):
                time.sleep(0.02)
            assert sampler.latest()["gpu 0"]["temperature_c"] == 40
    finally:
        server.kill()
        server.wait()
    rows = folder.samples().collect()
    energy = rows.filter(pl.col("name") == "energy_j")["value"].to_list()
    assert energy == [5000.0 + 12.5 * k for k in range(len(energy))]
    assert len(energy) > 5
    assert set(rows.filter(pl.col("name") == "vram_bytes")["value"]) == {7000.0}
    assert rows.filter(pl.col("name") == "vram_total_bytes").height == 2
    assert sampler.not_measured["energy_j of gpu 1"] == "NVML: Not Supported"
    missed = rows.filter((pl.col("name") == "missed_readings") & pl.col("labels").str.contains("energy_j of gpu 1"))
    assert missed["value"].to_list() == [1.0]
