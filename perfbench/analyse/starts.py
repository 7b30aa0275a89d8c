"""What another start of the servers would change, and how much of it a comparison has seen.

Two servers of the same thing are not equally fast: where memory lands, which cores threads are put on, what the machine does beside. All requests of one
start share that, so no number of them shows it. Repeats show it as far as servers were started anew between them. What they cannot show is allowed for:
START_SD of the left figure for each server, measured on restarts (benchmarks/statistics/RESULTS.md), and worth START_DEGREES degrees of freedom, since it
was measured on one machine and stands for all.

With the label of the start that answered each trial, the mean difference over R repeats holds each start with a known weight; c, the sum of squared
weights, is what starts add to its variance, in units of START_SD^2. The repeats' own spread holds g = R / (R - 1) (m - c) of it in each repeat, m being 2 where
left and right are two servers and 0 where they are one. The rest, c - g / R, is hidden:

    one repeat, or all of one start              c = 2        g = 0    hidden 2      all by allowance
    every repeat of another start                c = 2 / R    g = 2    hidden 0      repeats tell
    two repeats, one server kept between them    c = 1.5      g = 1    hidden 1
    variants on one server                       c = 0        g = 0    hidden 0      the start is the same for both
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

START_SD = {"closed": 0.015, "open": 0.045}
"""Standard deviation between starts of the same server, as a share of the figure. In open loop the queue multiplies it: by 1 / (1 - load)."""
CLOSED_TTFT_SD = 0.03
"""The time to the first token varies more, where nothing else waits before it."""
MEMORY_SD = 0.01
REPEAT_SD = 0.004
"""Standard deviation between repeats of one start, beyond what their requests show: 0.3% of a time per token on the demo, nothing of other times."""
LENGTHS = ("prompt_tokens", "output_tokens")
"""How fast a server is does not change them."""
START_DEGREES = 8.0
"""By simulation: where starts differ by twice as much as is allowed for, still fewer than 5% of comparisons of the same thing claim a difference."""


@dataclass(frozen=True)
class StartVariance:
    """What starts add to the variance of a difference; as shares of the left figure until `scaled`."""

    seen: float = 0.0
    """To that of each repeat, where the repeats' spread shows it."""
    hidden: float = 0.0
    """To that of the mean over repeats, where it does not."""

    def scaled(self, size: float) -> StartVariance:
        """In the square of the figure's unit; `size` is the figure."""
        return StartVariance(self.seen * size**2, self.hidden * size**2)


NO_STARTS = StartVariance()


def start_sd(metric: str, arrival: str) -> float:
    """What a figure varies by between starts, as a share of it. Rates and energy in closed loop as much as times."""
    if arrival != "closed":
        return START_SD["open"]
    return CLOSED_TTFT_SD if metric.startswith("ttft") else START_SD["closed"]


def repeat_sd(metric: str, arrival: str, starts: Collection[str | None]) -> float:
    """What repeats of a figure differ by, as a share of it, beyond what their requests show; `starts` are those that answered them, None where not known.

    What starts of the server change, where there were several; not of what the client decides, as the rates of an open loop.
    """
    clients = (*LENGTHS, "send_lag_s") if arrival == "closed" else (*LENGTHS, "send_lag_s", "requests_per_s", "output_tokens_per_s")
    return REPEAT_SD if len(set(starts)) < 2 or metric in clients else start_sd(metric, arrival)


def start_variance(labels: Sequence[tuple[str, str]], sd: float) -> StartVariance:
    """Of the mean difference over repeats, labels[r] being the starts of left and right in repeat r and `sd` what one start varies by."""
    repeats = len(labels)
    if not repeats:
        return NO_STARTS
    weights: Counter[str] = Counter()
    for left, right in labels:
        weights[left] -= 1
        weights[right] += 1
    mean = sum(weight**2 for weight in weights.values()) / repeats**2
    if repeats == 1:
        return StartVariance(hidden=mean * sd**2)
    each = sum(2 for left, right in labels if left != right) / repeats
    seen = max(0.0, repeats / (repeats - 1) * (each - mean))
    return StartVariance(seen * sd**2, max(0.0, mean - seen / repeats) * sd**2)


def starts_seen(labels: Sequence[tuple[str, str]]) -> int:
    """Starts of each side, of the one that has fewer; 0 where left and right are one server."""
    if all(left == right for left, right in labels):
        return 0
    return min(len({pair[side] for pair in labels}) for side in (0, 1))
