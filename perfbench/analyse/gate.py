"""A run against a baseline and rules: has anything got worse by more than it may?

For each rule, variant and stage: let w be the change for the worse (a share of the baseline or the metric's unit, as the rule says), with a 95% interval
that knows the noise of both runs and what other starts of their servers would change (`run_change`), and a the change that the rule allows.

    pass         the whole interval lies at or below a
    regression   the whole interval lies above a, and still does after Holm's adjustment over all checks: with many rules, one would else fail by chance
    cannot tell  neither: too much noise for the question, or something that was not measured; never a pass

Memory is one figure a run, its largest reading, and decides by itself. The gate is as its worst check; regression outweighs cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from perfbench.analyse.compare import ALPHA, MOST_PAIRS, POWER
from perfbench.analyse.memory_differences import MEMORIES
from perfbench.analyse.moved import Moved, Span, ends
from perfbench.analyse.run_differences import moved
from perfbench.analyse.stats import holm
from perfbench.analyse.two_runs import FinishedRun, common_stages, common_variants, only_in_one
from perfbench.errors import Finding, ScenarioError
from perfbench.records import GateCheck, GateResult, GateVerdict, Unlike
from perfbench.scenario.gate import LATENCIES, OF_STAGE, RATES, Gate, GateRule

_Z975 = 1.959963984540054


@dataclass(frozen=True)
class _Asked:
    """One check before its verdict."""

    place: int
    rule: GateRule
    variant: str
    stage: str
    moved: Moved

    @property
    def allowed(self) -> float:
        return (self.rule.allowed_relative if self.rule.allowed_relative is not None else self.rule.allowed_absolute) or 0.0

    @property
    def change(self) -> Span | None:
        return self.moved.relative if self.rule.allowed_relative is not None else self.moved.difference

    @property
    def worsening(self) -> Span | None:
        """`change`, positive for the worse."""
        one = self.change
        if one is None or self.moved.better == "lower":
            return one
        return Span(-one.value, None if one.high is None else -one.high, None if one.low is None else -one.low, one.error, one.degrees)


def run_gate(baseline: FinishedRun, run: FinishedRun, gate: Gate, unlike: list[Unlike], *, file: str) -> GateResult:
    """Every rule for every variant and stage that both runs have. Raises ScenarioError for rules that name what neither run has; `file` is the rules'."""
    _check_names(baseline, run, gate, file)
    asked = list(_asked(baseline, run, gate))
    p_values = [_p_worse(one) for one in asked]
    adjusted = iter(holm([p for p in p_values if p is not None]))
    checks = [_check(one, None if p is None else next(adjusted)) for one, p in zip(asked, p_values, strict=True)]
    verdicts = {check.verdict for check in checks}
    verdict: GateVerdict = "regression" if "regression" in verdicts else "cannot tell" if "cannot tell" in verdicts or not checks else "pass"
    gone = only_in_one(baseline, run)
    return GateResult(baseline=str(baseline.path), run=str(run.path), verdict=verdict, checks=checks, unlike=unlike, only_in_one=gone)


def _check_names(baseline: FinishedRun, run: FinishedRun, gate: Gate, file: str) -> None:
    """A rule for a variant that is misspelt would check nothing and pass."""
    known = {"variants": common_variants(baseline, run), "stages": common_stages(baseline, run)}
    findings = [
        Finding(f"rules[{place}].{kind}", f"`{name}` is not in both runs; expected one of {', '.join(names)}")
        for place, rule in enumerate(gate.rules)
        for kind, names in known.items()
        for name in getattr(rule, kind) or ()
        if name not in names
    ]
    if findings:
        raise ScenarioError(file, findings)


def _asked(baseline: FinishedRun, run: FinishedRun, gate: Gate) -> Iterator[_Asked]:
    for place, rule in enumerate(gate.rules):
        for variant in rule.variants or common_variants(baseline, run):
            for stage in _stages(baseline, run, rule):
                yield _Asked(place, rule, variant, stage, moved(baseline, run, variant, stage, rule.metric, rule.statistic))


def _stages(baseline: FinishedRun, run: FinishedRun, rule: GateRule) -> list[str]:
    """'' alone for what is of the whole run. A rate that the schedule sets is only checked where the rule names the stage."""
    if rule.metric not in (*LATENCIES, *RATES, *OF_STAGE):
        return [""]
    if rule.stages is not None:
        return list(rule.stages)
    common = common_stages(baseline, run)
    return common if rule.metric not in RATES else [stage for stage in common if run.experiment.stages[stage].arrival == "closed"]


def _p_worse(one: _Asked) -> float | None:
    """One-sided p that the change for the worse is no more than what is allowed."""
    from scipy.special import stdtr

    span = one.worsening
    if span is None or span.error is None:
        return None
    if span.error == 0:
        return 0.0 if span.value > one.allowed else 1.0
    return float(stdtr(span.degrees, (one.allowed - span.value) / span.error))


def _check(one: _Asked, p_value: float | None) -> GateCheck:
    verdict, reason = _verdict(one, p_value)
    (change, low, high), found = ends(one.change), one.moved
    return GateCheck(
        rule=one.place, variant=one.variant, stage=one.stage, metric=found.metric, statistic=found.statistic, unit=found.unit,
        relative=one.rule.allowed_relative is not None, baseline=found.baseline, value=found.run,
        change=change, ci95_low=low, ci95_high=high,
        allowed=one.allowed, verdict=verdict, reason=reason, n=found.n, n_to_decide=_n_to_decide(one) if verdict == "cannot tell" else None,
    )  # fmt: skip


def _verdict(one: _Asked, p_value: float | None) -> tuple[GateVerdict, str]:
    span, found = one.worsening, one.moved
    if span is None:
        return "cannot tell", found.note or "the baseline is 0, so that no share of it can be told; give allowed_absolute"
    if span.low is None or span.high is None:
        if found.metric not in MEMORIES:
            return "cannot tell", found.note or "no interval"
        over = span.value > one.allowed
        return ("regression" if over else "pass"), f"one figure a run: {'above' if over else 'at or below'} what is allowed"
    if span.high <= one.allowed:
        return "pass", "the whole interval lies within what is allowed"
    if span.low > one.allowed and p_value is not None and p_value < ALPHA / 2:
        return "regression", "the whole interval lies beyond what is allowed"
    if span.low > one.allowed:
        return "cannot tell", "beyond what is allowed, but with so many checks this may be chance"
    return "cannot tell", "the interval reaches across what is allowed"


def _n_to_decide(one: _Asked) -> int | None:
    """Pairs with which the interval would lie on one side with 80% power, if change and noise stay as they are."""
    from scipy.special import ndtri

    span = one.worsening
    if span is None or not span.error or span.value == one.allowed:
        return None
    needed = one.moved.n * ((_Z975 + float(ndtri(POWER))) * span.error / (span.value - one.allowed)) ** 2
    return max(one.moved.n + 1, math.ceil(needed)) if needed <= MOST_PAIRS else None
