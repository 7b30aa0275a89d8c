"""Tables of what comes before a run: GPUs, offers, estimates. Drawn by the terminal only."""

from __future__ import annotations

from perfbench.plan.gpus import Gpus
from perfbench.plan.prices import Offers
from perfbench.report import formats
from perfbench.report.tables import Cell, Column, Table


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
    dates = ", ".join(f"{provider} {date}" for provider, date in found.catalogue_dates.items())
    shown = f"{len(found.offers):,} of {found.found:,} offers. " if found.found > len(found.offers) else "" if found.found else "No offer matches. "
    return Table("offers", "What a GPU hour costs", f"{shown}gpuhunt's catalogues: {dates}. Prices in USD, without what a provider adds.", columns, rows)


def gpus_table(gpus: Gpus) -> Table:
    """Every known GPU with its figures and where they stand."""
    kinds = ("fp16", "bf16", "fp8", "int8")
    columns = (
        Column("GPU", align="left"), Column("Memory"), Column("Bandwidth"), *(Column(kind, "dense, 10^12 operations a second") for kind in kinds),
        Column("Source", align="left", prose=True), Column("As of", align="left"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(name), Cell(f"{gpu.memory_gb:g} GB"), Cell(f"{gpu.bandwidth_gb_s:,.0f} GB/s"),
            *(Cell(formats.DASH if kind not in gpu.tflops else f"{gpu.tflops[kind]:,.4g}") for kind in kinds), Cell(gpu.source), Cell(gpu.as_of.isoformat()),
        )
        for name, gpu in gpus.items()
    )  # fmt: skip
    caption = "Dense matrix TFLOPS (TOPS for int8) by the makers' data sheets, without sparsity, accumulated in 32 bits. GB are 10^9 bytes."
    return Table("gpus", "GPUs that perfbench knows", caption, columns, rows)
