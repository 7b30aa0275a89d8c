"""From how many fine-tunes on adapters need fewer servers than merged models, at the demand and the SLO of the plan.

    popularity   the k-th of N fine-tunes gets a share p_k that falls as 1 / k^skew (Zipf)
    merged       every fine-tune has a deployment of its own: ceil(p_k x peak / (capacity x (1 - head_room))) replicas, at least 1, and its own spares
    adapters     one deployment for all. A server holds `max_loras` adapters on its GPU; a request whose adapter is not among them brings it there first,
                 which takes load_s of the server's time: 1 / capacity' = 1 / capacity + (1 - hit_share) x load_s
    hit_share    of a cache that forgets the longest unused, by Che's approximation (Che, Tung & Wang 2002): sum of p_k x (1 - exp(-p_k T)), where T is
                 such that the sum of (1 - exp(-p_k T)) is max_loras

The capacity of an adapter server is taken to be the same for many adapters as for those it was measured with. What requests of different adapters wait
for each other because a batch holds `max_loras` of them at most comes on top, and so does a router that keeps an adapter's requests together, which
would help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perfbench.plan.capacity import Rule, replicas_for
from perfbench.plan.demand import FineTunes
from perfbench.plan.evidence import RunEvidence, VariantEvidence
from perfbench.plan.swaps import measured_swap
from perfbench.records import BreakEven, BreakEvenPoint, Demand, Deployment

Floats = npt.NDArray[np.float64]

_NOTHING = Deployment(replicas=None, gpus=None, usd_per_month=None, carries_per_s=None)


@dataclass(frozen=True)
class Arms:
    """Both ways as measured, and what they have to carry."""

    adapter: VariantEvidence
    merged: VariantEvidence
    peak_per_s: float
    rule: Rule
    max_loras: int
    load_s: float | None
    load_from: str = "as given"
    measured_adapters: int = 1
    """That the load of the run was spread over."""

    def usable_per_s(self, evidence: VariantEvidence) -> float:
        """What one replica may be given."""
        assert evidence.capacity_per_s is not None and evidence.capacity_per_s.value  # break_even has seen to it
        return evidence.capacity_per_s.value * (1 - self.rule.head_room)


def break_even(run: RunEvidence, demand: Demand, rule: Rule, wanted: FineTunes) -> BreakEven:
    """The curve over the wanted numbers and skews, with its crossings; or the sentence that says what is missing."""
    missing = [_missing(run, name) for name in ("adapter", "merged")]
    if any(missing):
        return BreakEven(points=[], crossings=[], rests_on=[], reason="; ".join(filter(None, missing)))
    slots = wanted.max_loras or _max_loras(run)
    load_s, load_from = _load_time(run, wanted)
    arms = Arms(run.variants["adapter"], run.variants["merged"], demand.peak_per_s, rule, slots, load_s, load_from, _measured_adapters(run))
    points = [
        BreakEvenPoint(fine_tunes=n, skew=skew, adapters=adapters(arms, n, skew), merged=merged(arms, n, skew))
        for skew in wanted.skew for n in sorted(set(wanted.counts))
    ]  # fmt: skip
    crossings = list(dict.fromkeys(crossing(arms, max(wanted.counts), skew) for skew in wanted.skew))
    return BreakEven(points=points, crossings=crossings, rests_on=_rests_on(arms))


def _missing(run: RunEvidence, name: str) -> str | None:
    evidence = run.variants.get(name)
    if evidence is None:
        return f"the run did not measure `{name}`"
    if evidence.capacity_per_s is None or not evidence.capacity_per_s.value:
        return f"`{name}` has no capacity: {evidence.reason or 'goodput is zero'}"
    return None


def _max_loras(run: RunEvidence) -> int:
    given = str(run.experiment.serve_args.get("max-loras", 1))
    return int(given) if given.isdecimal() and int(given) else 1


def _load_time(run: RunEvidence, wanted: FineTunes) -> tuple[float | None, str]:
    """Seconds of a swap and where they come from: as given, else as the run shows it, else not known."""
    if wanted.load_s is not None:
        return wanted.load_s, "as given"
    streams = {name: stage.concurrency or 1 for name, stage in run.experiment.stages.items() if stage.arrival == "closed"}
    found = measured_swap(run.variants["adapter"].trials, streams, _max_loras(run))
    if found is None:
        return None, ""
    low, high = found.seconds.ci95_low or 0.0, found.seconds.ci95_high or 0.0
    return found.seconds.value, f"measured over {found.swaps} swaps in stage {found.stage} (95% interval {low:.3g} to {high:.3g} s)"


def _measured_adapters(run: RunEvidence) -> int:
    scenario = run.manifest.scenario
    spread = (scenario.get("load") or {}).get("adapters")
    return 1 + len((scenario.get("models") or {}).get("adapters") or {}) if spread else 1


def popularity(count: int, skew: float) -> Floats:
    """Shares of `count` fine-tunes, the most asked first; they sum to 1."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -skew
    shares: Floats = weights / weights.sum()
    return shares


def hit_share(shares: Floats, slots: int) -> float:
    """Requests that find their adapter among the `slots` last used ones."""
    if len(shares) <= slots:
        return 1.0
    low, high = 0.0, 1.0
    while _held(shares, high) < slots:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _held(shares, middle) < slots else (low, middle)
    return float(np.sum(shares * -np.expm1(-shares * high)))


def _held(shares: Floats, window: float) -> float:
    return float(np.sum(-np.expm1(-shares * window)))


def adapters(arms: Arms, count: int, skew: float) -> Deployment:
    """One deployment for all fine-tunes; nothing where it would swap and the time of that is not known."""
    shares = popularity(count, skew)
    hits = hit_share(shares, arms.max_loras)
    if hits < 1 and arms.load_s is None:
        return _NOTHING
    capacity = arms.adapter.capacity_per_s
    assert capacity is not None and capacity.value is not None
    effective = 1 / (1 / capacity.value + (1 - hits) * (arms.load_s or 0.0))
    needed = replicas_for(arms.peak_per_s, effective, arms.rule.head_room) or 1
    carries = needed * effective * (1 - arms.rule.head_room)
    return _deployment(arms, arms.adapter, needed + arms.rule.spare_replicas, carries, hits)


def merged(arms: Arms, count: int, skew: float) -> Deployment:
    """A deployment for every fine-tune. What all of them carry ends where the first of them is full."""
    shares = popularity(count, skew)
    usable = arms.usable_per_s(arms.merged)
    needed = np.maximum(1, np.ceil(shares * arms.peak_per_s / usable - 1e-9))
    carries = float(np.min(needed * usable / shares))
    return _deployment(arms, arms.merged, int(needed.sum()) + count * arms.rule.spare_replicas, carries, None)


def _deployment(arms: Arms, evidence: VariantEvidence, replicas: int, carries_per_s: float, hits: float | None) -> Deployment:
    price = evidence.price
    return Deployment(
        replicas=replicas,
        gpus=replicas * price.gpus if price.gpus is not None else None,
        usd_per_month=replicas * price.hour_usd * arms.rule.hours_per_month if price.hour_usd is not None else None,
        carries_per_s=carries_per_s,
        hit_share=hits,
    )


def crossing(arms: Arms, most: int, skew: float) -> str:
    """From how many fine-tunes, up to `most`, adapters always need less: money where prices are known, servers else."""
    known = [(n, adapters(arms, n, skew), merged(arms, n, skew)) for n in range(1, most + 1)]
    told = [(n, ours, theirs) for n, ours, theirs in known if ours.replicas is not None]
    popular = "all alike popular" if skew == 0 else f"popularity of Zipf {skew:g}"
    if len(told) < len(known):
        return _without_swaps(len(told), [ours.replicas is not None and _need(ours) < _need(theirs) for _, ours, theirs in told])
    # Whole servers make both curves jump: they may cross several times, and the last crossing counts.
    dearer = [n for n, ours, theirs in told if _need(ours) >= _need(theirs)]
    begins = dearer[-1] + 1 if dearer else 1
    if begins > len(told):
        return f"With {popular}, {len(told)} fine-tunes as adapters need no less than merged."
    n, ours, theirs = told[begins - 1]
    return f"With {popular}, adapters need less from {n} fine-tunes on: there {ours.replicas} servers instead of {theirs.replicas}."


def _without_swaps(most: int, less: Sequence[bool]) -> str:
    """Where the time of a swap is not known: what holds for as many as a server has on its GPU at once, and how to know more."""
    if any(less):
        found = f"adapters need less from {less.index(True) + 1} fine-tunes on"
    else:
        found = "one fine-tune as an adapter needs no less than merged" if most == 1 else f"up to {most} fine-tunes as adapters need no less than merged"
    return (
        f"Of as many as a server holds at once ({most}, `max-loras`), {found}. Of more nothing can be said, since the time of a swap is not known: give "
        "`load_s`, or measure it with a load that is spread over more adapters than `max-loras` (load.adapters)."
    )


def _need(deployment: Deployment) -> float:
    """Money, else servers; both are there or not for both ways alike."""
    needed = deployment.usd_per_month if deployment.usd_per_month is not None else deployment.replicas
    assert needed is not None  # `crossing` asks of deployments with a figure only
    return needed


def _rests_on(arms: Arms) -> list[str]:
    def said(evidence: VariantEvidence) -> str:
        capacity = evidence.capacity_per_s
        assert capacity is not None and capacity.value is not None
        return f"{evidence.name}: {capacity.value:.3g} requests/s a server, {evidence.capacity_from}"

    swaps = "the time of a swap is not known, so nothing is said of more adapters"
    if arms.load_s is not None:
        swaps = f"{arms.load_s:.3g} s for a swap, {arms.load_from}"
    spares = f"; {arms.rule.spare_replicas} spare for the adapters, {arms.rule.spare_replicas} for every merged deployment" if arms.rule.spare_replicas else ""
    many = f"as it carries the {arms.measured_adapters} that were measured" if arms.measured_adapters > 1 else "as it carries the one that was measured"
    return [
        said(arms.adapter), said(arms.merged),
        f"At most {arms.max_loras} {'adapter' if arms.max_loras == 1 else 'adapters'} on a server's GPU at once; {swaps}",
        f"A peak of {arms.peak_per_s:.3g} requests/s over all fine-tunes, {arms.rule.head_room:.0%} head-room{spares}",
        f"An adapter server is taken to carry many adapters {many}; requests that wait because a batch holds no further adapter are not counted",
    ]  # fmt: skip

