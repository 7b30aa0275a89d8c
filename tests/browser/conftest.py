"""One realistic run folder for the browser tests; tests/report_run.py writes it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from perfbench.results import RunFolder


@pytest.fixture(scope="session")
def report_run() -> ModuleType:
    """The module itself; by path, because tests/ is no package."""
    spec = importlib.util.spec_from_file_location("report_run", Path(__file__).parents[1] / "report_run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def folder(report_run: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return report_run.write_run(tmp_path_factory.mktemp("results"))
