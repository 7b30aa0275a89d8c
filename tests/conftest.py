"""For every tier: hypothesis looks for wrong answers, not for slow ones, which a busy machine makes of right ones; and who may share a worker.

With `-n 2` a file's tests stay together, so that what they share is made once, and all live tests do, since they share a vLLM. (xdist 3.8.0's own
`loadgroup` does nothing with pytest 9.2: it writes to an attribute of nodes that is gone.)
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("perfbench", deadline=None)
settings.load_profile("perfbench")


class Together(LoadScopeScheduling):
    """Shares out whole files, and the live tests as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "tests/live" if file.startswith("tests/live/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Together:
    return Together(config, log)
