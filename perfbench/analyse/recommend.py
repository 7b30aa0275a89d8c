"""Which fine-tuned variant to serve, and why, in sentences with numbers.

Only `adapter` and `merged` can be recommended: they hold the fine-tune. A variant is out when its quality fails, when it does not do the task (no pass,
and next to nothing right), when it answers worse under load than idle by more than the margin, or when the reference called its answers nonsense. One whose
trials are all void is not out, it is unknown: then nothing is recommended, since what it would have been is not known either. Of two that are left, the
cheaper at the SLO is served when that is no accident: it meets the SLO at a load at which the other misses it, or the comparison behind the price (goodput,
else output tokens per second or TPOT, at that stage) is certain. Where the price does not decide, TPOT does, if it points one way in every stage where it is
certain. Else the run cannot say, and says what would help.

`reasons` are for ten seconds: what decided first, one sentence for all stages. `details` hold the sentences behind them: each stage with its interval, each
quality verdict in full.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from perfbench.analyse.compare import SAME_MARGIN, nothing_paired
from perfbench.analyse.cost import StageResult
from perfbench.analyse.metrics import metric_label
from perfbench.records import CapacitySummary, Comparison, FidelitySummary, QualitySummary, Recommendation, ReferenceCheck, UnderLoad, VariantSummary

FINE_TUNED = ("adapter", "merged")
_MILLION = 1_000_000
_PER_MILLION_BELOW = 0.001
"""Of a currency unit: a price with more zeros than that is said per million requests."""


def recommend(
    variants: Mapping[str, VariantSummary],
    comparisons: Sequence[Comparison],
    reference: Sequence[ReferenceCheck],
    at_slo: Mapping[str, StageResult | None],
    fidelity: Sequence[FidelitySummary] = (),
    under_load: Sequence[UnderLoad] = (),
) -> Recommendation:
    """`at_slo` holds the stage that each variant's price rests on; None where it has no price at the SLO. Fidelity is told, and decides nothing: what a
    merged variant answers is judged by its own quality."""
    present = [name for name in FINE_TUNED if name in variants]
    if not present:
        return Recommendation(serve=None, reasons=["the run has no fine-tuned variant (adapter, merged) to recommend"])
    out = {name: why for name in present if (why := _why_out(name, variants[name], reference, under_load)) is not None}
    unknown = {name: why for name in present if name not in out and (why := _why_unknown(name, variants[name])) is not None}
    reasons = [out.get(name) or unknown.get(name) or _quality_sentence(name, variants[name]) for name in present]
    behind = [full for name in present if name not in out and (full := _quality_in_full(name, variants[name])) is not None and full not in reasons]
    left = [name for name in present if name not in out and name not in unknown]
    if unknown and left:
        (other,), (name,) = left, unknown
        reasons = [reasons[present.index(name)], f"so {other} has nothing to be held against; measure again", *(r for r in reasons if r != unknown[name])]
    if unknown or not left:
        return Recommendation(serve=None, reasons=reasons, details=behind if left else [])
    if len(left) == 1:
        only = f"{left[0]} is the only fine-tuned variant that {'was measured' if len(present) == 1 else 'is left'}"
        return Recommendation(serve=left[0], reasons=[*reasons, only], details=behind)
    between = [one for one in comparisons if (one.left, one.right) == FINE_TUNED]
    serve, more = _choose(variants, between, at_slo)
    for one in fidelity:
        if one.right in FINE_TUNED and one.metric is not None:
            full = f"merged weights against the adapter: {one.verdict} ({one.reason})"
            reasons.append("merged weights answer as the adapter does, within the margin" if one.verdict == "equal" else full)
            behind += [full] if one.verdict == "equal" else []
    stages = [_sentence(one) for one in between if one.metric == "tpot_s"]
    return Recommendation(serve=serve, reasons=[*more, *reasons], details=[*(stages if len(stages) > 1 else []), *behind])


def _why_out(name: str, variant: VariantSummary, reference: Sequence[ReferenceCheck], under_load: Sequence[UnderLoad]) -> str | None:
    if any(check.variant == name and check.verdict == "fail" for check in reference):
        return f"{name} is out: the reference calls its answers nonsense"
    if variant.quality is not None and variant.quality.verdict == "fail":
        return f"{name} is out: its quality fails ({variant.quality.reason})"
    if variant.quality is not None and (nothing := _next_to_nothing(variant.quality)) is not None:
        return f"{name} is out: it does not do the task ({nothing})"
    worse = next((one for one in under_load if one.variant == name and one.verdict == "fail"), None)
    if worse is not None:
        return f"{name} is out: it answers worse when its server is busy (stage {worse.stage}: {worse.reason})"
    return None


def _why_unknown(name: str, variant: VariantSummary) -> str | None:
    trials = (*variant.trials, *variant.probes)
    if any(trial.audit.verdict != "void" for trial in trials):
        return None
    why = next((f": {trial.audit.reasons[0]}" for trial in trials if trial.audit.reasons), "")
    return f"the speed of {name} is not known, none of its trials can be used{why}"


def _next_to_nothing(quality: QualitySummary) -> str | None:
    """No pass, and the deciding metric within the margin of 0: speed is no reason to serve what answers nothing right."""
    own = quality.metrics.get(quality.metric or "")
    if quality.verdict == "pass" or not quality.gates or own is None or own.value is None or own.value > quality.gates[0].margin:
        return None
    return f"{metric_label(quality.metric or '')} {own.value:.1%}"


def _quality_sentence(name: str, variant: VariantSummary) -> str:
    """A pass in short; any other verdict in full, since its reason says what would decide it."""
    quality = variant.quality
    if quality is None:
        return f"{name}: its quality was not measured"
    own, against = quality.metrics.get(quality.metric or ""), quality.difference
    if quality.verdict != "pass" or own is None or own.value is None or against is None or against.value is None:
        return f"{name}: quality {quality.verdict} ({quality.reason})"
    return f"{name}: quality passes, {metric_label(quality.metric or '')} {own.value:.1%}, {against.value * 100:+.1f} points against base"


def _quality_in_full(name: str, variant: VariantSummary) -> str | None:
    return None if variant.quality is None else f"{name}: quality {variant.quality.verdict} ({variant.quality.reason})"


def _choose(
    variants: Mapping[str, VariantSummary], between: Sequence[Comparison], at_slo: Mapping[str, StageResult | None]
) -> tuple[str | None, list[str]]:
    cheaper, why = _by_price(variants, between, at_slo)
    faster, tpot = _by_tpot(between)
    if cheaper is not None:
        against = [f"against it: {sentence}" for sentence in tpot] if faster not in (None, cheaper) else tpot
        return cheaper, [why, *against]
    if faster is not None:
        return faster, [*tpot, why]
    if tpot and all(one.verdict == "same" for one in between if one.metric == "tpot_s"):
        return None, [f"adapter and merged are the same within {SAME_MARGIN:.0%}: either may be served; an adapter can share its server", why, *tpot]
    return None, [f"the run cannot tell adapter and merged apart; {_what_would_help(between)}", why, *tpot]


def _what_would_help(between: Sequence[Comparison]) -> str:
    if any(one.starts == 1 for one in between):
        return "each server was started once, and repeats with a start of their own (`serve.side_by_side: false`) would narrow the intervals"
    return "more repeats or longer stages narrow the intervals"


def _by_edges(
    variants: Mapping[str, VariantSummary], cheap: str, dear: str, at: StageResult | None, against: StageResult | None
) -> tuple[bool, str] | None:
    """Where both prices rest on a search for a rate: whether the edges are apart, and the sentence. Probes have no stage in common to be compared at."""
    ours, theirs = variants[cheap].capacity, variants[dear].capacity
    if ours is None or theirs is None or at is None or against is None or (at.stage, against.stage) != (ours.stage, theirs.stage):
        return None
    certain = ours.low is not None and theirs.high is not None and ours.low > theirs.high
    return certain, f"{_edge(cheap, ours)}, {_edge(dear, theirs)}"


def _edge(name: str, found: CapacitySummary) -> str:
    low, high = ("none" if end is None else f"{end:.3g}" for end in (found.low, found.high))
    load = found.value if found.value is not None else found.low
    return f"{name} meets the SLO up to {load:.3g} requests/s (95% interval {low} to {high})"


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
        (price,), per = _prices([prices[priced[0]] or 0.0], variants[priced[0]].cost.currency)
        return priced[0], f"{priced[0]} has a price, {price} {per}; {other} has none: {variants[other].cost.basis}"
    cheap, dear = sorted(FINE_TUNED, key=lambda name: prices[name] or 0.0)
    low, high = prices[cheap] or 0.0, prices[dear] or 0.0
    (little, much), per = _prices([low, high], variants[cheap].cost.currency)
    said = f"{cheap} costs {little} {per}, {dear} {much}"
    if high <= low * (1 + SAME_MARGIN):
        return None, f"{said}: the same within {SAME_MARGIN:.0%}"
    at, against = stages[cheap], stages[dear]
    edges = _by_edges(variants, cheap, dear, at, against)
    if edges is not None:
        certain, sentence = edges
        return (cheap, f"{said}: {sentence}") if certain else (None, f"{said}, which the searches do not make certain: {sentence}")
    stages_apart = at is not None and against is not None and at.stage != against.stage
    if at is not None and stages_apart and (why := _dear_misses(variants[dear], at.stage)) is not None:
        return cheap, f"{said}: {cheap} meets the SLO at stage {at.stage}, {dear} {why}"
    # Which of two stages has the most goodput may be chance: then the cheaper one has to be better at both.
    backings = [_backing(between, one.stage if one is not None else None) for one in ((at, against) if stages_apart else (at,))]
    if backings[0] is not None and all(one is not None and _winner(one) == cheap for one in backings):
        return cheap, f"{said} ({1 - low / high:.0%} less); {_sentence(backings[0])}"
    return None, f"{said}, a difference that the measurement does not make certain"


def _dear_misses(variant: VariantSummary, stage: str) -> str | None:
    """Why a variant has no price at the stage at which another one has its own; None where it meets the SLO there, or may."""
    trials = [trial for trial in variant.trials if trial.stage == stage and trial.audit.verdict != "void"]
    if not trials:
        return "was not driven so hard"
    return "misses it there" if any(trial.slo is not None and trial.slo["met"] is False for trial in trials) else None


def _backing(between: Sequence[Comparison], stage: str | None) -> Comparison | None:
    """The comparison behind the price of a stage."""
    here = {one.metric: one for one in between if one.stage == stage}
    return next((here[metric] for metric in ("goodput_per_s", "output_tokens_per_s", "tpot_s") if metric in here), None)


def _by_tpot(between: Sequence[Comparison]) -> tuple[str | None, list[str]]:
    told = [one for one in between if one.metric == "tpot_s"]
    winners = {winner for one in told if (winner := _winner(one)) is not None}
    return (winners.pop() if len(winners) == 1 else None), _over_stages(told)


def _winner(one: Comparison) -> str | None:
    return {"better": one.right, "worse": one.left}.get(one.verdict)


def _over_stages(told: Sequence[Comparison]) -> list[str]:
    """One sentence for all stages; none where nothing was compared."""
    if len(told) < 2:
        return [_sentence(one) for one in told]
    verdicts = Counter(one.verdict for one in told)
    how = ", ".join(f"{verdict} in {verdicts[verdict]}" for verdict in ("better", "worse", "same", "cannot tell") if verdicts[verdict])
    first, shares = told[0], sorted((one.relative for one in told if one.relative is not None), key=abs)
    if not shares:
        return [f"{metric_label(first.metric)} of {first.right} against {first.left} over {len(told)} stages: {how}"]
    if min(shares) * max(shares) > 0:
        few, many = f"{abs(shares[0]):.1%}", f"{abs(shares[-1]):.1%}"
        size = f"{few if few == many else f'{few} to {many}'} {_way(shares[0])} {metric_label(first.metric)} than {first.left}"
    else:
        size = f"{min(shares):+.1%} to {max(shares):+.1%} {metric_label(first.metric)} against {first.left}"
    return [f"{first.right} has {size} over {len(told)} stages ({how})"]


def _way(difference: float) -> str:
    return "lower" if difference < 0 else "higher"


def _sentence(one: Comparison) -> str:
    label, stage = metric_label(one.metric), f"at stage {one.stage}"
    if one.difference is None:
        return f"{label} {stage}: {nothing_paired(one.metric)}, {one.left} and {one.right}"
    size = f"{abs(one.relative):.1%}" if one.relative is not None else f"{abs(one.difference):.3g}"
    said = f"{one.right} has {size} {_way(one.difference)} {label} than {one.left} {stage}"
    if one.ci95_low is None or one.ci95_high is None:
        return f"{said}, too few requests for an interval"
    low, high = one.ci95_low, one.ci95_high
    if one.relative is not None and one.difference:
        interval = " to ".join(f"{end / one.difference * one.relative:+.1%}" for end in (low, high))
    else:
        interval = f"{low:+.3g} to {high:+.3g}"
    return f"{said} (95% interval {interval}): {_told(one)}"


def _told(one: Comparison) -> str:
    return one.verdict if one.n_to_decide is None else f"{one.verdict}; about {one.n_to_decide:,} pairs would tell, it had {one.n:,}"


def _prices(values: Sequence[float], currency: str) -> tuple[list[str], str]:
    """Prices with three significant digits, and what they are for: a request, or a million where a request's price is all zeros."""
    million = min(values) < _PER_MILLION_BELOW
    sign = "$" if currency == "USD" else f"{currency} "
    return [f"{sign}{_digits(value * (_MILLION if million else 1))}" for value in values], "per million requests" if million else "a request"


def _digits(value: float) -> str:
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"
