"""Lighteval itself, from a local task file to the run folder, offline, against a real vLLM. Skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from perfbench.benchmark_run import Asked, benchmark_url
from perfbench.quality import lighteval
from perfbench.report.progress import RunProgress
from perfbench.serve.server import Server

CAPITALS = Path(__file__).parents[2] / "scenarios" / "quality" / "data" / "capitals.py"

pytestmark = [pytest.mark.live, pytest.mark.skipif(lighteval.script() is None, reason=f"Lighteval is not on PATH: {lighteval.INSTALL}")]


def test_a_local_task_is_run_and_kept(demo_server: Server, tmp_path: Path) -> None:
    with RunProgress(quiet=True) as progress:
        (result,) = benchmark_url(demo_server.url, "base", Asked((CAPITALS,), tool="lighteval", limit=4, anyway=True), tmp_path, None, progress)
    assert (result.task, result.tool, result.n) == ("capitals", "lighteval", 4)
    value, error = result.metrics["em"]
    assert value is not None
    assert error is not None
    assert 0 <= value <= 1
    (samples,) = result.samples
    assert pq.read_metadata(samples).num_rows == 4
