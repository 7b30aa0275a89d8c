"""What the run and its sampling process say to each other: one JSON line each, the run on stdin, the sampler on stdout."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

Miss = Callable[[str, str], object]
"""Called by a source with what could not be read and why."""


class SampleTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One server to watch."""

    server: str
    root_pid: int | None
    """First process of the tree that we started; None for an endpoint, whose memory and CPU are not ours to see."""
    metrics_url: str | None
    """Complete, `http://127.0.0.1:8000/metrics`; None where there is none."""
    variants: list[str] = []
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the sampler reads it itself."""

    def labels(self) -> dict[str, str]:
        """What tells this server's samples apart."""
        return {"server": self.server, "variants": ",".join(self.variants)}


class SamplerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """First line to the sampler."""

    folder: str
    session: str
    parent_pid: int
    targets: list[SampleTarget]
    gpu_hz: float
    host_hz: float
    server_hz: float


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Every further line to the sampler: servers come and go."""

    add: SampleTarget | None = None
    remove: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What the sampler says once a second; the first one says that sampling has begun."""

    latest: dict[str, dict[str, float]]
    """server, `gpu <index>`, `machine` or `client` -> name -> newest value, none older than 5 s."""
    not_measured: dict[str, str]
    """Readings that have failed and never succeeded, each with its first reason."""
    missed: dict[str, int]
    """Failed readings so far, by source."""
    finished: bool = False
    """The last word: everything is in Parquet."""
