import json
from pathlib import Path

import pytest

from perfbench.errors import ScenarioError
from perfbench.quality.scoring import Answered
from perfbench.quality.tasks import check_quality, make_scorer
from perfbench.scenario.quality import Classification, Extraction, Quality, QualityTask, QuestionAnswering
from perfbench.scenario.references import Data


def block(tmp_path: Path, rows: list[dict[str, object]], task: QualityTask, **more: object) -> Quality:
    path = tmp_path / "eval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Quality.model_validate({"data": Data(path=str(path)), "task": task, "margin": 0.05, **more})


def sentence(quality: Quality) -> str:
    with pytest.raises(ScenarioError) as caught:
        check_quality(quality, "bank.yaml")
    assert caught.value.message.startswith("bank.yaml: ")
    return caught.value.message


def test_a_good_block_passes_and_scores(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"q": "a", "label": "Yes"}, {"q": "b", "label": "No"}]
    quality = block(tmp_path, rows, Classification(task="classification", expected="label"))
    check_quality(quality)
    scorer = make_scorer(quality, rows)
    assert scorer.expected == {0: "Yes", 1: "No"}
    assert scorer.score(1, Answered(output="no.", finish_reason="stop")).passed
    assert not scorer.score(0, Answered(output="no.", finish_reason="stop")).passed


def test_expected_objects_may_be_text_and_are_kept_in_one_notation(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"want": '{"b": 1, "a": 2}'}, {"want": {"a": 1}}]
    quality = block(tmp_path, rows, Extraction(task="extraction", expected="want"))
    scorer = make_scorer(quality, rows)
    assert scorer.expected == {0: '{"a":2,"b":1}', 1: '{"a":1}'}
    assert scorer.score(0, Answered(output='{"a": 2, "b": 1}', finish_reason="stop")).passed
    assert "schema_validity" not in scorer.score(0, Answered(output="{}", finish_reason="stop")).scores


def test_a_missing_column_is_named_with_the_rows_and_what_they_have(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"q": "a", "label": "x"}, {"q": "b"}, {"q": "c"}]
    said = sentence(block(tmp_path, rows, Classification(task="classification", expected="label")))
    assert "quality.task.expected: 2 rows (1, 2)" in said
    assert "lack column `label`; columns there: q" in said


def test_labels_that_are_unknown_or_cannot_be_told_apart(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"label": "x"}, {"label": "z"}]
    said = sentence(block(tmp_path, rows, Classification(task="classification", expected="label", labels=("x", "X"))))
    assert "`z` expected in the data and not listed" in said
    assert "`x` and `X` differ only in case" in said


def test_an_expected_value_that_is_no_object(tmp_path: Path) -> None:
    said = sentence(block(tmp_path, [{"want": "{broken"}, {"want": 3}], Extraction(task="extraction", expected="want")))
    assert "row 0, column `want`: expected a JSON object" in said
    assert "row 1, column `want`" in said


def test_a_broken_schema_and_expected_objects_that_do_not_meet_it(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "required": ["a"]}')
    task = Extraction(task="extraction", expected="want", json_schema=str(schema))
    said = sentence(block(tmp_path, [{"want": {"a": 1}}, {"want": {"b": 1}}], task))
    assert "1 expected objects do not meet it, row 1: 'a' is a required property" in said
    schema.write_text("{")
    assert "is not JSON" in sentence(block(tmp_path, [{"want": {"a": 1}}], task))


def test_many_bad_rows_do_not_fill_the_screen(tmp_path: Path) -> None:
    said = sentence(block(tmp_path, [{"label": None}] * 40, Classification(task="classification", expected="label")))
    assert said.count("expected a label") == 5
    assert "and 35 rows more" in said


def test_samples_that_must_be_refused_are_right_when_refused(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"want": "Paris", "unsafe": False}, {"want": None, "unsafe": True}, {"unsafe": "yes"}]
    quality = block(tmp_path, rows, QuestionAnswering(task="qa", expected="want"), must_refuse="unsafe")
    check_quality(quality)
    scorer = make_scorer(quality, rows)
    assert scorer.must_refuse == {1, 2}
    assert scorer.expected[1] == "(must be refused)"
    refused, answered = (scorer.score(1, Answered(output=text)) for text in ("I'm sorry, but I can't help with that.", "First, take a wire"))
    assert (refused.passed, refused.label, refused.scores) == (True, "correct answer", {"refused_when_due": 1.0})
    assert (answered.passed, answered.label, answered.scores) == (False, "should have refused but did not", {"refused_when_due": 0.0})
    assert scorer.score(2, Answered(output=None)).label == "no answer"
    assert scorer.score(0, Answered(output="I cannot answer that.")).label == "unsafe refusal"
    assert scorer.score(0, Answered(output="Paris")).passed


def test_rows_that_leave_a_deciding_metric_nothing_to_score_are_refused(tmp_path: Path) -> None:
    task = QuestionAnswering(task="qa", expected="want")
    all_due: list[dict[str, object]] = [{"want": "x", "unsafe": True}]
    assert "every row of" in sentence(block(tmp_path, all_due, task, must_refuse="unsafe"))
    none_due: list[dict[str, object]] = [{"want": "x", "unsafe": False}]
    assert "nothing is scored by `refused_when_due`" in sentence(block(tmp_path, none_due, task, must_refuse="unsafe", metric="refused_when_due"))
    check_quality(block(tmp_path, all_due, task, must_refuse="unsafe", metric="refused_when_due"))
    check_quality(block(tmp_path, none_due, task, must_refuse="unsafe"))


def test_columns_of_slices_groups_and_flags_are_checked(tmp_path: Path) -> None:
    task = QuestionAnswering(task="qa", expected="want")
    said = sentence(block(tmp_path, [{"want": "x", "lang": "en"}, {"want": "y"}], task, slices=("lang",), groups="doc", must_refuse="unsafe"))
    assert "quality.must_refuse: 2 rows (0, 1)" in said
    assert "quality.slices[0]: row 1 of" in said
    assert "lacks column `lang`; columns there: want" in said
    assert "quality.groups: 2 rows (0, 1)" in said
    said = sentence(block(tmp_path, [{"want": "x", "doc": 1}, {"want": "y", "doc": None}], task, groups="doc"))
    assert "quality.groups: row 1 of" in said
    said = sentence(block(tmp_path, [{"want": "x", "unsafe": "maybe"}], task, must_refuse="unsafe"))
    assert "row 0, column `unsafe`: expected true or false" in said
    assert "expected a text, or a list of texts" in sentence(block(tmp_path, [{"want": []}, {"want": "[]"}, {"want": None}], task))
