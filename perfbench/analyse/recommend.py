"""Which fine-tuned variant to serve, and why, in sentences with numbers.

Only `adapter` and `merged` can be recommended: they hold the fine-tune. A variant is out when its quality fails, when the reference called its answers
nonsense, or when none of its trials can be used. Of two that are left, the cheaper at the SLO is served when that is no accident: it meets the SLO
at another load than the other, or the comparison behind the price (goodput, else output tokens per second or TPOT, at that stage) is certain. Where the
price does not decide, TPOT does, if it points one way in every stage where it is certain. Else the run cannot say, and says what would help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfbench.analyse.compare import SAME_MARGIN
from perfbench.analyse.cost import StageResult
from perfbench.records import Comparison, FidelitySummary, Recommendation, ReferenceCheck, VariantSummary

FINE_TUNED = ("adapter", "merged")


def recommend(
    variants: Mapping[str, VariantSummary],
    comparisons: Sequence[Comparison],
    reference: Sequence[ReferenceCheck],
    at_slo: Mapping[str, StageResult | None],
    fidelity: Sequence[FidelitySummary] = (),
) -> Recommendation:
    """`at_slo` holds the stage that each variant's price rests on; None where it has no price at the SLO. Fidelity is told, and decides nothing: what a
    merged variant answers is judged by its own quality."""
    present = [name for name in FINE_TUNED if name in variants]
    if not present:
        return Recommendation(serve=None, reasons=["the run has no fine-tuned variant (adapter, merged) to recommend"])
    reasons: list[str] = []
    left: list[str] = []
    for name in present:
        out = _why_out(name, variants[name], reference)
        reasons.append(out or _quality_sentence(name, variants[name]))
        if out is None:
            left.append(name)
    if not left:
        return Recommendation(serve=None, reasons=reasons)
    if len(left) == 1:
        only = f"{left[0]} is the only fine-tuned variant that {'was measured' if len(present) == 1 else 'is left'}"
        return Recommendation(serve=left[0], reasons=[*reasons, only])
    serve, more = _choose(variants, comparisons, at_slo)
    reasons += [f"merged weights against the adapter: {one.verdict} ({one.reason})" for one in fidelity if one.right in FINE_TUNED and one.metric is not None]
    return Recommendation(serve=serve, reasons=[*more, *reasons])


def _why_out(name: str, variant: VariantSummary, reference: Sequence[ReferenceCheck]) -> str | None:
    if any(check.variant == name and check.verdict == "fail" for check in reference):
        return f"{name} is out: the reference calls its answers nonsense"
    if variant.quality is not None and variant.quality.verdict == "fail":
        return f"{name} is out: its quality fails ({variant.quality.reason})"
    if not any(trial.audit.verdict != "void" for trial in variant.trials):
        return f"{name} is out: none of its trials can be used"
    return None


def _quality_sentence(name: str, variant: VariantSummary) -> str:
    if variant.quality is None:
        return f"{name}: its quality was not measured"
    return f"{name}: quality {variant.quality.verdict} ({variant.quality.reason})"


def _choose(
    variants: Mapping[str, VariantSummary], comparisons: Sequence[Comparison], at_slo: Mapping[str, StageResult | None]
) -> tuple[str | None, list[str]]:
    between = [one for one in comparisons if (one.left, one.right) == FINE_TUNED]
    cheaper, why = _by_price(variants, between, at_slo)
    faster, tpot = _by_tpot(between)
    if cheaper is not None:
        against = [f"against it: {sentence}" for sentence in tpot] if faster not in (None, cheaper) else tpot
        return cheaper, [why, *against]
    if faster is not None:
        return faster, [*tpot, why]
    if tpot and all(one.verdict == "same" for one in between if one.metric == "tpot_s"):
        return None, [why, *tpot, f"adapter and merged are the same within {SAME_MARGIN:.0%}: either may be served; an adapter can share its server"]
    return None, [why, *tpot, "the run cannot tell adapter and merged apart; more repeats or longer stages narrow the intervals"]


def _by_price(
    variants: Mapping[str, VariantSummary], between: Sequence[Comparison], at_slo: Mapping[str, StageResult | None]
) -> tuple[str | None, str]:
    """The variant that is cheaper at the SLO and not by accident, with the sentence for either outcome."""
    prices = {name: variants[name].cost.usd_per_request for name in FINE_TUNED}
    stages = {name: at_slo.get(name) for name in FINE_TUNED}
    priced = [name for name in FINE_TUNED if prices[name] is not None]
    if not priced:
        return None, f"no price decides: {variants['merged'].cost.basis}"
    if len(priced) == 1:
        other = next(name for name in FINE_TUNED if name not in priced)
        price = _money(prices[priced[0]], variants[priced[0]].cost.currency)
        return priced[0], f"{priced[0]} has a price, {price} a request; {other} has none: {variants[other].cost.basis}"
    cheap, dear = sorted(FINE_TUNED, key=lambda name: prices[name] or 0.0)
    low, high = prices[cheap] or 0.0, prices[dear] or 0.0
    currency = variants[cheap].cost.currency
    said = f"{cheap} costs {_money(low, currency)} a request, {dear} {_money(high, currency)}"
    if high <= low * (1 + SAME_MARGIN):
        return None, f"{said}: the same within {SAME_MARGIN:.0%}"
    at, against = stages[cheap], stages[dear]
    if at is not None and against is not None and at.stage != against.stage:
        return cheap, f"{said}: {cheap} meets the SLO up to stage {at.stage}, {dear} at {against.stage}"
    stage = at.stage if at is not None else None
    here = {one.metric: one for one in between if one.stage == stage}
    backing = next((here[metric] for metric in ("goodput_per_s", "output_tokens_per_s", "tpot_s") if metric in here), None)
    if backing is not None and _winner(backing) == cheap:
        return cheap, f"{said} ({1 - low / high:.0%} less); {_sentence(backing)}"
    return None, f"{said}, a difference that the measurement does not make certain"


def _by_tpot(between: Sequence[Comparison]) -> tuple[str | None, list[str]]:
    told = [one for one in between if one.metric == "tpot_s"]
    winners = {winner for one in told if (winner := _winner(one)) is not None}
    return (winners.pop() if len(winners) == 1 else None), [_sentence(one) for one in told]


def _winner(one: Comparison) -> str | None:
    return {"better": one.right, "worse": one.left}.get(one.verdict)


def _sentence(one: Comparison) -> str:
    what = f"{one.metric} at stage {one.stage}: {one.right} against {one.left}"
    if one.difference is None:
        return f"{what}: no request was answered by both"
    relative = f"{one.relative:+.1%}" if one.relative is not None else f"{one.difference:+.3g}"
    if one.ci95_low is None or one.ci95_high is None:
        return f"{what} {relative}, too few requests for an interval"
    if one.relative is not None and one.difference:
        low, high = (end / one.difference * one.relative for end in (one.ci95_low, one.ci95_high))
        return f"{what} {relative} (95% interval {low:+.1%} to {high:+.1%}): {_told(one)}"
    return f"{what} {relative} (95% interval {one.ci95_low:+.3g} to {one.ci95_high:+.3g}): {_told(one)}"


def _told(one: Comparison) -> str:
    return one.verdict if one.n_to_decide is None else f"{one.verdict}; about {one.n_to_decide:,} pairs would tell, it had {one.n:,}"


def _money(value: float | None, currency: str) -> str:
    return "-" if value is None else f"{value:.3g} {currency}"
