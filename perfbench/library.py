"""perfbench as a library: the same job as the command line, with typed results.

    from perfbench import Scenario, load_run, run

    finished = run("my-model.yaml", parent="results")        # what `perfbench run` does
    again = load_run("results/my-model-20261125T101500Z-1a2b")
    again.summary.variants["merged"].cost.usd_per_request    # structs of perfbench.records
    again.records().filter(...)                              # a lazy Polars frame, one row a request

Errors are those of the command line (perfbench.errors), raised instead of printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from perfbench.records import Manifest, QualityRecord, Summary
    from perfbench.results import RunFolder
    from perfbench.scenario import Scenario


class Run:
    """One run, read from its folder. Nothing is changed by reading."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._folder.path

    @property
    def summary(self) -> Summary:
        """The analysed run: variants, comparisons, recommendation. Raises RunFolderError for a run that was cut off before its analysis."""
        return self._folder.summary()

    @property
    def manifest(self) -> Manifest:
        """What was run, on what, with which versions."""
        return self._folder.manifest()

    def records(self) -> pl.LazyFrame:
        """One row a request (DESIGN 7.1), times in nanoseconds of CLOCK_MONOTONIC; read from disk when it is collected."""
        return self._folder.records()

    def samples(self) -> pl.LazyFrame:
        """One row a telemetry reading: t_ns, source, name, value, unit, labels."""
        return self._folder.samples()

    def quality(self, variant: str) -> list[QualityRecord]:
        """The held-out samples that a variant answered; empty where it was not checked."""
        return self._folder.quality(variant)


def run(
    scenario: Scenario | str | Path, *, parent: str | Path = "results", quick: bool = False, quiet: bool = True, check_reference: bool = True
) -> Run:
    """Carry out a scenario, or a scenario file, in a new folder under `parent`: serve, check, drive, measure, analyse, report.

    `quick` takes the short form. Blocks until all is done; Ctrl-C drains, saves and stops the servers. Raises InputError before anything has been
    started for what cannot be used, and the other errors of perfbench.errors for what goes wrong later.
    """
    from perfbench.run import run_scenario
    from perfbench.scenario import load_scenario
    from perfbench.scenario.short_form import short_form

    file = Path(scenario) if isinstance(scenario, (str, Path)) else None
    checked = load_scenario(file) if file is not None else scenario
    assert not isinstance(checked, (str, Path))
    checked = short_form(checked) if quick else checked
    return Run(run_scenario(checked, scenario_file=file, parent=Path(parent), quiet=quiet, check_reference=check_reference))


def load_run(path: str | Path) -> Run:
    """Open a run folder. Raises RunFolderError where it is none."""
    from perfbench.results import RunFolder

    return Run(RunFolder.open(path))
