"""One realistic run folder for the browser tests; tests/report_run.py writes it."""

import pytest
from report_run import write_run

from perfbench.results import RunFolder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("results"))
