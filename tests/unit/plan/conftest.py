"""The maker of run folders that the analysis is tested with, for plans that read one."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def analyse_run() -> ModuleType:
    """By path, because tests/ is no package."""
    spec = importlib.util.spec_from_file_location("analyse_run", Path(__file__).parents[1] / "analyse" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(analyse_run: ModuleType, tmp_path: Path) -> Any:
    """An empty run folder to be filled."""
    return analyse_run.RunMaker(tmp_path)


@pytest.fixture
def record(analyse_run: ModuleType) -> Any:
    return analyse_run.make_record
