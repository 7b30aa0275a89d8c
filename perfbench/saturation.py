"""A server that cannot keep up is not worth the rest of its stage: sees it from a running trial's reports, ends the trial, and leaves out higher rates.

Open loop at a constant mean rate only. Over-saturated, as in analyse/steady.py, means that over the window so far the number in flight and the TTFT both
rise (Mann-Kendall), the number by more than GROWTH_SIGMAS standard deviations of the arrivals' own chance, and the TTFT to TTFT_GROWN of what it was. Further,
what was served must be behind what the rate brings by more than the services' own chance, as they vary from report to report: at SERVED_SIGMAS, with Student's
t for so few reports. Services of very different lengths make a stable queue grow too; what arrived is known, and the chance in it is no doubt about the server
(counted in, as it was, 46 and not 63 of 100 stages at 150% with a long tail were stopped within 60 s). Seconds in which nothing ended count for neither side:
where long requests hold all slots of a server that can keep up, there are some by chance (counted, 5 in 100 stable stages at 99% were stopped, and not 1:
benchmarks/statistics/RESULTS.md). The TTFT keeps the filling of a server whose answers take longer than the warm-up from being taken for it: there the number
in flight grows, and first tokens still come in time.
"""

from __future__ import annotations

import math
from functools import cache

import msgspec
import numpy as np

from perfbench.analyse.steady import ALPHA, GROWTH_SIGMAS
from perfbench.analyse.trend import mann_kendall
from perfbench.load.messages import Progress
from perfbench.records import TrialOutcome, TrialPlan
from perfbench.results import RunFolder
from perfbench.scenario import Scenario, Stage
from perfbench.trials import stage_of

CONSTANT_RATE = ("constant", "poisson", "gamma")
LEAST_REPORTS = 8
"""About one a second: with fewer, even a series that only rises shows little."""
TTFT_GROWN = 2.0
SERVED_SIGMAS = 3.6
"""By simulation: with 3.5, 1.0% of stable stages at 99% load with a long tail are stopped; with 4, only half of those at 150%."""


class SaturationWatch:
    """Of one trial: give it every report; it says once why the trial should end."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._first_sent = 0
        self._at_s = 0.0
        self._serving_s: list[float] = []
        """From one report to the next, of those in which something ended."""
        self._served: list[int] = []
        self._in_flight: list[float] = []
        self._ttft_s: list[float] = []
        self.reason: str | None = None
        """The sentence, once there is one."""

    def ends(self, report: Progress) -> bool:
        """True at the first report that shows the server over-saturated."""
        elapsed_s = report.elapsed_s - self._stage.warmup_s
        if self._stage.arrival not in CONSTANT_RATE or self.reason is not None or elapsed_s < 0:
            return False
        since_s, self._at_s = elapsed_s - self._at_s, elapsed_s
        if report.ttft_p50_s is None:
            return False
        self._serving_s.append(since_s)
        self._served.append(report.sent - report.in_flight)
        if not self._in_flight:
            self._first_sent = report.sent
        self._in_flight.append(report.in_flight)
        self._ttft_s.append(report.ttft_p50_s)
        if not self._over_saturated(report.sent - self._first_sent):
            return False
        self.reason = (
            f"over-saturated: stopped after {elapsed_s:.0f} s of its window, in which requests in flight grew from {self._in_flight[0]:.0f} to "
            f"{self._in_flight[-1]:.0f} and the TTFT (p50) from {self._ttft_s[0]:.3g} s to {self._ttft_s[-1]:.3g} s; the server cannot keep up with "
            f"{self._stage.rate_per_s:g} requests/s"
        )
        return True

    def _over_saturated(self, arrivals: int) -> bool:
        if len(self._in_flight) < LEAST_REPORTS or self._in_flight[-1] - self._in_flight[0] <= GROWTH_SIGMAS * math.sqrt(arrivals):
            return False
        queue, ttft, served = np.array(self._in_flight), np.array(self._ttft_s), np.diff(self._served)
        behind = (self._stage.rate_per_s or 0.0) * sum(self._serving_s[1:]) - float(served.sum())
        if min(behind, queue[-1] - queue[0]) <= _sigmas(len(served) - 1) * float(served.std(ddof=1)) * math.sqrt(len(served)):
            return False
        third = len(ttft) // 3
        if float(np.median(ttft[-third:])) < TTFT_GROWN * float(np.median(ttft[:third])):
            return False
        rising = (mann_kendall(queue), mann_kendall(ttft))
        return all(trend.p_value < ALPHA and trend.change > 0 for trend in rising)


@cache
def _sigmas(degrees: int) -> float:
    """SERVED_SIGMAS of the normal curve, as Student's t has them."""
    from scipy.special import ndtr, stdtrit

    return -float(stdtrit(degrees, ndtr(-SERVED_SIGMAS)))


def why_skipped(folder: RunFolder, scenario: Scenario, trial: TrialPlan) -> str | None:
    """The sentence for not driving a trial: the same variant could not keep up with a lower rate of the same requests. None for one to be driven."""
    stage = stage_of(trial, scenario)
    if stage.arrival not in CONSTANT_RATE or stage.rate_per_s is None or trial.search is not None:
        return None
    for data in folder.finished("trial_finished").values():
        outcome = msgspec.convert(data, TrialOutcome)
        if outcome.stopped_early is None:
            continue
        other = next((plan for plan in folder.manifest().trials if plan.trial == outcome.trial), None)
        if other is None or other.variant != trial.variant:
            continue
        slower = stage_of(other, scenario)
        if slower.rate_per_s is not None and slower.rate_per_s < stage.rate_per_s and slower.output == stage.output:
            return f"skipped: {other.trial} was over-saturated at {slower.rate_per_s:g} requests/s, and this stage asks for {stage.rate_per_s:g}"
    return None
