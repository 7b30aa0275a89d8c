"""The samples of a run that somebody wants to look at: chosen by label, variant and slice, and shown in the terminal with Rich.

A sample is chosen when one of its answers (that of `variant`, where one is given) fits everything asked for; all its answers are shown, side by
side where the terminal has room. What the model wrote is text, never markup or terminal control.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perfbench.errors import InputError
from perfbench.prompts import readable
from perfbench.quality.labels import LABELS
from perfbench.records import QualityRecord
from perfbench.report.formats import one_line, visible
from perfbench.report.marks import Kind, held_against, pieces

REGRESSION = "regression from base"
_TEXT_LIMIT = 2000
_NARROWEST = 36
"""Columns that an answer needs beside others."""
_STYLES: dict[Kind, str] = {"same": "", "only here": "bold red", "missing": "dim strike"}


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to look at; what is not said does not matter."""

    labels: tuple[str, ...] = ()
    variant: str | None = None
    slices: tuple[tuple[str, str], ...] = ()
    failed: bool = False
    regressions: bool = False
    sample_id: str | None = None


def chosen(by_variant: Mapping[str, Sequence[QualityRecord]], wanted: Wanted, reference: str | None) -> list[dict[str, QualityRecord]]:
    """The samples that fit, in the file's order, each as {variant: record}. Raises InputError for words that the run does not know."""
    _check(by_variant, wanted, reference)
    samples: dict[str, dict[str, QualityRecord]] = {}
    for variant, records in by_variant.items():
        for record in records:
            samples.setdefault(record.sample_id, {})[variant] = record
    return [answers for answers in samples.values() if _fits(answers, wanted, reference)]


def _fits(answers: Mapping[str, QualityRecord], wanted: Wanted, reference: str | None) -> bool:
    first = next(iter(answers.values()))
    if wanted.sample_id not in (None, first.sample_id) or any(first.slices.get(column) != value for column, value in wanted.slices):
        return False
    reference_passes = reference is not None and reference in answers and answers[reference].passed is True
    looked_at = [record for variant, record in answers.items() if wanted.variant in (None, variant)]
    return any(_answer_fits(record, wanted, reference_passes=reference_passes) for record in looked_at)


def _answer_fits(record: QualityRecord, wanted: Wanted, *, reference_passes: bool) -> bool:
    regression = record.passed is False and reference_passes
    asked = {label.casefold() for label in wanted.labels}
    fits = not asked or record.label.casefold() in asked or (REGRESSION in asked and regression)
    return fits and (not wanted.failed or record.passed is False) and (not wanted.regressions or regression)


def _check(by_variant: Mapping[str, Sequence[QualityRecord]], wanted: Wanted, reference: str | None) -> None:
    records = [record for rows in by_variant.values() for record in rows]
    if not records:
        raise InputError("this run has no checked samples: its scenario has no `quality` block, or the check has not finished")
    if wanted.variant is not None and not by_variant.get(wanted.variant):
        checked = [name for name, rows in by_variant.items() if rows]
        raise InputError(f"variant `{wanted.variant}` has no checked samples in this run; expected one of {_listed(checked)}")
    known = {record.label for record in records}
    asked = [label.casefold() for label in wanted.labels]
    for label in asked:
        if label not in (other.casefold() for other in (*known, *LABELS, REGRESSION)):
            raise InputError(f"no answer of this run has the label `{label}`; its labels are {_listed(sorted(known))}")
    if wanted.sample_id is not None and all(record.sample_id != wanted.sample_id for record in records):
        ids = list(dict.fromkeys(record.sample_id for record in records))
        raise InputError(f"this run has no sample `{wanted.sample_id}`; it has {len(ids):,}, from `{one_line(ids[0], 60)}` to `{one_line(ids[-1], 60)}`")
    if reference is None and (wanted.regressions or REGRESSION in asked):
        raise InputError("this run has no base that an answer could have become worse than")
    for column, value in wanted.slices:
        values = {record.slices[column] for record in records if column in record.slices}
        if value not in values:
            columns = sorted({column for record in records for column in record.slices})
            told = f"its values are {_listed(sorted(values))}" if values else f"slices of this run: {_listed(columns) or 'none'}"
            raise InputError(f"no sample of this run lies in the slice {column}={value}; {told}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{one_line(name, 60)}`" for name in names)


def as_data(answers: Mapping[str, QualityRecord]) -> dict[str, Any]:
    """One sample for --json."""
    first = next(iter(answers.values()))
    return {
        "sample_id": first.sample_id, "prompt": first.prompt, "expected": first.expected, "slices": first.slices, "contaminated": first.contaminated,
        "answers": {
            variant: {
                "output": record.output, "error": record.error, "passed": record.passed, "label": record.label, "scores": record.scores,
                "details": record.details, "attempts": record.attempts, "finish_reason": record.finish_reason,
            }
            for variant, record in answers.items()
        },
    }  # fmt: skip


def print_samples(samples: Sequence[Mapping[str, QualityRecord]], of: int, console: Console) -> None:
    """Prompt, expected answer and every variant's answer, with what differs from the expected one marked where the terminal has styles for it."""
    for answers in samples:
        _print_sample(answers, console)
    shown = f"{len(samples):,} of {of:,} samples that fit" if len(samples) < of else f"{of:,} samples fit" if of != 1 else "1 sample fits"
    marks = Text.assemble("; ", ("red", _STYLES["only here"]), ": not in the expected answer, ", ("struck", _STYLES["missing"]), ": missing from it")
    console.print(Text(shown).append_text(marks if samples and _styled(console) else Text()), style="dim")


def _styled(console: Console) -> bool:
    """In a file or a pipe words that are missing would stand in the answer as if it had said them."""
    return console.color_system is not None


def _print_sample(answers: Mapping[str, QualityRecord], console: Console) -> None:
    first = next(iter(answers.values()))
    slices = "".join(f"  {column}={value}" for column, value in first.slices.items())
    seen = "  in the training data" if first.contaminated else ""
    console.rule(Text(one_line(f"{first.sample_id}{slices}{seen}", 200)), align="left", style="dim")
    for title, text in (("prompt", readable(first.prompt)), ("expected", first.expected)):
        console.print(Text(title, style="dim"))
        console.print(Text(visible(text, _TEXT_LIMIT)), soft_wrap=False)
    beside = console.width >= _NARROWEST * len(answers)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), expand=beside)
    if beside:
        for variant, record in answers.items():
            table.add_column(_title(variant, record), ratio=1, overflow="fold")
        table.add_row(*(_answer(record, marked=_styled(console)) for record in answers.values()))
        console.print(table)
    else:
        for variant, record in answers.items():
            console.print(_title(variant, record))
            console.print(_answer(record, marked=_styled(console)))
    console.print()


def _title(variant: str, record: QualityRecord) -> Text:
    mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}[record.passed]
    return Text.assemble((mark, style), f" {one_line(variant)}: {one_line(record.label)}")


def _answer(record: QualityRecord, *, marked: bool) -> Text:
    text = Text()
    if record.output is None:
        text.append(visible(record.error or "no answer", _TEXT_LIMIT), style="dim")
    for piece in pieces((record.output or "")[:_TEXT_LIMIT], held_against(record)[:_TEXT_LIMIT] if marked else ""):
        text.append(visible(piece.text), style=_STYLES[piece.kind])
    for what, told in record.details.items():
        text.append(f"\n{one_line(what)}: ", style="dim").append(visible(told, _TEXT_LIMIT), style="dim")
    return text
