"""Blind sheets: nothing tells the variant, labels come home, agreement by published and hand-made examples."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from perfbench.errors import InputError
from perfbench.quality.blind import cohens_kappa, human_summary, make_sheet, merged, read_sheet
from perfbench.records import HumanLabel, QualityRecord


def record(sample: int, variant: str, *, passed: bool | None = True, output: str | None = None) -> QualityRecord:
    return QualityRecord(
        sample_id=f"s{sample}", variant=variant, prompt=f"p{sample}", prompt_sha256="", expected="red",
        output=output or f"answer of {len(variant)} to {sample}", passed=passed, label="correct answer" if passed else "wrong answer",
    )  # fmt: skip


RUN = {variant: [record(number, variant) for number in range(20)] for variant in ("base", "adapter")}


def test_a_sheet_hides_the_variant_and_the_order_and_is_made_again_by_its_seed() -> None:
    sheet, key = make_sheet(RUN, samples=8, seed=3)
    rows = list(csv.DictReader(io.StringIO(sheet)))
    assert len(rows) == len(key.rows) == 16
    assert "base" not in sheet
    assert "adapter" not in sheet
    assert {tuple(answer) for answer in key.rows.values()} == {(f"s{n}", v) for v in RUN for n in {int(row["prompt"][1:]) for row in rows}}
    for row in rows:
        sample, variant = key.rows[row["key"]]
        assert row["answer"] == f"answer of {len(variant)} to {sample[1:]}"
    order = [key.rows[row["key"]][1] for row in rows]
    assert order not in (sorted(order), sorted(order, reverse=True))
    assert make_sheet(RUN, samples=8, seed=3) == (sheet, key)
    assert make_sheet(RUN, samples=8, seed=4)[1].sheet != key.sheet


def test_a_model_cannot_write_a_formula_into_a_spreadsheet() -> None:
    sheet, _ = make_sheet({"base": [record(0, "base", output='=HYPERLINK("http://x")')]}, samples=1, seed=0)
    assert next(csv.DictReader(io.StringIO(sheet)))["answer"].startswith("'=")


def test_labels_come_home_from_what_a_spreadsheet_saves(tmp_path: Path) -> None:
    _, key = make_sheet(RUN, samples=3, seed=0)
    names = list(key.rows)
    path = tmp_path / "sheet.csv"
    lines = [
        "key;answer;score;stars;comment",
        f"{names[0]};x;right;;",
        f"{names[1]};x;0,25;;so so",
        f"{names[2]};x;;5;",
        f"{names[3]};x;;;",
        f"{names[4]};x;No;;",
    ]
    path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    labels = read_sheet(path, {key.sheet: key}, by="ada")
    assert [label.score for label in labels] == [1.0, 0.25, 1.0, 0.0]
    assert [[label.sample_id, label.variant] for label in labels] == [key.rows[names[number]] for number in (0, 1, 2, 4)]
    assert (labels[1].comment, labels[1].by) == ("so so", "ada")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("key,score\nffff-001,right\n", "the key `ffff-001` is of no sheet of this run"),
        ("key,score\nKEY,7\n", "row 2: expected `score` right, wrong or a number from 0 to 1"),
        ("key,score,stars\nKEY,,six\n", "not `six`"),
        ("key,score\nKEY,\n", "no row with a `score`"),
        ("a,b\n1,2\n", "no columns `key` and `score`"),
        ("key,score\nKEY,right\nKEY,wrong\n", "row 3: the key `.*` stands in row 2 too, with another score"),
        ("key\tscore\tstars\nKEY\tright\t1\n", "row 2 has both a `score` and `stars`"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, told: str) -> None:
    _, key = make_sheet(RUN, samples=3, seed=0)
    path = tmp_path / "sheet.csv"
    path.write_text(text.replace("KEY", next(iter(key.rows))))
    with pytest.raises(InputError, match=told):
        read_sheet(path, {key.sheet: key}, by="")
    with pytest.raises(InputError, match="cannot be read"):
        read_sheet(tmp_path / "none.csv", {}, by="")


def test_a_second_opinion_of_the_same_person_replaces_the_first() -> None:
    first = HumanLabel(sample_id="s1", variant="base", score=0.0, by="ada")
    again, other = HumanLabel(sample_id="s1", variant="base", score=1.0, by="ada"), HumanLabel(sample_id="s1", variant="base", score=0.5, by="bob")
    assert merged([first, other], [again]) == [again, other]


def pairs(both: int, only_left: int, only_right: int, neither: int) -> list[tuple[bool, bool]]:
    return [(True, True)] * both + [(True, False)] * only_left + [(False, True)] * only_right + [(False, False)] * neither


def test_kappa_by_known_examples() -> None:
    assert cohens_kappa(pairs(20, 5, 10, 15)) == pytest.approx(0.4)  # the grant proposals of the usual textbook example
    assert cohens_kappa(pairs(45, 15, 25, 15)) == pytest.approx(0.1304, abs=1e-4)  # same agreement, other margins
    assert cohens_kappa(pairs(25, 35, 5, 35)) == pytest.approx(0.2593, abs=1e-4)
    assert cohens_kappa(pairs(5, 0, 0, 5)) == 1.0
    assert cohens_kappa(pairs(7, 0, 0, 0)) is None
    assert cohens_kappa([]) is None


@settings(deadline=None)  # scikit-learn checks its input slowly the first time
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_kappa_is_scikit_learns(drawn: list[tuple[bool, bool]]) -> None:
    ours = cohens_kappa(drawn)
    if ours is not None:
        left, right = zip(*drawn, strict=True)
        assert ours == pytest.approx(cohen_kappa_score(left, right))


def test_people_are_held_against_the_verdict() -> None:
    records = [record(0, "base"), record(1, "base", passed=False), record(2, "base", passed=None)]
    labels = [HumanLabel(sample_id=f"s{number}", variant="base", score=score, by=by) for number, score, by in ((0, 1.0, "a"), (1, 0.75, "a"), (2, 0.0, "b"))]
    found = human_summary(records, [*labels, HumanLabel(sample_id="s0", variant="adapter", score=0.0)])
    assert found is not None
    assert (found.n, found.people, found.agreement, found.kappa) == (3, 2, 0.5, 0.0)
    assert found.mean_score == pytest.approx(1.75 / 3)
    assert human_summary(records, []) is None
