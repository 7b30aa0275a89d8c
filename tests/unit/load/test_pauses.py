"""When a reader pauses: while it is busy, and while its wake-ups bring little."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest

from perfbench.load import pauses
from perfbench.load.pauses import Pauses
from perfbench.load.wire import Reader


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The lengths of the pauses that were taken."""
    lengths: list[float] = []
    monkeypatch.setattr(pauses, "_sleep", lengths.append)
    monkeypatch.setattr(pauses, "_LOOK_S", 0.005)
    monkeypatch.setattr(pauses, "_BUSY_PER_S", 200)  # so that it does not depend on how fast this machine is
    return lengths


@pytest.fixture
def reader(taken: list[float]) -> Iterator[Any]:
    reader = SimpleNamespace(reads=0, kernel_stamps=True)
    watching = Pauses(cast(Reader, reader))
    yield reader
    watching.close()


def turns(reader: Any, reads_each: int) -> None:
    """A hundred turns of the loop, each with so many reads."""
    for _ in range(100):
        reader.reads += reads_each
        gevent.sleep(0.0005)


def test_a_busy_reader_that_is_woken_for_little_pauses(reader: Any, taken: list[float]) -> None:
    turns(reader, 8)
    assert len(taken) > 50
    assert set(taken) == {pauses._PAUSE_S}


def test_a_reader_with_little_to_read_never_pauses(reader: Any, taken: list[float]) -> None:
    turns(reader, 0)
    assert not taken


def test_a_reader_whose_wake_ups_bring_much_does_not_pause_and_falls_behind(reader: Any, taken: list[float]) -> None:
    turns(reader, pauses._ENOUGH)
    assert len(taken) < 50


def test_it_stops_pausing_when_the_load_ends(reader: Any, taken: list[float]) -> None:
    turns(reader, 8)
    turns(reader, 0)
    taken.clear()
    turns(reader, 0)
    assert not taken


def test_a_reader_that_stamps_for_itself_is_not_made_late(reader: Any, taken: list[float]) -> None:
    reader.kernel_stamps = False
    turns(reader, 8)
    assert not taken
