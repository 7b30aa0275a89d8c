"""Tables of what stands behind the answer: memory, cost, quality, audit, the reference check, and what could not be measured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from perfbench.records import BenchmarkResult, HumanSummary, JudgeSummary, Manifest, MemorySummary, ModelInfo, QualitySummary, Summary, TraceUse
from perfbench.report import formats
from perfbench.report.tables import Cell, Column, Table, currency_of, metric_title, money_cell

_FIGURE = re.compile(r"\d[\d.,]*")

LEDGER_LABELS = {"weights_bytes": "weights", "kv_cache_bytes": "KV cache", "lora_bytes": "LoRA", "rest_bytes": "rest"}


def ledger_parts(summary: Summary) -> list[str]:
    """The parts of the memory ledger that any variant has, the known ones first."""
    present = dict.fromkeys(part for variant in summary.variants.values() for part in variant.memory.ledger)
    return [part for part in LEDGER_LABELS if part in present] + [part for part in present if part not in LEDGER_LABELS]


def memory_table(summary: Summary) -> Table:
    """What each variant's server takes, and what it takes it for."""
    parts = ledger_parts(summary)
    columns = (
        Column("Variant", align="left"), Column("VRAM peak"), Column("VRAM steady"), Column("Host peak", "resident memory of the server's process tree"),
        *(Column(LEDGER_LABELS.get(part, part), part) for part in parts), Column("KV tokens", "tokens that fit in the KV cache, by the server"),
        Column("Sequences", "of this workload's mean length, prompt and answer, that fit in the KV cache at once"),
        Column("Same server as", align="left"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(name),
            *(Cell(formats.gib(value)) for value in (memory.vram_bytes_peak, memory.vram_bytes_steady, memory.host_rss_bytes_peak)),
            *(Cell(formats.gib(memory.ledger.get(part))) for part in parts),
            Cell(formats.count(memory.kv_cache_tokens), _by_sizes(memory)),
            Cell(formats.count(None if memory.workload_sequences is None else int(memory.workload_sequences))),
            Cell(", ".join(memory.shared_with) or formats.DASH),
        )
        for name, memory in ((name, variant.memory) for name, variant in summary.variants.items())
    )
    return Table("memory", "Memory by variant", "Variants on one server share its memory: each row shows all of it.", columns, rows)


def _by_sizes(memory: MemorySummary) -> str:
    """Where the server and the model's sizes disagree by more than 1%."""
    told, computed = memory.kv_cache_tokens, memory.kv_cache_tokens_computed
    if told is None or computed is None or abs(told - computed) <= 0.01 * computed:
        return ""
    return f"{formats.count(computed)} by the model's sizes"


def roofline_table(summary: Summary) -> Table:
    """How near each closed-loop stage came to the bound of its GPUs; no row where the GPU is not known."""
    columns = (
        Column("Stage", align="left"), Column("Variant", align="left"), Column("Streams"), Column("TPOT"), Column("bound"), Column("of the roofline"),
        Column("TTFT"), Column("bound"), Column("of the roofline"),
    )  # fmt: skip
    shares = [(name, one) for name, variant in summary.variants.items() for one in variant.roofline]
    order = list(dict.fromkeys(one.stage for _, one in shares))
    rows = tuple(
        (
            Cell(one.stage), Cell(name), Cell(formats.count(one.streams)),
            Cell(formats.seconds(one.tpot_s)), Cell(formats.seconds(one.tpot_bound_s)), Cell(formats.percent(one.tpot_share)),
            Cell(formats.seconds(one.ttft_s)), Cell(formats.seconds(one.ttft_bound_s)), Cell(formats.percent(one.ttft_share)),
        )
        for name, one in sorted(shares, key=lambda share: order.index(share[1].stage))
    )  # fmt: skip
    on = shares[0][1] if shares else None
    caption = "" if on is None else (
        f"{on.gpus} x {on.gpu}: means over all requests, against the least time that the maker's figures for bandwidth and compute allow. TTFT's bound is "
        "that of a prompt alone on the server: waiting for other streams counts as lost. Communication between GPUs is not in the bounds."
    )  # fmt: skip
    return Table("roofline", "Share of the roofline", caption, columns, rows)


def cost_table(summary: Summary) -> Table:
    """What a request costs, and the sentence that each figure rests on."""
    sign = formats.currency_sign(currency_of(summary)).strip()
    prices = {
        f"{sign}/request": "usd_per_request", f"{sign}/1M output tokens": "usd_per_million_output_tokens",
        f"{sign}/correct request": "usd_per_correct_request", f"{sign}/request, raw": "usd_per_request_raw",
    }  # fmt: skip
    if any(variant.cost.energy_usd_per_request is not None for variant in summary.variants.values()):
        prices[f"{sign}/request, energy"] = "energy_usd_per_request"
    figures = (Column(name, metric_title(metric)) for name, metric in prices.items())
    columns = (Column("Variant", align="left"), *figures, Column("Basis", align="left", prose=True))
    rows = tuple(
        (
            Cell(name),
            *(money_cell(cost, metric) for metric in prices.values()),
            Cell(cost.basis),
        )
        for name, cost in ((name, variant.cost) for name, variant in summary.variants.items())
    )
    caption = "Price of the server per hour over what it did in that hour."
    return Table("cost", "Cost by variant", caption, columns, rows, details="Below a price: its 95 % interval.")


def _qualities(summary: Summary) -> dict[str, QualitySummary]:
    return {name: variant.quality for name, variant in summary.variants.items() if variant.quality is not None}


def quality_table(summary: Summary) -> Table:
    """Every quality metric with its interval, those that decide first, and the verdict."""
    qualities = _qualities(summary)
    known = dict.fromkeys(metric for quality in qualities.values() for metric in quality.metrics)
    deciding = [metric for quality in qualities.values() for metric in [quality.metric, *(gate.metric for gate in quality.gates)] if metric in known]
    metrics = dict.fromkeys([*deciding, *known])
    columns = (
        Column("Variant", align="left"), Column("Verdict", align="left"), Column("Reason", align="left", prose=True),
        *(Column(metric.replace("_", " "), metric) for metric in metrics),
        Column("Samples"), Column("Regressions", "base passes, this variant does not"), Column("Improvements", "this variant passes, base does not"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(name),
            Cell(quality.verdict, mark=quality.verdict),
            Cell(quality.reason),
            *(_estimate_cell(quality, metric) for metric in metrics),
            Cell(formats.count(quality.n)),
            Cell(formats.count(quality.regressions)),
            Cell(formats.count(quality.improvements)),
        )
        for name, quality in qualities.items()
    )
    same = all(quality.verdict != "not comparable" for quality in qualities.values())
    caption = "The same held-out samples, prompts and decoding for every variant." if same else "Not every variant was asked the same: see the reasons."
    return Table("quality", "Quality by variant", caption, columns, rows, details=" ".join(["Below a figure: its 95 % interval.", *_quality_notes(summary)]))


def _quality_notes(summary: Summary) -> list[str]:
    """Sentences that stand by every reading of the quality table: weak metrics, metrics not run, the judge."""
    qualities = _qualities(summary)
    notes = [
        f"Scored again on {one.utc[:10]} by perfbench {one.perfbench_version} over the answers of the run "
        f"({'other ' + ', '.join(one.changed) if one.changed else 'the scenario and its data as before'}); "
        f"the scores before are in {one.kept}."
        for one in summary.rescored
    ]
    notes += list(dict.fromkeys(f"Warning: {warning}." for quality in qualities.values() for warning in quality.warnings))
    notes += dict.fromkeys(f"Not run: {metric} ({why})." for quality in qualities.values() for metric, why in quality.not_run.items())
    notes += [_judge_note(name, quality.judge) for name, quality in qualities.items() if quality.judge is not None]
    return notes


def _judge_note(name: str, judge: JudgeSummary) -> str:
    """What judging took and how far it can be trusted; what is not known is not mentioned."""
    parts = [f"{judge.verdicts} verdicts, {judge.unread} unread"]
    if judge.prompt_tokens is not None or judge.output_tokens is not None:
        parts.append(f"{formats.count(judge.prompt_tokens)} + {formats.count(judge.output_tokens)} tokens")
    parts += [f"cost {judge.usd:.3g} USD"] if judge.usd is not None else []
    parts += [f"{formats.percent(judge.inconsistent)} of pairs changed with the order"] if judge.inconsistent is not None else []
    if judge.kappa_n:
        told = f"kappa with people {judge.kappa:.2f}" if judge.kappa is not None else "kappa with people not defined"
        parts.append(f"{told} over {judge.kappa_n} answers")
    return f"{name} was judged by {formats.one_line(judge.model, 100)}: {', '.join(parts)}."


def _estimate_cell(quality: QualitySummary, metric: str) -> Cell:
    estimate = quality.metrics.get(metric)
    return Cell(formats.DASH) if estimate is None else Cell(formats.percent(estimate.value), formats.interval(estimate.ci95_low, estimate.ci95_high, "share"))


def labels_table(summary: Summary) -> Table:
    """How often each variant earned each label."""
    qualities = _qualities(summary)
    labels = dict.fromkeys(label for quality in qualities.values() for label in quality.labels)
    columns = (Column("Label", align="left"), *(Column(name) for name in qualities))
    rows = tuple((Cell(label), *(Cell(formats.count(quality.labels.get(label, 0))) for quality in qualities.values())) for label in labels)
    return Table("labels", "What went wrong", "Samples by label; every sample has one.", columns, rows)


def human_table(by_variant: Mapping[str, HumanSummary | None]) -> Table:
    """What people said of answers whose variant they did not know; no row where nobody said anything."""
    columns = (
        Column("Variant", align="left"), Column("Labels"), Column("People"), Column("Mean score", "0 is wrong, 1 is right"),
        Column("Agreement", "with the automatic verdict"), Column("Cohen's kappa", "agreement beyond chance: 0 is chance, 1 is complete"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(name), Cell(formats.count(human.n)), Cell(formats.count(human.people)), Cell(formats.percent(human.mean_score)),
            Cell(formats.percent(human.agreement)), Cell(formats.quantity(human.kappa, "")),
        )
        for name, human in by_variant.items() if human is not None
    )  # fmt: skip
    return Table("human", "What people say", "Spot-checks by people who did not know the variant, beside the automatic verdict.", columns, rows)


def benchmark_table(results: Sequence[BenchmarkResult]) -> Table:
    """Public benchmarks, each with its caution; no row where none was run."""
    columns = (
        Column("Task", align="left"), Column("Variant", align="left"), Column("Metric", align="left"), Column("Value", "± standard error"), Column("Samples"),
        Column("What it is for", align="left", prose=True, minor=True), Column("Caution", align="left", prose=True, minor=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(formats.one_line(one.task, 60)), Cell(one.variant), Cell(formats.one_line(metric, 60)),
            Cell(formats.quantity(value, "") + (f" ± {formats.quantity(error, '')}" if error is not None else "")), Cell(formats.count(one.n)),
            Cell(one.goal), Cell(one.caution + ("" if one.own_task_checked else "; the own task had not been checked before")),
        )
        for one in results for metric, (value, error) in one.metrics.items()
    )  # fmt: skip
    return Table("benchmarks", "Public benchmarks", "The second layer: how the model compares with others, not whether it does this job.", columns, rows)


def under_load_table(summary: Summary) -> Table:
    """Whether answers get worse when the server is busy; no row where nobody asked."""
    columns = (
        Column("Variant", align="left"), Column("Stage", align="left"), Column("Verdict", align="left"), Column("Idle"), Column("Under load"),
        Column("Difference"), Column("Prompts", "answered both ways"),
        Column("Texts changed", "prompts whose two answers are not the same text", minor=True), Column("Reason", align="left", prose=True, minor=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(one.variant), Cell(one.stage), Cell(one.verdict, mark=one.verdict), Cell(formats.percent(one.idle)), Cell(formats.percent(one.busy)),
            Cell(formats.DASH) if one.difference is None else Cell(
                formats.share_of(one.difference.value), formats.interval(one.difference.ci95_low, one.difference.ci95_high, "share")
            ),
            Cell(formats.count(one.n)), Cell(formats.count(one.changed)), Cell(formats.one_line(one.reason)),
        )
        for one in summary.under_load
    )  # fmt: skip
    caption = "The same prompts, as answered in a load stage and as answered by the idle server."
    return Table("under-load", "Quality under load", caption, columns, rows, details="Below a difference: its 95 % interval.")


def confusion_tables(summary: Summary) -> list[Table]:
    """One confusion matrix a variant, where the task is a classification."""
    tables: list[Table] = []
    for name, quality in _qualities(summary).items():
        if not quality.confusion:
            continue
        answers = dict.fromkeys(answer for row in quality.confusion.values() for answer in row)
        rows = tuple(
            (Cell(formats.one_line(expected)), *(Cell(formats.count(row.get(answer, 0))) for answer in answers))
            for expected, row in quality.confusion.items()
        )  # fmt: skip
        columns = (Column("Expected", align="left"), *(Column(formats.one_line(answer)) for answer in answers))
        tables.append(Table(f"confusion-{name}", f"Confusion of {name}", "Rows: the right label. Columns: the answer.", columns, rows))
    return tables


def audit_table(summary: Summary, *, problems_only: bool = False) -> Table:
    """Every trial with its verdict; each reason is a sentence of its own."""
    columns = (
        Column("Trial", align="left"), Column("Verdict", align="left"), Column("Requests"), Column("Why", align="left", prose=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(f"{name} · {trial.stage} · r{trial.repeat}"),
            Cell(trial.audit.verdict, mark=trial.audit.verdict),
            Cell(f"{trial.requests.ok:,} ok, {trial.requests.failed:,} failed"),
            Cell("; ".join(trial.audit.reasons) or "every check passed"),
        )
        for name, variant in summary.variants.items()
        for trial in (*variant.trials, *variant.probes)
        if not (problems_only and trial.audit.verdict == "valid")
    )
    caption = "valid: used. suspect: used, and marked. void: left out of every figure and verdict."
    return Table("audit", "Audit of trials", caption, columns, rows)


def audit_findings_table(summary: Summary) -> Table:
    """What the audit found, each finding once with the trials that it concerns: findings that differ in their figures alone are one."""
    columns = (
        Column("Trials", align="left"), Column("Verdicts", align="left"), Column("Finding", align="left", prose=True), Column("First seen in", align="left"),
    )  # fmt: skip
    found: dict[str, list[tuple[str, str, str]]] = {}
    for name, variant in summary.variants.items():
        for trial in (*variant.trials, *variant.probes):
            own = {check.sentence: check.verdict for check in trial.audit.checks}
            for reason in trial.audit.reasons:
                verdict = own.get(reason, trial.audit.verdict)
                found.setdefault(_FIGURE.sub("#", reason), []).append((verdict, reason, f"{name} · {trial.stage} · r{trial.repeat}"))
    rows = tuple(
        (
            Cell(f"{len(seen):,}"),
            Cell(", ".join(verdict for verdict in ("void", "suspect") if any(one[0] == verdict for one in seen))),
            Cell(seen[0][1] + (" (figures of the first)" if len(seen) > 1 else "")),
            Cell(seen[0][2]),
        )
        for seen in sorted(found.values(), key=len, reverse=True)
    )
    audits = [trial.audit.verdict for variant in summary.variants.values() for trial in (*variant.trials, *variant.probes)]
    counts = ", ".join(f"{audits.count(verdict)} {verdict}" for verdict in ("valid", "suspect", "void"))
    return Table("audit-findings", f"Audit: {counts}", "suspect: used, and marked. void: left out of every figure and verdict.", columns, rows)


def reference_table(summary: Summary) -> Table:
    """Whether the served answers are ones that the reference finds probable."""
    columns = (
        Column("Variant", align="left"), Column("Verdict", align="left"), Column("Tokens"), Column("Mean log-probability"),
        Column("Reference's own choice", "share of served tokens that the reference would have chosen"), Column("Reason", align="left", prose=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(check.variant), Cell(check.verdict, mark=check.verdict), Cell(formats.count(check.tokens)),
            Cell(formats.quantity(check.mean_logprob, "")), Cell(formats.percent(check.top1_share)), Cell(formats.one_line(check.reason)),
        )
        for check in summary.reference
    )  # fmt: skip
    return Table("reference", "Reference check", "Served tokens, scored by transformers with the same weights before any load.", columns, rows)


def sandbox_lines(summary: Summary) -> list[tuple[str, str]]:
    """(what, value) of the sandbox that answers ran in; empty where none did."""
    found = summary.sandbox
    if found is None:
        return []
    user = "as a user that owns nothing here" if found["other_user"] else "as the user of this run"
    lines = [("level", f"{found['level']}, {user}")]
    lines += [("does not hold", formats.one_line("; ".join(found["leaks"])))] if found["leaks"] else []
    return lines + [(f"{level} was not used", formats.one_line(why)) for level, why in found["refused"].items()]


def _plain(value: object) -> str:
    """A JSON value as people write it; lists are cut aloud after five."""
    if isinstance(value, list) and len(value) > 5:
        return formats.one_line(f"{', '.join(_plain(one) for one in value[:5])} and {len(value) - 5:,} more")
    return formats.one_line(value) if isinstance(value, str) else formats.DASH if value is None else json.dumps(value, ensure_ascii=False)


def not_measured(summary: Summary, manifest: Manifest) -> dict[str, str]:
    """What is not there, and why; each thing once."""
    return {**manifest.not_measured, **summary.not_measured}


def manifest_lines(manifest: Manifest) -> list[tuple[str, str]]:
    """(what, value): everything another person needs to repeat the run, in a line each."""
    lines = [
        ("run", manifest.run_id), ("started", manifest.started_utc), ("command", " ".join(manifest.command)),
        ("scenario file", manifest.scenario_file or formats.DASH), ("perfbench", manifest.perfbench_version),
    ]  # fmt: skip
    groups = (("hardware", manifest.hardware), ("version", manifest.versions), ("git", manifest.git or {}), ("sha256", manifest.hashes))
    lines += [(f"{group}: {name}", _plain(value)) for group, values in groups for name, value in values.items()]
    lines += [(f"model: {name}", _model_line(model)) for name, model in manifest.models.items()]
    lines += trace_lines(manifest)
    return [(what, formats.one_line(value)) for what, value in lines]


def trace_lines(manifest: Manifest) -> list[tuple[str, str]]:
    """(stage, what it replays and what had to be changed for it)."""
    return [(f"trace: {stage}", _trace_line(use)) for stage, use in manifest.traces.items()]


def _trace_line(use: TraceUse) -> str:
    parts = [f"{use.requests:,} requests of {use.path} ({use.format})"]
    if use.context_tokens is None:
        parts.append("nothing was clipped: no context length was given")
    else:
        parts.append(f"{use.clipped_prompts:,} prompts and {use.clipped_answers:,} answers clipped to {use.context_tokens:,} tokens of context")
    if use.lengthened_prompts:
        parts.append(f"{use.lengthened_prompts:,} prompts shorter than the chat template, sent as the template alone")
    if use.left_out:
        parts.append(f"{use.left_out:,} rows that ask for no token left out")
    return "; ".join(parts)


def _model_line(model: ModelInfo) -> str:
    parameters = None if model.parameters is None else f"{model.parameters:,} parameters"
    facts = (model.path, model.revision and f"revision {model.revision}", model.dtype, parameters, model.sha256 and f"sha256 {model.sha256[:16]}")
    return ", ".join(fact for fact in facts if fact)
