"""Swaps in a run with known waits: three adapters in two places."""

from __future__ import annotations

from typing import Any

import pytest

from perfbench.analyse.experiment import experiment_of
from perfbench.analyse.summarise import analyse_trials
from perfbench.analyse.telemetry import Telemetry
from perfbench.plan.swaps import Swap, measured_swap

STAGES = [
    {"name": name, "arrival": "closed", "concurrency": streams, "warmup_s": 2.0, "duration_s": 10.0, "drain_s": 8.0, "output": {"max_tokens": 64}}
    for name, streams in (("many", 8), ("few", 1))
]


def _found(run: Any, record: Any, order: str, max_loras: int, *, swap_s: float = 0.05, **outcome: Any) -> Swap | None:
    """Requests for adapters in the order of the letters; each waits 0.2 s, and `swap_s` more where its adapter is none of the last used ones."""
    trials = [f"adapter.{stage}.r0" for stage in ("many", "few")]
    run.manifest(trials, variants=["adapter"], load={"stages": STAGES})
    for trial in trials:
        last: list[str] = []
        records = []
        for number, adapter in enumerate(order):
            wait = 0.2 + (0.0 if adapter in last[-max_loras:] else swap_s) + 0.001 * (number % 3)
            last = [*(one for one in last if one != adapter), adapter]
            records.append(record(trial, 2.0 + 9.9 * number / len(order), prompt_id=str(number), adapter=adapter, ttft=wait, tpot=0.001))
        run.trial(trial, records, **outcome)
    manifest = run.folder.manifest()
    analysed = analyse_trials(run.folder, manifest, experiment_of(manifest), Telemetry.of(run.folder), {})
    return measured_swap(analysed, {"many": 8, "few": 1}, max_loras)


def test_the_wait_is_found_again(run: Any, record: Any) -> None:
    """aabbcc in two places: every second request has to wait."""
    found = _found(run, record, "aabbcc" * 20, 2)
    assert found is not None and (found.stage, found.swaps) == ("few", 60)
    seconds = found.seconds
    assert seconds.value == pytest.approx(0.05, abs=0.001)
    assert seconds.ci95_low is not None and seconds.ci95_high is not None and seconds.ci95_low <= 0.05 <= seconds.ci95_high


def test_no_swaps_say_nothing(run: Any, record: Any) -> None:
    assert _found(run, record, "abc" * 40, 3) is None


def test_too_few_of_either_say_nothing(run: Any, record: Any) -> None:
    assert _found(run, record, "aabbcc" * 5, 2) is None


def test_void_trials_do_not_count(run: Any, record: Any) -> None:
    assert _found(run, record, "aabbcc" * 20, 2, client_cpu_s=9.9) is None


def test_a_swap_takes_no_negative_time(run: Any, record: Any) -> None:
    found = _found(run, record, "aabbcc" * 20, 2, swap_s=-0.05)
    assert found is not None and found.seconds.value == 0.0
