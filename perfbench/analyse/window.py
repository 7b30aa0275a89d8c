"""Which requests of a trial count.

A trial has a warm-up, a measured window [measure_from_ns, measure_until_ns) and a drain. Two questions need two selections:

Latency: requests *scheduled* in the window. Each is followed to its end, through the drain. To choose by end time instead would keep the short ones at
the window's far edge and lose the long ones that the same moment started; the choice by scheduled time does not look at how a request turned out. It
also keeps the choice the same for every variant, because arrival times are. A request that the end of the drain cut off is failed (`cancelled`), so it
counts against the SLO; the audit says how many there are, since percentiles of the others are then too low.

Rate: requests that *ended* in the window. In steady state as many end in it as begin in it, and at overload only this shows what the server
completes; requests scheduled in the window but finished in the drain were served while no further load came in. Warm-up fills the server before the
window opens, so that requests in flight at its start balance those in flight at its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
import numpy as np
import polars as pl

from perfbench.analyse.metrics import per_request_columns
from perfbench.analyse.stats import Floats
from perfbench.errors import RunFolderError
from perfbench.records import TrialOutcome
from perfbench.result_tables import COPY_AGAIN
from perfbench.results import RunFolder

_KEPT = ("trial", "prompt_id", "scheduled_ns", "sent_ns", "end_ns", "status", "error", "stamp", "cached_tokens", "adapter")


def trial_outcomes(folder: RunFolder) -> dict[str, TrialOutcome]:
    """trial -> what the load process said of it; only trials that the journal names as finished."""
    return {trial: msgspec.convert(data, TrialOutcome) for trial, data in folder.finished("trial_finished").items()}


def server_starts(folder: RunFolder) -> dict[str, str]:
    """Trial -> the start of the server that answered it; a label that no other start has."""
    variants = {plan.trial: plan.variant for plan in folder.manifest().trials}
    counts: Counter[str] = Counter()
    now: dict[str, str] = {}
    found: dict[str, str] = {}
    for entry in folder.journal():
        if entry.event == "server_ready":
            counts[entry.key] += 1
            now |= {variant: f"{folder.path.resolve()} {entry.key} {counts[entry.key]}" for variant in entry.data["variants"]}
        elif entry.event == "trial_finished" and variants.get(entry.key) in now:
            found[entry.key] = now[variants[entry.key]]
    return found


def read_requests(folder: RunFolder, trials: Mapping[str, TrialOutcome]) -> dict[str, pl.DataFrame]:
    """trial -> its requests in sending order, no row where it sent none: kept record columns, every metric of a request, and `occurrence`.

    Raises RunFolderError where a trial has sent requests and the folder holds none of them: no figure could tell that from a server that answers nothing.

    `occurrence` counts how often the trial has sent the prompt before, warm-up included: (prompt_id, occurrence) names the same request in every variant.
    Chunk times and answers stay on disk.
    """
    lazy = folder.records().select(*_KEPT, *per_request_columns()).sort("trial", "scheduled_ns", maintain_order=True)
    frame = lazy.with_columns(pl.int_range(pl.len()).over("trial", "prompt_id").alias("occurrence")).collect()
    parts = {str(part["trial"][0]): part for part in frame.partition_by("trial", maintain_order=True)}
    for trial, outcome in trials.items():
        if trial not in parts and outcome.requests_ok + outcome.requests_failed:
            where = f"{folder.path / 'requests'} lacks the records of trial {trial}, which the journal names as finished"
            raise RunFolderError(where, hint=COPY_AGAIN)
    return {trial: parts.get(trial, frame.clear()) for trial in trials}


def scheduled_in_window(outcome: TrialOutcome) -> pl.Expr:
    """The selection for latencies, failures and the audit."""
    return pl.col("scheduled_ns").is_between(outcome.measure_from_ns, outcome.measure_until_ns, closed="left")


def ended_in_window(outcome: TrialOutcome) -> pl.Expr:
    """The selection for rates: successful requests only."""
    return (pl.col("status") == "ok") & pl.col("end_ns").is_between(outcome.measure_from_ns, outcome.measure_until_ns, closed="left")


def window_s(outcome: TrialOutcome) -> float:
    """Length of the measured window, seconds."""
    return (outcome.measure_until_ns - outcome.measure_from_ns) / 1e9


def in_flight_when_due(requests: pl.DataFrame, outcome: TrialOutcome) -> Floats:
    """How many of the trial's requests, warm-up included, were due and had not ended when each measured one was due; in time order."""
    due, ended = np.sort(requests["scheduled_ns"].to_numpy()), np.sort(requests["end_ns"].to_numpy())
    measured = due[(due >= outcome.measure_from_ns) & (due < outcome.measure_until_ns)]
    return (np.searchsorted(due, measured, side="left") - np.searchsorted(ended, measured, side="right")).astype(np.float64)
