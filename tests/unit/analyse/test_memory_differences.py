"""Memory of one server against another's, paired by repeat."""

from __future__ import annotations

from typing import Any

import pytest

from perfbench.analyse.memory_differences import few_paired
from perfbench.analyse.summarise import summarise
from perfbench.records import Comparison

VARIANTS = ["base", "base+lora", "adapter"]


def _memory(run: Any, record: Any, sample: Any, *, repeats: int, name: str = "host_rss_bytes", void: str = "") -> dict[tuple[str, str], Comparison]:
    """The LoRA server takes 30 more than the plain one's 100 and 110; every repeat is driven in the same (hand-set) window."""
    trials = [f"{variant}.one.r{repeat}" for variant in VARIANTS for repeat in range(repeats)]
    run.manifest(trials, variants=VARIANTS)
    run.server("plain", ["base"])
    run.server("lora", ["base+lora", "adapter"])
    for trial in trials:
        repeat = int(trial[-1])
        shift = 100 * repeat  # each repeat has a window of its own
        moments = {"measure_from_ns": run.at(2 + shift), "measure_until_ns": run.at(12 + shift)}
        run.trial(trial, [record(trial, shift + 2.0 + k / 2, prompt_id=str(k)) for k in range(16)], client_cpu_s=9.9 if trial == void else 0.1, **moments)
    samples = []
    for repeat in range(repeats):
        for server, size in (("plain", 100.0 + 10 * repeat), ("lora", 130.0 + 12 * repeat)):
            samples += [sample(100 * repeat + t, "host", name, size + wiggle, server=server) for t, wiggle in ((3, -1), (5, 0), (7, 1))]
            samples.append(sample(100 * repeat + 20, "host", name, 9_999.0, server=server))  # after the window
    run.samples(samples)
    return {(one.left, one.right): one for one in summarise(run.folder).comparisons if one.metric == name}


@pytest.fixture
def run(run: Any) -> Any:
    from tests.unit.analyse.conftest import at

    run.at = at
    return run


def test_two_repeats_give_students_interval(run: Any, record: Any, sample: Any) -> None:
    """Differences 30 and 32: mean 31, s = sqrt(2), t(1) = 12.706: 31 +- 12.706."""
    found = _memory(run, record, sample, repeats=2)
    one = found["base", "base+lora"]
    assert (one.difference, one.ci95_low, one.ci95_high) == pytest.approx((31.0, 31 - 12.7062, 31 + 12.7062), abs=1e-3)
    assert (one.relative, one.n, one.stage) == (pytest.approx(31 / 105), 2, "")
    assert ("base+lora", "adapter") not in found, "they share a server"


def test_one_repeat_gives_no_interval(run: Any, record: Any, sample: Any) -> None:
    one = _memory(run, record, sample, repeats=1, name="vram_bytes")["base", "adapter"]
    assert (one.difference, one.ci95_low, one.verdict, one.n_to_decide) == (30.0, None, "cannot tell", None)


def test_a_void_trial_enters_no_verdict_on_memory(run: Any, record: Any, sample: Any) -> None:
    """The plain server's second repeat is void, so the first is left alone: 130 - 100."""
    one = _memory(run, record, sample, repeats=2, void="base.one.r1")["base", "base+lora"]
    assert (one.difference, one.n, one.ci95_low) == (pytest.approx(30.0), 1, None)


def test_equal_figures_are_certain() -> None:
    assert few_paired([5.0, 5.0]).interval == (5.0, 5.0)
    assert few_paired([5.0, 5.0]).p_value == 0.0
    assert few_paired([0.0, 0.0]).p_value == 1.0
    assert few_paired([]).difference is None


def test_p_value_is_students() -> None:
    """scipy's one-sample t test of 1, 2, 4: t = 2.646, p = 0.118."""
    from scipy.stats import ttest_1samp

    assert few_paired([1.0, 2.0, 4.0]).p_value == pytest.approx(ttest_1samp([1, 2, 4], 0).pvalue)
