"""What starts of servers add to a difference: the weights by hand, the labels from a journal, and Student's intervals made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfbench.analyse.starts import START_DEGREES, StartVariance, start_variance, starts_seen
from perfbench.analyse.stats import REPLICATES, over_repeats, paired_interval, student_t975
from perfbench.analyse.window import server_starts

Labels = list[tuple[str, str]]


@pytest.mark.parametrize(
    ("labels", "seen", "hidden", "starts"),
    [
        ([("a1", "b1")], 0.0, 2.0, 1),
        ([("a1", "b1")] * 3, 0.0, 2.0, 1),
        ([("a1", "b1"), ("a2", "b2")], 2.0, 0.0, 2),
        ([("a1", "b1"), ("a2", "b2"), ("a3", "b3"), ("a4", "b4")], 2.0, 0.0, 4),
        # b is kept from the first repeat to the second: weights 1/2, 1/2 and 1, so c = 1.5, of which the two repeats show 2 x (2 - 1.5) / 2.
        ([("a1", "b1"), ("a2", "b1")], 1.0, 1.0, 1),
        # a: 1, 2, 2, 3 and b: 1, 1, 2, 2: c = (1 + 4 + 1) / 16 + 8 / 16 = 0.875, g = 4 / 3 x 1.125 = 1.5, and 0.875 - 1.5 / 4 is left.
        ([("a1", "b1"), ("a2", "b1"), ("a2", "b2"), ("a3", "b2")], 1.5, 0.5, 2),
        # An endpoint that is never started again beside a server that is.
        ([("a1", "e"), ("a2", "e")], 1.0, 1.0, 1),
        ([("s1", "s1")], 0.0, 0.0, 0),
        ([("s1", "s1"), ("s2", "s2")], 0.0, 0.0, 0),
        ([], 0.0, 0.0, 0),
    ],
)
def test_what_repeats_show_and_what_they_hide(labels: Labels, seen: float, hidden: float, starts: int) -> None:
    found = start_variance(labels, 1.0)
    assert (found.seen, found.hidden, starts_seen(labels)) == (pytest.approx(seen), pytest.approx(hidden), starts)


@pytest.mark.parametrize("labels", [[("a1", "b1"), ("a2", "b1"), ("a2", "b2")], [("a1", "b1"), ("a2", "b2"), ("a2", "b3")], [("a", "b")] * 3])
def test_the_parts_add_up_to_the_truth(labels: Labels) -> None:
    """20,000 simulated experiments of starts alone: the variance of the mean is `seen` / R + `hidden`, and that of a repeat as its spread shows it `seen`."""
    rng = np.random.default_rng(3)
    names = sorted({name for pair in labels for name in pair})
    starts = {name: rng.normal(0, 1, 20_000) for name in names}
    differences = np.stack([starts[right] - starts[left] for left, right in labels])
    found = start_variance(labels, 1.0)
    assert np.var(differences.mean(axis=0)) == pytest.approx(found.seen / len(labels) + found.hidden, rel=0.03)
    assert np.mean(np.var(differences, axis=0, ddof=1)) == pytest.approx(found.seen, rel=0.03)


def test_starts_are_read_from_the_journal(run: Any) -> None:
    """`plain` is started anew for the second repeat, `lora` is kept; an endpoint that was never started has no label."""
    trials = ["base.one.r0", "adapter.one.r0", "adapter.one.r1", "base.one.r1", "merged.one.r0"]
    run.manifest(trials)
    run.server("plain", ["base"])
    run.trial(trials[0], [])
    run.server("lora", ["base+lora", "adapter"])
    run.trial(trials[1], [])
    run.trial(trials[2], [])
    run.server("plain", ["base"])
    run.trial(trials[3], [])
    run.trial(trials[4], [])
    found = server_starts(run.folder)
    assert found.keys() == set(trials[:4])
    assert found[trials[1]] == found[trials[2]]
    assert len({found[trials[0]], found[trials[1]], found[trials[3]]}) == 3


def _half(means: list[float], inner: float, starts: StartVariance) -> tuple[float, float]:
    """Half of the 95% interval, and the degrees of freedom, with the same inner error in each repeat."""
    rng = np.random.default_rng(5)
    draws = rng.standard_normal((len(means), REPLICATES))
    draws = (draws - draws.mean(axis=1, keepdims=True)) / draws.std(axis=1, keepdims=True) * inner
    found = over_repeats(np.array(means), draws, starts, rng)
    return found.error * student_t975(found.degrees), found.degrees


def test_one_repeat_rests_on_the_allowance() -> None:
    half, degrees = _half([1.0], 0.0, StartVariance(hidden=0.02))
    assert (half, degrees) == pytest.approx((student_t975(8) * 0.02**0.5, START_DEGREES))


def test_one_repeat_of_one_server_is_its_own_error() -> None:
    assert _half([1.0], 0.1, StartVariance())[0] == pytest.approx(0.196, abs=0.001)


def test_two_repeats_are_moderated_by_the_allowance() -> None:
    """Means 0 and 2 spread by 2; allowed for 1: (8 x 1 + 1 x 2) / 9 a repeat, 5 / 9 for the mean; degrees (5/9)^2 / ((4/9)^2 / 8 + (1/9)^2 / 1) = 25 / 3."""
    half, degrees = _half([0.0, 2.0], 0.0, StartVariance(seen=1.0))
    assert (half, degrees) == pytest.approx((student_t975(25 / 3) * (5 / 9) ** 0.5, 25 / 3))


def test_repeats_that_agree_are_not_believed_at_once() -> None:
    """No spread at all in two repeats: eight ninths of what is allowed for is left."""
    assert _half([1.0, 1.0], 0.0, StartVariance(seen=1.0))[0] == pytest.approx(student_t975(8) * (4 / 9) ** 0.5)


def test_repeats_that_contradict_the_allowance_speak_alone() -> None:
    """Spread 200 where 1 is allowed for: Student's t of two values."""
    half, degrees = _half([0.0, 20.0], 0.0, StartVariance(seen=1.0))
    assert (half, degrees) == pytest.approx((student_t975(1) * 10.0, 1.0))


@pytest.mark.parametrize("repeats", [1, 2, 3, 5])
def test_intervals_hold_the_truth_when_starts_differ(repeats: int) -> None:
    """400 experiments whose servers differ by the allowance in each repeat: 95% within the binomial's 3 sigma, or more."""
    rng, held = np.random.default_rng(repeats), 0
    labels = [(f"a{k}", f"b{k}") for k in range(repeats)]
    for seed in range(400):
        rows = [rng.normal(1.0 + rng.normal(0, 0.02 * 2**0.5), 0.1, 40) for _ in range(repeats)]
        low, high = paired_interval(rows, seed=seed, starts=start_variance(labels, 0.02)).interval
        assert low is not None and high is not None
        held += low <= 1.0 <= high
    assert held / 400 >= 0.915
