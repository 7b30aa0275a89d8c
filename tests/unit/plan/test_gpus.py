"""The table of GPUs, and what people and drivers call them."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfbench.errors import InputError, ScenarioError
from perfbench.plan.gpus import find_gpu, gpu_of_device, gpus_of_run, known_gpus, read_gpus

WANTED = ("a10", "a100-40gb", "a100-80gb", "h100-pcie", "h100-80gb", "h200", "b200", "l4", "l40s", "rtx-4090", "mi300x", "t4", "v100-16gb")


def test_every_gpu_has_its_figures_source_and_date() -> None:
    gpus = known_gpus()
    assert set(WANTED) <= set(gpus)
    for name, gpu in gpus.items():
        assert gpu.source.startswith(("NVIDIA", "AMD")) and gpu.nvml, name
        assert "(vendor)" in gpu.source or "third party" in gpu.source, name
        assert gpu.tflops["fp16"] >= 60 and gpu.bandwidth_gb_s >= 300, name


def test_no_figure_is_without_a_source() -> None:
    assert [name for name, gpu in known_gpus().items() if "not checked" in gpu.source] == []


@pytest.mark.parametrize(
    ("name", "memory_gb", "bandwidth_gb_s", "bf16"),
    [
        ("a100-pcie-80gb", 80, 1935, 312), ("h100-80gb", 80, 3350, 989.4), ("h100-pcie", 80, 2039, 756), ("h100-nvl", 94, 3938, 1671 / 2),
        ("h200", 141, 4800, 1979 / 2), ("b200", 1440 / 8, 8000, 2250), ("l4", 24, 300, 242 / 2), ("rtx-5090", 32, 1792, 209.5),
        ("mi300x", 192, 5325, 1307.4),
    ],
)  # fmt: skip
def test_figures_are_of_one_gpu_and_dense(name: str, memory_gb: float, bandwidth_gb_s: float, bf16: float) -> None:
    """What the sources give for a system is divided by its GPUs, what they give with sparsity by two; of two figures of a maker the greater."""
    gpu = known_gpus()[name]
    assert (gpu.memory_gb, gpu.bandwidth_gb_s, gpu.tflops["bf16"]) == (memory_gb, bandwidth_gb_s, bf16)


def test_names_and_aliases_are_unique() -> None:
    words = [word for name, gpu in known_gpus().items() for word in (name, *gpu.aliases)]
    devices = [device for gpu in known_gpus().values() for device in gpu.nvml]
    assert len(words) == len(set(words)) and len(devices) == len(set(devices))


@pytest.mark.parametrize(
    ("said", "name"),
    [("h100-80gb", "h100-80gb"), ("H100", "h100-80gb"), ("h100 pcie", "h100-pcie"), ("A100_80GB", "a100-80gb"), ("4090", "rtx-4090"), ("T4", "t4")],
)
def test_what_people_call_them(said: str, name: str) -> None:
    assert find_gpu(said, known_gpus())[0] == name


def test_an_unknown_gpu_has_its_sentence() -> None:
    with pytest.raises(InputError, match=r"--gpu: `h1000` is not known; did you mean `h100-80gb`\?"):
        find_gpu("h1000", known_gpus())
    with pytest.raises(InputError, match="expected one of a10, a10g"):
        find_gpu("zzzzzzzz", known_gpus())


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb"), ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"), ("Tesla T4", "t4"), ("NVIDIA L40S", "l40s"), ("NVIDIA L4", "l4"),
        ("Tesla V100-PCIE-32GB", "v100-pcie-32gb"), ("Tesla V100-SXM2-32GB", "v100-32gb"),
    ],
)  # fmt: skip
def test_what_the_driver_calls_them(device: str, name: str) -> None:
    found = gpu_of_device(device, known_gpus())
    assert found is not None and found[0] == name


def test_a_run_on_several_kinds_or_none_has_no_roofline() -> None:
    gpus = known_gpus()
    assert gpus_of_run([], gpus) is None and gpus_of_run([{"name": "GeForce 256"}], gpus) is None
    assert gpus_of_run([{"name": "NVIDIA L4"}, {"name": "Tesla T4"}], gpus) is None
    found = gpus_of_run([{"name": "NVIDIA L4"}, {"name": "NVIDIA L4"}], gpus)
    assert found is not None and found[0] == "l4"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine: {memory_gb: 48, bandwidth_gb_s: 864, tflops: {bf16: 181}, source: data sheet, as_of: 2026-11-25}\n")
    mine = read_gpus(path)["mine"]
    assert (mine.memory_bytes, mine.bytes_per_s, mine.operations_per_s("bf16"), mine.operations_per_s("fp8")) == (48_000_000_000, 864e9, 181e12, None)


def test_every_mistake_of_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("a: {memory_gb: 0, bandwith_gb_s: 3, tflops: {bf17: 1}, source: x, as_of: soon}\nb: {}\n")
    with pytest.raises(ScenarioError) as raised:
        read_gpus(path)
    found = {finding.key: finding.problem for finding in raised.value.findings}
    assert "greater than 0" in found["a.memory_gb"] and "did you mean `bandwidth_gb_s`?" in found["a.bandwith_gb_s"]
    assert "did you mean `bf16`?" in found["a.tflops.bf17"] and "valid date" in found["a.as_of"] and found["b.source"] == "missing; add it"


@pytest.mark.parametrize("text", ["", "{}", "- a", "a: {as_of: 2026-99-01}"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match="1 problem"):
        read_gpus(path)
