"""Steady state by stage, every check by trial: what is read first, and how figures and thresholds are written."""

from __future__ import annotations

import msgspec
import pytest

from perfbench.records import AuditCheck, Manifest, Summary
from perfbench.report import checks, figures
from perfbench.report.points import trial_windows
from perfbench.results import RunFolder


def test_steady_state_has_a_row_a_stage_and_variant_with_what_was_cut(summary: Summary) -> None:
    rows = {(row[0].text, row[1].text): row for row in checks.steady_table(summary).rows}
    assert len(rows) == 12
    cut = rows["closed-4", "adapter"]
    assert (cut[2].text, cut[2].mark, cut[3].text) == ("steady", "valid", "12.0 s")
    assert cut[4].text == "steady from 6 s of the window on. r2: the TPOT's p50 steps by +12% 6 s into the window (p = 0.002)"
    assert (rows["closed-4", "base"][3].text, rows["poisson-2", "base"][2].mark) == ("nothing", "skipped")


def test_repeats_that_differ_each_say_their_own(summary: Summary) -> None:
    base = summary.variants["base"]
    state = msgspec.structs.replace(base.trials[0].steady, verdict="no steady state", sentence="the queue grows")
    trials = [msgspec.structs.replace(base.trials[0], steady=state), *base.trials[1:]]
    changed = msgspec.structs.replace(summary, variants={"base": msgspec.structs.replace(base, trials=trials)})
    row = checks.steady_table(changed).rows[0]
    assert (row[2].text, row[2].mark) == ("no steady state, steady", None)
    assert row[4].text == "r1: the queue grows. r2: no trend in 10 slices"


def test_checks_are_by_stage_and_a_doubt_comes_first(summary: Summary) -> None:
    found = {one.stage: one for one in checks.stage_checks(summary)}
    assert {name: (len(one.trials), one.doubts) for name, one in found.items()} == {"closed-1": (8, 0), "closed-4": (8, 0), "poisson-2": (8, 1)}
    lines = dict(found["poisson-2"].trials)
    table = lines["base+lora · r2: suspect, 3 checks, in doubt: client CPU"]
    assert [cell.text for cell in table.rows[0]][:5] == ["client CPU", "suspect", "0.930 cores", "0.700 cores", "0.950 cores"]
    assert [row[0].text for row in table.rows] == ["client CPU", "answered", "failed"]


def test_a_run_without_checks_and_steady_states_shows_neither(summary: Summary) -> None:
    variants = {
        name: msgspec.structs.replace(
            variant, trials=[msgspec.structs.replace(one, steady=None, audit=msgspec.structs.replace(one.audit, checks=[])) for one in variant.trials]
        )
        for name, variant in summary.variants.items()
    }
    bare = msgspec.structs.replace(summary, variants=variants)
    assert (checks.stage_checks(bare), checks.steady_table(bare).rows) == ([], ())


@pytest.mark.parametrize(
    ("measured", "unit", "text"), [(41, "requests", "41 requests"), (0.0, "share", "0.0 %"), (0.0123, "s", "12.3 ms"), (None, "", "—"), (12.0, "", "12")]
)
def test_figures_keep_their_units(summary: Summary, measured: float | None, unit: str, text: str) -> None:
    base = summary.variants["base"]
    check = AuditCheck(name="x", verdict="valid", sentence="fine", measured=measured, unit=unit)
    trial = msgspec.structs.replace(base.trials[0], audit=msgspec.structs.replace(base.trials[0].audit, checks=[check]))
    changed = msgspec.structs.replace(summary, variants={"base": msgspec.structs.replace(base, trials=[trial])})
    ((_, table),) = checks.stage_checks(changed)[0].trials
    assert [cell.text for cell in table.rows[0][2:5]] == [text, "—", "—"]


def test_the_steady_part_is_a_bar_from_the_trials_start(folder: RunFolder, summary: Summary, manifest: Manifest) -> None:
    bars, words = figures._steady_bars(summary, "closed-4", trial_windows(folder, manifest).values())
    assert [(bar["x0"], bar["x1"]) for bar in bars] == [(11.0, 35.0), (11.0, 35.0)]
    assert bars[0]["y1"] <= bars[1]["y0"], "bars do not hide each other"
    assert words.endswith("adapter r1 11.0 to 35.0 s, adapter r2 11.0 to 35.0 s.")
    assert figures._steady_bars(summary, "closed-1", trial_windows(folder, manifest).values()) == ([], "")
