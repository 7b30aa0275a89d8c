"""For every tier: hypothesis looks for wrong answers, not for slow ones, which a busy machine makes of right ones; and who may share a worker.

With `-n 2 --dist loadgroup` a file's tests stay together, so that what they share is made once, and all live tests do, since they share a vLLM.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("perfbench", deadline=None)
settings.load_profile("perfbench")

LIVE = Path(__file__).parent / "live"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.xdist_group("live" if LIVE in item.path.parents else str(item.path)))
