"""From a run folder and a demand file to a plan, in the run folder and in its reports. The only part of planning that may read traces and write files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from perfbench.errors import Finding, InputError, ScenarioError
from perfbench.load.trace_rows import TraceError, read_rows
from perfbench.plan.break_even import break_even
from perfbench.plan.capacity import length_warning, plan_variant, rule_of
from perfbench.plan.check import checked
from perfbench.plan.demand import DemandTrace, FineTunes, TraceArrays, demand_of, read_demand
from perfbench.plan.evidence import RunEvidence, evidence_of
from perfbench.records import Plan
from perfbench.results import RunFolder


def make_plan(
    folder: RunFolder, demand_file: Path, fine_tunes: Callable[[FineTunes | None], FineTunes | None] = lambda given: given,
    *, say: Callable[[str], None] = lambda _: None,
) -> Plan:  # fmt: skip
    """The plan of a finished run. `fine_tunes` makes what the break-even is asked for out of what the demand file says; `say` tells how far it is.

    Raises ScenarioError for a demand file that cannot be used, InputError for a demand of zero and for a run of which nothing can be used,
    RunFolderError for a run that has not finished.
    """
    given = read_demand(demand_file)
    demand = demand_of(given, _trace(given.trace, demand_file) if given.trace is not None else None)
    summary = folder.summary()
    say("read the run")
    run = evidence_of(folder, summary, given.cost)
    rule = rule_of(given, run.cost.usd_per_kwh if run.cost is not None else None, run.currency)
    variants = {}
    for name, evidence in run.variants.items():
        say(f"simulate {name}")
        variants[name] = checked(plan_variant(evidence, demand, rule), evidence, demand, run.experiment)
    wanted = fine_tunes(given.fine_tunes)
    lengths = length_warning(demand, list(run.variants.values()))
    return Plan(
        demand=demand, head_room=rule.head_room, head_room_reason=rule.head_room_reason, hours_per_month=rule.hours_per_month, currency=run.currency,
        serve=summary.recommendation.serve, variants=variants, break_even=break_even(run, demand, rule, wanted) if wanted is not None else None,
        warnings=[*_warnings(run, summary.valid), *lengths], other_lengths=bool(lengths),
    )  # fmt: skip


def wanted_fine_tunes(given: FineTunes | None, *, counts: str | None, skew: str | None, load_s: float | None) -> FineTunes | None:
    """The demand file's block with what the command line says instead. Raises InputError for lists that are none."""
    flags = {"counts": ("--fine-tunes", counts), "skew": ("--skew", skew)}
    said: dict[str, object] = {key: [_parsed(word) for word in text.split(",")] for key, (_, text) in flags.items() if text is not None}
    if load_s is not None:
        said["load_s"] = load_s
    if not said:
        return given
    try:
        return FineTunes.model_validate_json(json.dumps({**(given.model_dump() if given is not None else {}), **said}))
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        flag, text = flags.get(key, ("--load-s", load_s))
        what = "whole numbers above 0, as in 1,2,5" if key == "counts" else "numbers from 0, as in 0,1,1.5"
        raise InputError(f"{flag}: expected {what}; got `{text}`") from None


def _parsed(word: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _warnings(run: RunEvidence, valid: bool) -> list[str]:
    found = [] if valid else ["the run is not valid as a whole: its audit says why; only what may be used is planned from"]
    if run.cost is None:
        found.append("no price is known, so the plan counts servers only: give `cost` in the demand file (perfbench prices shows what providers ask)")
    else:
        found += dict.fromkeys(f"{name}: {evidence.price.reason}" for name, evidence in run.variants.items() if evidence.price.reason)
    return found


def _trace(named: DemandTrace, demand_file: Path) -> TraceArrays:
    """Every row's time and lengths; rows that ask for no token are passed over, as in a replay."""
    try:
        rows = [
            (row.offset_s, _or_nan(row.input_tokens), _or_nan(row.output_tokens))
            for row in read_rows(named.path, named.format) if row.input_tokens != 0 and row.output_tokens != 0
        ]  # fmt: skip
    except TraceError as error:
        raise ScenarioError(str(demand_file), [Finding("trace.path", f"{named.path}: {error}")]) from None
    arrays: Sequence[np.ndarray[tuple[int], np.dtype[np.float64]]] = [np.array(values, np.float64) for values in zip(*rows, strict=True)] or [np.empty(0)] * 3
    return TraceArrays(*arrays)


def _or_nan(tokens: int | None) -> float:
    return math.nan if tokens is None else float(tokens)


def keep_plan(folder: RunFolder, plan: Plan) -> None:
    """Write plan.json and plan.md, and the reports anew with the plan in them."""
    from perfbench.conclude import conclude
    from perfbench.report.markdown import render_plan

    folder.write_plan(plan)
    folder.write_text("plan.md", render_plan(plan))
    conclude(folder)
