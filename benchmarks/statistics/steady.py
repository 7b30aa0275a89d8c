"""How often the steady-state test (analyse/steady.py) errs, on windows whose state is known.

    python -m benchmarks.statistics.steady > /tmp/steady.md                                       (2 minutes)

False alarms: stationary queues, 60 s windows after a warm-up. Misses: the same with a drift of the time per token, a level shift, or more arrivals than
the server can carry.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from benchmarks.statistics import queues
from perfbench.analyse.steady import steady_state
from perfbench.records import TrialOutcome
from perfbench.scenario.model import Output, Stage

WINDOWS = 100
WINDOW_S = 60.0
TOKENS = 50
VERDICTS = ("steady", "cut", "no steady state", "over-saturated", "cannot tell")
Slower = Callable[[np.ndarray], np.ndarray]


def frame(sent_s: np.ndarray, spent_s: np.ndarray, rng: np.random.Generator, slower: Slower | None) -> pl.DataFrame:
    """Requests whose wait comes before the first token; a token takes 20 ms with a spread of 10%."""
    tpot_s = rng.gamma(100, 0.0002, len(sent_s))
    tpot_s = tpot_s if slower is None else tpot_s * slower(sent_s / WINDOW_S)
    due = (sent_s * 1e9).astype(np.int64)
    e2e_s = spent_s + tpot_s * (TOKENS - 1)
    return pl.DataFrame({"scheduled_ns": due, "end_ns": due + (e2e_s * 1e9).astype(np.int64), "tpot_s": tpot_s, "ttft_scheduled_s": spent_s, "e2e_s": e2e_s})


def judge(frame: pl.DataFrame, arrival: str) -> str:
    keys = {"concurrency": 8} if arrival == "closed" else {"rate_per_s": 10.0}
    stage = Stage(name="one", arrival=arrival, output=Output(fixed=TOKENS), duration_s=WINDOW_S, **keys)
    end = round(WINDOW_S * 1e9)
    outcome = TrialOutcome(trial="t", started_ns=0, measure_from_ns=0, measure_until_ns=end, ended_ns=end, requests_ok=0, requests_failed=0)
    state = steady_state(stage, outcome, frame)
    return "cut" if state.verdict == "steady" and state.cut_s else state.verdict


def queue(kind: Callable[..., queues.Window], rho: float, rate_per_s: float) -> Callable[[np.random.Generator], list[tuple[np.ndarray, np.ndarray]]]:
    """Windows of a queue whose arrivals come at `rate_per_s`: its unit of time is stretched to that."""

    def windows(rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        found = kind(rng, WINDOWS, round(rate_per_s * WINDOW_S * 1.4) + 100, rho)
        chosen = []
        for sent, spent in zip(found.sent, found.spent, strict=True):
            scale = len(sent) / rate_per_s / (sent[-1] - sent[0])
            at = (sent - sent[0]) * scale - 5
            inside = at < WINDOW_S
            chosen.append((at[inside], spent[inside] * scale))
        return chosen

    return windows


def overloaded(share: float, rate_per_s: float) -> Callable[[np.random.Generator], list[tuple[np.ndarray, np.ndarray]]]:
    """Arrivals at `share` of what one server carries, from an empty one."""

    def windows(rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        chosen = []
        for _ in range(WINDOWS):
            gaps = rng.exponential(1 / rate_per_s, round(rate_per_s * (WINDOW_S + 5)))
            services, wait, waits = rng.exponential(share / rate_per_s, len(gaps)), 0.0, np.empty(len(gaps))
            for k, (gap, service) in enumerate(zip(gaps, services, strict=True)):
                waits[k], wait = wait, max(0.0, wait + service - gap)
            chosen.append((np.cumsum(gaps) - 5, waits))
        return chosen

    return windows


CASES: dict[str, tuple[Callable[[np.random.Generator], list[tuple[np.ndarray, np.ndarray]]], str, Slower | None]] = {
    "stationary: closed, 10/s": (queue(queues.batch, 0.3, 10), "closed", None),
    "stationary: closed, 100/s": (queue(queues.batch, 0.3, 100), "closed", None),
    "stationary: single server at 30%, 20/s": (queue(queues.single, 0.3, 20), "poisson", None),
    "stationary: single server at 80%, 20/s": (queue(queues.single, 0.8, 20), "poisson", None),
    "stationary: batch at 50%, 50/s": (queue(queues.batch, 0.5, 50), "poisson", None),
    "stationary: batch at 80%, 50/s": (queue(queues.batch, 0.8, 50), "poisson", None),
    "drift of 10%: closed, 20/s": (queue(queues.batch, 0.3, 20), "closed", lambda t: 1 + 0.1 * t),
    "drift of 30%: closed, 20/s": (queue(queues.batch, 0.3, 20), "closed", lambda t: 1 + 0.3 * t),
    "step of 10% at two thirds: closed, 20/s": (queue(queues.batch, 0.3, 20), "closed", lambda t: np.where(t > 2 / 3, 1.1, 1.0)),
    "step of 30% at two thirds: closed, 20/s": (queue(queues.batch, 0.3, 20), "closed", lambda t: np.where(t > 2 / 3, 1.3, 1.0)),
    "ramp of 50% over the first quarter: closed, 20/s": (queue(queues.batch, 0.3, 20), "closed", lambda t: 1 - 0.5 * np.clip(1 - 4 * t, 0, 1)),
    "load of 95%: single server, 20/s": (overloaded(0.95, 20), "poisson", None),
    "load of 120%: single server, 20/s": (overloaded(1.2, 20), "poisson", None),
    "load of 150%: single server, 20/s": (overloaded(1.5, 20), "poisson", None),
}


def main() -> None:
    print(f"| window | {' | '.join(VERDICTS)} |\n|---|{'---|' * len(VERDICTS)}")
    for name, (windows, arrival, slower) in CASES.items():
        rng = np.random.default_rng(20261125)
        found = [judge(frame(sent, spent, rng, slower), arrival) for sent, spent in windows(rng)]
        print(f"| {name} | {' | '.join(f'{found.count(verdict) / len(found):.1%}' for verdict in VERDICTS)} |", flush=True)


if __name__ == "__main__":
    main()
