"""One realistic run folder for all report tests; tests/report_run.py writes it."""

import pytest
from report_run import write_run

from perfbench.records import Manifest, Summary
from perfbench.results import RunFolder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def summary(folder: RunFolder) -> Summary:
    return folder.summary()


@pytest.fixture(scope="session")
def manifest(folder: RunFolder) -> Manifest:
    return folder.manifest()
