"""The examples of docs/sizing.md are files that perfbench takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perfbench.plan.demand import demand_of, read_demand
from perfbench.plan.gpus import read_gpus


def _blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", Path("docs/sizing.md").read_text(), re.DOTALL)


def test_the_gpu_file(tmp_path: Path) -> None:
    path = tmp_path / "gpus.yaml"
    path.write_text(next(block for block in _blocks() if block.startswith("my-gpu:")))
    assert read_gpus(path)["my-gpu"].operations_per_s("fp8") == 362e12


def test_the_demand_file(tmp_path: Path) -> None:
    """20,000 x 12 a day are 2.78 a second on average; the busiest hours have 10 of 128 parts: 5.21 a second, 1.5 times that in the busiest minute."""
    path = tmp_path / "demand.yaml"
    path.write_text(next(block for block in _blocks() if block.startswith("# demand.yaml")))
    given = read_demand(path)
    assert given.profile is not None and given.fine_tunes is not None and given.fine_tunes.max_loras == 8
    grown = 1.05**6
    demand = demand_of(given)
    assert (demand.mean_per_s / grown, demand.peak_per_s / grown) == (pytest.approx(2.7778, rel=1e-4), pytest.approx(5.2083 * 1.5, rel=1e-4))
