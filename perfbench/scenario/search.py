"""The words of a search: find the highest load at which the SLO holds, instead of measuring loads that somebody guessed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from perfbench.scenario.output import Output
from perfbench.scenario.strict import NotNegative, Positive, Strict

Find = Literal["max_rate", "max_concurrency"]


class Search(Strict):
    """What to look for, and how closely. `load: {search: max_rate}` is short for `search: [{find: max_rate}]`.

    max_rate: requests a second, open loop. max_concurrency: requests in flight, closed loop. Each probe is a trial of its own (`adapter.rate-3.r0`) that
    ends as soon as it is clear whether the SLO holds; docs/sizing.md says how that is decided.
    """

    find: Find
    """What is as high as it can be."""
    arrival: Literal["poisson", "constant", "gamma"] = "poisson"
    """max_rate: the arrival process of the probes."""
    burstiness: Positive | None = None
    """max_rate with gamma arrivals: shape of the gaps, as in a stage."""
    precision: Annotated[float, Field(ge=0.01, le=0.5)] = 0.05
    """max_rate ends when the edge lies so near its answer, as a share, with a probability of 80%; max_concurrency when a load that meets the SLO and one that
    misses it are so close."""
    streams: Annotated[int, Field(ge=1)] = 64
    """max_rate: requests in flight of the closed-loop probe that comes first, to learn what the server completes when it is full. max_concurrency: the
    first number tried."""
    max_in_flight: Annotated[int, Field(ge=1)] = 4096
    """The most that the client keeps in flight, in any probe."""
    max_probes: Annotated[int, Field(ge=2)] = 16
    """The search ends after so many, however far it is."""
    warmup_s: NotNegative = 5.0
    """Of each probe, left out of every number."""
    duration_s: Positive = 60.0
    """The longest window of a probe: one near the edge runs so long, a clear one is stopped earlier."""
    drain_s: Positive = 30.0
    """After the window, requests in flight get so long to end; those of a probe that misses the SLO are cut off."""
    output: Output | None = None
    """How long answers are, as in a stage; default: as in the first stage."""


def in_full(value: Any) -> Any:
    """`max_rate` -> [{find: max_rate}]; one block -> a list of it; anything else is left to the models."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple({"find": item} if isinstance(item, str) else item for item in items)
