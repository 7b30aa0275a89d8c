"""The plan of a run: what a demand needs by variant, hour by hour, and the break-even of adapters. Everything comes out of plan.json."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from perfbench.records import BreakEvenPoint, Deployment, Estimate, Plan, Summary, VariantPlan
from perfbench.report import formats
from perfbench.report.figures import DASHES, PALETTE, SYMBOLS, Figure, from_zero, plot_layout
from perfbench.report.tables import Cell, Column, Mark, Table

_WAYS = ("adapters", "merged")


def plan_of(summary: Summary) -> Plan | None:
    """The plan that the summary carries."""
    return None if summary.plan is None else msgspec.convert(summary.plan, Plan)


def headline(plan: Plan) -> str:
    """What to do: servers and prices of the variant that the run recommends, and what the simulation says of them."""
    if all(variant.reason for variant in plan.variants.values()):
        return "There is no plan, and no number of servers: the sentences below say why for each variant."
    if plan.serve is None:
        return "The run does not say which variant to serve, so none is planned before the others: compare their rows."
    variant = plan.variants.get(plan.serve)
    if variant is None or variant.reason or variant.replicas is None or variant.replicas.value is None:
        return f"No plan for {plan.serve}, which the run recommends: {variant.reason if variant is not None else 'it was not measured'}."
    needed = int(variant.replicas.value)
    servers = f"{needed} {'server' if needed == 1 else 'servers'} for the peak of {formats.significant(plan.demand.peak_per_s)} requests/s"
    spare = f", {variant.spare_replicas} spare" if variant.spare_replicas else ""
    gpus = f", {variant.gpus} {'GPU' if variant.gpus == 1 else 'GPUs'} in all" if variant.gpus is not None else ""
    lengths = " All this for requests of the measured lengths; the demand's are others: measure those before you buy." if plan.other_lengths else ""
    return f"Serve {plan.serve} on {servers}{spare}{gpus}{_prices(plan, variant)}. {_expected(variant)}{lengths}"


def _prices(plan: Plan, variant: VariantPlan) -> str:
    if variant.usd_per_month is None:
        return ""
    figures = [f"{formats.money(variant.usd_per_month.value, plan.currency)} a month"]
    for price, what in ((variant.usd_per_request, "requests"), (variant.usd_per_correct_request, "correct requests")):
        if price is not None:
            figures.append(f"{formats.money(1e6 * price, plan.currency)} a million {what}")
    return f": {', '.join(figures)}"


def _expected(variant: VariantPlan) -> str:
    if not variant.simulated:
        return "Not simulated: see below."
    best = next((one for one in variant.simulated if one.router == "least-outstanding"), variant.simulated[0])
    if not best.stable:
        return "Simulated, so many fall behind at the peak: see below."
    verdict = {True: ": the SLO is met", False: ": the SLO is missed, see below", None: ""}[best.meets]
    return f"Expected by simulation at the peak: TTFT p95 {formats.seconds(best.ttft_p95_s)} behind a {best.router} router{verdict}."


def answer_lines(plan: Plan) -> list[str]:
    """The plan in sentences: the demand, what each variant needs, what has to be known of it."""
    demand = plan.demand
    lines = [
        f"Demand: {demand.source}. Peak {formats.significant(demand.peak_per_s)} requests/s, mean {formats.significant(demand.mean_per_s)}, "
        f"{demand.requests_per_month:,.0f} requests a month of {plan.hours_per_month:g} hours.",
        f"Head-room {formats.percent(plan.head_room)}: {plan.head_room_reason}.",
    ]
    lines += _grouped((name, f"no plan: {variant.reason}") for name, variant in plan.variants.items() if variant.reason)
    lines += _grouped((name, f"capacity is {variant.capacity_from}") for name, variant in plan.variants.items() if variant.capacity_from)
    if _hours_alike(plan):
        lines.append("Every hour of this demand is alike, so autoscaling by the hour saves nothing; `profile`, `hourly_per_s` or a longer trace gives hours.")
    return [*lines, *(f"{warning[0].upper()}{warning[1:]}." for warning in plan.warnings)]


def _hours_alike(plan: Plan) -> bool:
    scaled = [variant.autoscaled for variant in plan.variants.values() if variant.autoscaled is not None]
    return bool(scaled) and all(len(set(one.replicas_by_hour)) == 1 for one in scaled) and len(set(plan.demand.hourly_per_s)) == 1


def tables(plan: Plan) -> list[Table]:
    """What the demand needs, whether that holds, and what following the hours saves; without those that have nothing to say."""
    autoscaling = [] if _hours_alike(plan) else [autoscaling_table(plan)]
    needs = [] if all(variant.reason for variant in plan.variants.values()) else [plan_table(plan)]
    return [table for table in (*needs, simulation_table(plan), *autoscaling) if table.rows]


def _grouped(said: Iterable[tuple[str, str]]) -> list[str]:
    """Each sentence once, behind the variants that it is about."""
    names: dict[str, list[str]] = {}
    for name, sentence in said:
        names.setdefault(sentence, []).append(name)
    return [f"{', '.join(who)}: {sentence}." for sentence, who in names.items()]


def warning_lines(plan: Plan) -> list[str]:
    """What every variant's figures have against them, each sentence once with its variants."""
    return _grouped((name, warning) for name, variant in plan.variants.items() for warning in variant.warnings)


def plan_table(plan: Plan) -> Table:
    """What each variant needs and costs."""
    sign = formats.currency_sign(plan.currency).strip()
    requests, correct = ("1M requests", "1M correct") if _by_million(plan) else ("request", "correct request")
    columns = (
        Column("Variant", align="left"), Column("Capacity", "requests/s of one replica at the SLO"), Column("Replicas", "for the peak, with head-room"),
        Column("Spare"), Column("GPUs", "all replicas, spares included", minor=True), Column(f"{sign}/month", "all replicas, spares included"),
        Column(f"{sign}/{requests}"), Column(f"{sign}/1M tokens", "output tokens", minor=True), Column(f"{sign}/{correct}", minor=True),
        Column("Used", "mean over the hours, of all replicas"), Column("One down", "used at the peak with one replica fewer", minor=True),
    )  # fmt: skip
    rows = tuple(_plan_row(name, variant, plan) for name, variant in plan.variants.items())
    caption = "Replicas are servers. Prices are of all replicas and all hours, idle ones included."
    return Table("plan", "What the demand needs", caption, columns, rows, details="Below a figure: what the 95 % interval of the capacity makes of it.")


def _by_million(plan: Plan) -> bool:
    """One unit for the whole column."""
    return any(formats.per_million(variant.usd_per_request) for variant in plan.variants.values())


def _times(price: float | None, times: float) -> float | None:
    return None if price is None else price * times


def _plan_row(name: str, variant: VariantPlan, plan: Plan) -> tuple[Cell, ...]:
    if variant.reason:
        return (Cell(name), *(Cell(formats.DASH, title=variant.reason) for _ in range(10)))
    times = 1e6 if _by_million(plan) else 1
    used = sum(variant.utilisation_by_hour) / len(variant.utilisation_by_hour)
    energy = f"{formats.money(variant.energy_usd_per_month, plan.currency)} electricity" if variant.energy_usd_per_month is not None else ""
    return (
        Cell(name), _estimate(variant.capacity_per_s, "1/s"), _whole(variant.replicas), Cell(f"+{variant.spare_replicas}"), Cell(formats.count(variant.gpus)),
        _money(variant.usd_per_month, plan.currency, energy), *(
            Cell(formats.money(price, plan.currency))
            for price in (_times(variant.usd_per_request, times), variant.usd_per_million_output_tokens, _times(variant.usd_per_correct_request, times))
        ),
        Cell(formats.percent(used)), Cell(formats.percent(variant.utilisation_at_peak_one_down)),
    )  # fmt: skip


def _estimate(value: Estimate | None, unit: str) -> Cell:
    if value is None:
        return Cell(formats.DASH)
    return Cell(formats.quantity(value.value, unit), formats.interval(value.ci95_low, value.ci95_high, unit))


def _whole(value: Estimate | None) -> Cell:
    if value is None or value.value is None:
        return Cell(formats.DASH)
    low, high = (None if end is None else f"{end:,.0f}" for end in (value.ci95_low, value.ci95_high))
    detail = formats.joined(low, high) if low is not None and high is not None else f"{low} or more" if low is not None else ""
    return Cell(f"{value.value:,.0f}", detail)


def _money(value: Estimate | None, currency: str, title: str) -> Cell:
    if value is None:
        return Cell(formats.DASH)
    ends = (formats.money(value.ci95_low, currency), formats.money(value.ci95_high, currency))
    detail = formats.joined(*ends) if value.ci95_low is not None and value.ci95_high is not None else ""
    return Cell(formats.money(value.value, currency), detail, title=title)


def autoscaling_table(plan: Plan) -> Table:
    """Replicas that follow the hours, against as many all day."""
    sign = formats.currency_sign(plan.currency).strip()
    columns = (
        Column("Variant", align="left"), Column("Fewest", "replicas in the quietest hour, spares included"), Column("Most"), Column("Starts a day"),
        Column(f"{sign}/month"), Column("Fixed"), Column("Saved", "of replica hours"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(name), Cell(formats.count(min(one.autoscaled.replicas_by_hour))), Cell(formats.count(max(one.autoscaled.replicas_by_hour))),
            Cell(formats.count(one.autoscaled.starts_per_day)), Cell(formats.money(one.autoscaled.usd_per_month, plan.currency)),
            Cell(formats.money(one.usd_per_month.value if one.usd_per_month else None, plan.currency)), Cell(formats.percent(one.autoscaled.saved_share)),
        )
        for name, one in plan.variants.items() if one.autoscaled is not None
    )  # fmt: skip
    caption = "Every hour gets what its own peak needs, with head-room and spares; a start is paid until the server is ready, as measured."
    return Table("autoscaling", "Autoscaling by the hour against a fixed size", caption, columns, rows)


def simulation_table(plan: Plan) -> Table:
    """What the simulation says of the planned size at the peak."""
    columns = (
        Column("Variant", align="left"), Column("Router", align="left"), Column("Replicas"), Column("Rate"), Column("TTFT p95"), Column("TPOT p95"),
        Column("SLO", align="left"),
    )  # fmt: skip
    marks: dict[bool | None, tuple[str, Mark | None]] = {True: ("met", "pass"), False: ("missed", "fail"), None: (formats.DASH, None)}
    rows = tuple(
        (
            Cell(name), Cell(one.router), Cell(formats.count(one.replicas)), Cell(formats.quantity(one.rate_per_s, "1/s")),
            Cell(formats.seconds(one.ttft_p95_s)), Cell(formats.seconds(one.tpot_p95_s)), Cell(marks[one.meets][0], mark=marks[one.meets][1]),
        )
        for name, variant in plan.variants.items() for one in variant.simulated
    )  # fmt: skip
    caption = "The replicas without spares at the peak, simulated with the service times that were measured: a prediction, not a measurement."
    return Table("simulation", "The planned size, simulated", caption, columns, rows)


def break_even_table(plan: Plan) -> Table:
    """N fine-tunes as adapters and as merged deployments."""
    found = plan.break_even
    sign = formats.currency_sign(plan.currency).strip()
    columns = (
        Column("Fine-tunes"), Column("Skew", "Zipf exponent of their popularity"), Column("Adapters", "servers"), Column("Merged", "servers"),
        Column(f"{sign}/month, adapters", minor=True), Column(f"{sign}/month, merged", minor=True),
        Column("Carries, adapters", "requests/s at the SLO", minor=True), Column("Carries, merged", "requests/s at the SLO", minor=True),
        Column("On the GPU", "requests that find their adapter there"),
    )  # fmt: skip
    points = found.points if found is not None else []
    rows = tuple(_point_row(point, plan.currency) for point in points)
    caption = " ".join(f"{sentence}." for sentence in found.rests_on) if found is not None else ""
    return Table("break-even", "Adapters against merged models", caption, columns, rows)


def _point_row(point: BreakEvenPoint, currency: str) -> tuple[Cell, ...]:
    ours, theirs = point.adapters, point.merged
    mark: Mark | None = None
    if ours.replicas is not None and theirs.replicas is not None:
        mark = "better" if ours.replicas < theirs.replicas else "same" if ours.replicas == theirs.replicas else "worse"
    return (
        Cell(formats.count(point.fine_tunes)), Cell(f"{point.skew:g}"), Cell(formats.count(ours.replicas), mark=mark), Cell(formats.count(theirs.replicas)),
        Cell(formats.money(ours.usd_per_month, currency)), Cell(formats.money(theirs.usd_per_month, currency)),
        Cell(formats.quantity(ours.carries_per_s, "1/s")), Cell(formats.quantity(theirs.carries_per_s, "1/s")), Cell(formats.percent(ours.hit_share)),
    )  # fmt: skip


def break_even_lines(plan: Plan) -> list[str]:
    """The crossings, or why there are none."""
    found = plan.break_even
    if found is None:
        return []
    return [f"No break-even: {found.reason}."] if found.reason else found.crossings


def plan_figures(plan: Plan | None) -> list[Figure]:
    """Use by the hour, and the curves of the break-even."""
    found = [] if plan is None else [_hours(plan), _curve(plan)]
    return [figure for figure in found if figure is not None]


def _hours(plan: Plan) -> Figure | None:
    hours = list(range(len(plan.demand.hourly_per_s)))
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "name": name, "x": hours, "y": variant.utilisation_by_hour,
            "line": {"color": PALETTE[index % len(PALETTE)], "dash": DASHES[index % len(DASHES)], "shape": "hv"},
            "hovertemplate": "hour %{x}: %{y:.0%}<extra>%{fullData.name}</extra>",
        }
        for index, (name, variant) in enumerate(plan.variants.items()) if variant.utilisation_by_hour
    ]  # fmt: skip
    if not traces:
        return None
    layout = from_zero(plot_layout("hour", "of the capacity of all replicas", showlegend=True), "yaxis")
    layout["yaxis"] |= {"tickformat": ".1~%"}
    words = "; ".join(f"{name}: at most {max(one.utilisation_by_hour):.0%}" for name, one in plan.variants.items() if one.utilisation_by_hour)
    note = "Mean rate of the hour over what all planned replicas can carry."
    return Figure("plan-hours", "plan", "Use by the hour", None, words, note, {"data": traces, "layout": layout})


def _curve(plan: Plan) -> Figure | None:
    found = plan.break_even
    if found is None or not found.points:
        return None
    money = all(one.usd_per_month is not None for point in found.points for one in (point.adapters, point.merged) if one.replicas is not None)
    skews = list(dict.fromkeys(point.skew for point in found.points))
    traces: list[dict[str, Any]] = []
    for way_index, way in enumerate(_WAYS):
        for index, skew in enumerate(skews):
            points = [point for point in found.points if point.skew == skew]
            values = [_value(getattr(point, way), money=money) for point in points]
            traces.append(
                {
                    "type": "scatter", "mode": "lines+markers", "name": f"{way}, Zipf {skew:g}", "x": [point.fine_tunes for point in points], "y": values,
                    "line": {"color": PALETTE[way_index], "dash": DASHES[index % len(DASHES)]}, "marker": {"symbol": SYMBOLS[index % len(SYMBOLS)]},
                    "hovertemplate": "%{x} fine-tunes: %{y:,.3~s}<extra>%{fullData.name}</extra>",
                }
            )  # fmt: skip
    layout = from_zero(plot_layout("fine-tunes", f"{plan.currency} a month" if money else "servers"), "yaxis")
    layout["xaxis"] |= {"type": "log", "tickvals": sorted({point.fine_tunes for point in found.points})}
    note = "Spares included. Colour: the way of serving. Dashes: how unevenly the fine-tunes are asked. No point where it cannot be said."
    return Figure("break-even", "plan", "Break-even of adapters", None, " ".join(found.crossings), note, {"data": traces, "layout": layout})


def _value(deployment: Deployment, *, money: bool) -> float | None:
    return deployment.usd_per_month if money else deployment.replicas
