"""Telemetry as analysis reads it: one table, with the labels that matter as columns, and two questions to it.

A gauge is asked for its readings, a counter for how much it grew over a window. No reading is None, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from perfbench.records import TrialOutcome
from perfbench.results import RunFolder

LABELS = ("server", "device", "reasons")


class Telemetry:
    """All samples of a run, by name: t_ns, source, value, unit, and the labels in LABELS."""

    def __init__(self, samples: pl.LazyFrame) -> None:
        labels = [pl.col("labels").str.json_path_match(f"$.{label}").alias(label) for label in LABELS]
        self._by_name = {
            str(part["name"][0]): part
            for part in samples.with_columns(labels).drop("labels").sort("t_ns").collect().partition_by("name", maintain_order=True)
        }

    @classmethod
    def of(cls, folder: RunFolder) -> Telemetry:
        return cls(folder.samples())

    def gauge(self, name: str, *, server: str | None = None, windows: Iterable[TrialOutcome] | None = None) -> pl.DataFrame:
        """Readings of one name in time order, of one server and inside measured windows where given; may be empty."""
        frame = self._by_name.get(name)
        if frame is None:
            return pl.DataFrame(schema={"t_ns": pl.Int64, "value": pl.Float64, **dict.fromkeys(LABELS, pl.String)})
        if server is not None:
            frame = frame.filter(pl.col("server") == server)
        if windows is not None:
            inside = [pl.col("t_ns").is_between(one.measure_from_ns, one.measure_until_ns) for one in windows]
            frame = frame.filter(pl.any_horizontal(inside)) if inside else frame.clear()
        return frame

    def growth(self, name: str, outcome: TrialOutcome, *, server: str | None = None, devices: Iterable[str] | None = None) -> float | None:
        """How much a counter grew over the measured window, summed over (the given) devices; None without two readings, or when it was reset.

        From the last reading before the window, else the first one in it, to the last one in it.
        """
        until = self.gauge(name, server=server).filter(pl.col("t_ns") <= outcome.measure_until_ns)
        if devices is not None:
            until = until.filter(pl.col("device").is_in(list(devices)))
        total = 0.0
        parts = until.partition_by("device", maintain_order=True)
        for part in parts:
            before = part.filter(pl.col("t_ns") <= outcome.measure_from_ns).tail(1)
            readings = pl.concat([before, part.filter(pl.col("t_ns") > outcome.measure_from_ns)])["value"]
            if len(readings) < 2 or readings[-1] < readings[0]:
                return None
            total += float(readings[-1] - readings[0])
        return total if parts else None

    def devices_of(self, server: str) -> list[str]:
        """GPUs on which the server was seen to hold memory."""
        return sorted(self.gauge("vram_bytes", server=server).filter(pl.col("value") > 0)["device"].drop_nulls().unique().to_list())
