"""Which samples are chosen, and that the terminal shows them side by side, marked and harmless."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from perfbench.errors import InputError
from perfbench.records import QualityRecord
from perfbench.report.samples import Wanted, as_data, chosen, print_samples


def record(sample: int, variant: str, *, passed: bool | None, label: str = "wrong answer", output: str | None = "blue", **more: object) -> QualityRecord:
    label = "correct answer" if passed else label
    return QualityRecord(
        sample_id=f"s{sample}", variant=variant, prompt=f"colour {sample}?", prompt_sha256=str(sample), expected="red", output=output,
        passed=passed, label=label,
        slices={"level": "hard" if sample % 2 else "easy"}, **more,  # type: ignore[arg-type]
    )  # fmt: skip


RUN = {
    "base": [record(0, "base", passed=True, output="red"), record(1, "base", passed=False), record(2, "base", passed=False, label="invalid JSON")],
    "adapter": [
        record(0, "adapter", passed=False, label="too verbose", output="red, I think [bold]so[/bold] \x1b[31m"),
        record(1, "adapter", passed=True, output="red"),
        record(2, "adapter", passed=False, label="no answer", output=None, error="timed out", details={"hidden test 1": "assert x"}),
    ],
    "merged": [],
}


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Wanted(), ["s0", "s1", "s2"]),
        (Wanted(failed=True), ["s0", "s1", "s2"]),
        (Wanted(failed=True, variant="adapter"), ["s0", "s2"]),
        (Wanted(labels=("invalid JSON",)), ["s2"]),
        (Wanted(labels=("Invalid json",)), ["s2"]),
        (Wanted(labels=("unsafe refusal",)), []),
        (Wanted(labels=("invalid JSON",), variant="adapter"), []),
        (Wanted(labels=("invalid JSON", "too verbose")), ["s0", "s2"]),
        (Wanted(regressions=True), ["s0"]),
        (Wanted(labels=("regression from base",), variant="adapter"), ["s0"]),
        (Wanted(slices=(("level", "hard"),)), ["s1"]),
        (Wanted(slices=(("level", "hard"),), failed=True, variant="adapter"), []),
        (Wanted(sample_id="s2"), ["s2"]),
    ],
)
def test_samples_that_fit_and_no_others(wanted: Wanted, ids: list[str]) -> None:
    assert [next(iter(answers.values())).sample_id for answers in chosen(RUN, wanted, "base")] == ids


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Wanted(labels=("bad JSON",)), r"no answer of this run has the label `bad json`; its labels are `correct answer`, `invalid JSON`"),
        (Wanted(sample_id="s9"), r"this run has no sample `s9`; it has 3, from `s0` to `s2`"),
        (Wanted(variant="merged"), r"variant `merged` has no checked samples in this run; expected one of `base`, `adapter`"),
        (Wanted(slices=(("level", "odd"),)), r"level=odd; its values are `easy`, `hard`"),
        (Wanted(slices=(("room", "den"),)), r"room=den; slices of this run: `level`"),
    ],
)
def test_words_that_the_run_does_not_know_are_refused(wanted: Wanted, told: str) -> None:
    with pytest.raises(InputError, match=told):
        chosen(RUN, wanted, "base")


def test_a_run_without_what_is_asked_for_says_so() -> None:
    with pytest.raises(InputError, match="has no checked samples"):
        chosen({"base": []}, Wanted(), None)
    with pytest.raises(InputError, match="no base"):
        chosen({"a": [record(0, "a", passed=True)]}, Wanted(regressions=True), None)


@pytest.mark.parametrize("width", [160, 60])
def test_the_terminal_shows_answers_beside_each_other_or_below(width: int) -> None:
    written = io.StringIO()
    found = chosen(RUN, Wanted(), "base")
    print_samples(found[:2], len(found), Console(file=written, width=width, force_terminal=True, color_system="standard"))
    text = written.getvalue()
    assert "2 of 3 samples that fit" in text
    assert "[bold]so[/bold]" in text  # never read as markup
    assert "\u241b[31m" in text
    beside = [line for line in text.splitlines() if "base: correct answer" in line and "adapter: too verbose" in line]
    assert bool(beside) == (width == 160)
    assert "\x1b[1;31m" in text  # what the expected answer does not have


def test_a_file_gets_the_answers_as_they_were() -> None:
    """Without styles a word that is missing would read as if the model had said it."""
    written = io.StringIO()
    said = {"output": "The colour is blue.", "expected": "The colour is red."}
    answers = {name: msgspec.structs.replace(one, **said) for name, one in chosen(RUN, Wanted(), "base")[0].items()}
    print_samples([answers], 1, Console(file=written, width=160))
    assert "The colour is blue." in written.getvalue()
    assert "missing from it" not in written.getvalue()


def test_json_has_every_answer_with_its_details() -> None:
    data = as_data(chosen(RUN, Wanted(sample_id="s2"), "base")[0])
    assert data["answers"]["adapter"]["details"] == {"hidden test 1": "assert x"}
    assert data["answers"]["adapter"]["error"] == "timed out"
    assert list(data["answers"]) == ["base", "adapter"]
