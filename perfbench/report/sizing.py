"""Tables of what comes before a run: GPUs, offers, estimates. Drawn by the terminal only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfbench.plan.estimate import KV_AT_MOST
from perfbench.plan.gpus import Gpus
from perfbench.plan.prices import Offers
from perfbench.report import formats
from perfbench.report.tables import Cell, Column, Table

if TYPE_CHECKING:
    from perfbench.estimates import EstimateReport


def memory_estimate_table(found: EstimateReport) -> Table:
    """Whether each variant fits, and what is left for its KV cache."""
    columns = (
        Column("GPUs", align="left"), Column("Variant", align="left"), Column("Fits", align="left"), Column("Weights"), Column("LoRA", minor=True),
        Column("KV a token", minor=True), Column("KV cache", minor=True), Column("KV tokens"), Column("Sequences", "of the workload's full length"),
        Column("Why", align="left", prose=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(f"{one.gpus} x {one.gpu}"), Cell(one.variant), Cell("yes" if one.fits else "no", mark="pass" if one.fits else "fail"),
            Cell(formats.gib(one.weights_bytes)), Cell(formats.gib(one.lora_bytes)), Cell(f"{one.kv_bytes_per_token:,.0f} B"), Cell(formats.gib(one.kv_bytes)),
            Cell(formats.count(one.kv_tokens)), Cell(formats.DASH if one.sequences is None else formats.significant(one.sequences)), Cell(one.reason),
        )
        for one in found.estimates
    )  # fmt: skip
    active = f", {found.active_parameters / 1e9:.3g}e9 for one token" if found.active_parameters < 0.8 * found.parameters else ""
    caption = (
        f"{found.model}, {found.parameters / 1e9:.4g}e9 parameters{active}; weights {found.weights}, KV {found.kv_dtype}, "
        f"{found.gpu_memory_utilization:g} of the GPU's memory. Bytes are of one GPU. {KV_AT_MOST}"
    )
    return Table("estimate", "Does it fit", caption, columns, rows)


def bounds_table(found: EstimateReport) -> Table:
    """Bounds by the roofline, of what fits."""
    columns = (
        Column("GPUs", align="left"), Column("Variant", align="left"), Column("TTFT ≥", "one prompt alone"), Column("TPOT ≥", "one stream"),
        Column("Streams", "that fit, or max-num-seqs"), Column("their TPOT ≥", "with so many streams", minor=True), Column("Requests/s ≤"),
        Column("Tokens/s ≤", "of answers"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(f"{one.gpus} x {one.gpu}"), Cell(one.variant), Cell(formats.seconds(one.ttft_bound_s)), Cell(formats.seconds(one.tpot_bound_s)),
            Cell(formats.DASH if one.batch is None else formats.significant(one.batch)), Cell(formats.seconds(one.tpot_full_bound_s)),
            *(Cell(formats.DASH if rate is None else formats.significant(rate)) for rate in (one.requests_per_s_bound, one.output_tokens_per_s_bound)),
        )
        for one in found.estimates if one.fits
    )  # fmt: skip
    sources = "; ".join(f"{name}: {gpu['source']} ({gpu['as_of']})" for name, gpu in found.gpus.items())
    said = " ".join(one for one in found.assumptions if one != KV_AT_MOST)
    caption = f"{found.input_tokens:,.0f} tokens in, {found.output_tokens:,.0f} out on average ({found.lengths_from}). {said} {sources}."
    return Table("bounds", "Bounds by the roofline", caption, columns, rows)


def offers_table(found: Offers) -> Table:
    """Offers, the cheapest GPU hour first."""
    columns = (
        Column("Provider", align="left"), Column("Instance", align="left"), Column("Region", align="left", minor=True),
        Column("GPUs"), Column("GPU", align="left"), Column("Memory"), Column("$/hour"), Column("$/GPU hour"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(offer.provider), Cell(offer.instance), Cell(offer.region),
            Cell(formats.count(offer.gpus)), Cell(offer.gpu + (" (spot)" if offer.spot else "")),
            Cell(formats.DASH if offer.gpu_memory_gb is None else f"{offer.gpu_memory_gb:g} GB"),
            Cell(formats.money(offer.hour_usd)), Cell(formats.money(offer.gpu_hour_usd)),
        )
        for offer in found.offers
    )  # fmt: skip
    unread = f"{found.unread:,} rows could not be read. " if found.unread else ""
    dates = ", ".join(f"{provider} {date}" for provider, date in found.catalogue_dates.items())
    shown = f"{len(found.offers):,} of {found.found:,} offers. " if found.found > len(found.offers) else "" if found.found else "No offer matches. "
    caption = f"{shown}{unread}gpuhunt's catalogues: {dates}. Prices in USD, without what a provider adds."
    return Table("offers", "What a GPU hour costs", caption, columns, rows)


def gpus_table(gpus: Gpus) -> Table:
    """Every known GPU with its figures and where they stand."""
    kinds = ("fp16", "bf16", "fp8", "int8")
    columns = (
        Column("GPU", align="left"), Column("GB"), Column("GB/s"), *(Column(kind, "dense, 10^12 operations a second") for kind in kinds),
        Column("As of", align="left"), Column("Source", align="left", prose=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(name), Cell(f"{gpu.memory_gb:g}"), Cell(f"{gpu.bandwidth_gb_s:,.0f}"),
            *(Cell(formats.DASH if kind not in gpu.tflops else f"{gpu.tflops[kind]:,.4g}") for kind in kinds), Cell(gpu.as_of.isoformat()), Cell(gpu.source),
        )
        for name, gpu in gpus.items()
    )  # fmt: skip
    caption = (
        "Dense matrix TFLOPS (TOPS for int8) as the makers give them, without sparsity, accumulated in 32 bits. GB are 10^9 bytes. "
        "Source is what was read at that date, and says where a figure is not checked."
    )
    return Table("gpus", "GPUs that perfbench knows", caption, columns, rows)
