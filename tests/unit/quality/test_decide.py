import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from perfbench.quality import classification
from perfbench.quality.classification import CLASS_METRICS, class_statistics
from perfbench.quality.decide import decide, deciding_metric, regressions
from perfbench.quality.equivalence import equivalent
from perfbench.quality.extraction import score as score_extraction
from perfbench.quality.fairness import asked_hashes, check_same_asked
from perfbench.quality.intervals import tango, wilson
from perfbench.quality.measures import Reading, paired_difference
from perfbench.records import QualityRecord
from perfbench.scenario.model import Decoding, Prompt
from perfbench.scenario.quality import Classification, Extraction, Quality

KNOWN = ("a", "b")
CLASSES = Reading(Classification(task="classification", expected="label"), KNOWN)
OBJECTS = Reading(Extraction(task="extraction", expected="label"), ())


@pytest.fixture
def data_file(tmp_path: Path) -> str:
    path = tmp_path / "eval.jsonl"
    path.write_text('{"label": "a"}\n')
    return str(path)


def block(data_file: str, task: str = "classification", **more: Any) -> Quality:
    return Quality.model_validate({"data": {"path": data_file}, "task": {"task": task, "expected": "label"}, "margin": 0.05, **more})


def record(sample: int, variant: str, expected: str, output: str | None, **more: Any) -> QualityRecord:
    scored = classification.score(output, expected, KNOWN, finish_reason="stop")
    return QualityRecord(
        sample_id=str(sample), variant=variant, prompt="", prompt_sha256=f"hash {sample}", expected=expected, output=output,
        scores=scored.scores, passed=scored.passed, label=scored.label, **more,
    )  # fmt: skip


def answers(variant: str, right: Sequence[bool], **more: Any) -> list[QualityRecord]:
    """Samples alternate between the expected labels a and b."""
    return [record(n, variant, KNOWN[n % 2], KNOWN[n % 2] if hit else KNOWN[1 - n % 2], **more) for n, hit in enumerate(right)]


def split(n: int, both: int, only_base: int, only_variant: int) -> tuple[list[QualityRecord], list[QualityRecord]]:
    base = [True] * both + [True] * only_base + [False] * (n - both - only_base)
    variant = [True] * both + [False] * only_base + [True] * only_variant + [False] * (n - both - only_base - only_variant)
    return answers("base", base), answers("adapter", variant)


def test_the_verdicts_and_what_they_rest_on(data_file: str) -> None:
    base, better = split(200, 120, 5, 40)
    summary = decide(base, better, block(data_file))
    assert summary.verdict == "pass"
    assert summary.metric == "accuracy"
    assert (summary.regressions, summary.improvements) == (5, 40)
    assert summary.difference is not None
    assert summary.difference.value == pytest.approx(0.175)
    assert (summary.difference.ci95_low, summary.difference.ci95_high) == pytest.approx(tango(5, 40, 200))
    assert summary.mcnemar_p == pytest.approx(7.9e-8, rel=0.1)
    estimate = summary.metrics["accuracy"]
    assert (estimate.value, estimate.ci95_low, estimate.ci95_high) == pytest.approx((0.8, *wilson(160, 200)))
    assert summary.labels == {"correct answer": 160, "wrong answer": 40}
    assert summary.confusion == {"a": {"a": 80, "b": 20}, "b": {"a": 20, "b": 80}}
    assert "above the margin of -0.050" in summary.reason


def test_a_planted_regression_of_20_points_fails(data_file: str) -> None:
    base, worse = split(100, 60, 25, 5)
    summary = decide(base, worse, block(data_file))
    assert summary.verdict == "fail"
    assert summary.n_to_decide is None
    assert regressions(base, worse) == [str(n) for n in range(60, 85)]
    assert "-0.200" in summary.reason


def test_too_few_samples_say_how_many_would_do(data_file: str) -> None:
    base, same = split(40, 30, 2, 2)
    summary = decide(base, same, block(data_file))
    assert summary.verdict == "inconclusive"
    assert summary.n_to_decide == 248  # 10% discordant, no difference, margin 0.05
    assert "about 248 samples would decide" in summary.reason


def test_base_is_the_reference(data_file: str) -> None:
    base, _ = split(50, 30, 5, 5)
    summary = decide(base, base, block(data_file, minimum=0.9))
    assert summary.verdict == "reference"
    assert summary.regressions is None
    assert "below the minimum of 0.900" in summary.reason


def test_the_minimum_fails_a_variant_whatever_base_does(data_file: str) -> None:
    base, better = split(200, 60, 0, 40)
    assert decide(base, better, block(data_file)).verdict == "pass"
    summary = decide(base, better, block(data_file, minimum=0.6))
    assert summary.verdict == "fail"
    assert "lies below the minimum" in summary.reason


def test_without_base_the_minimum_decides(data_file: str) -> None:
    good = answers("prod", [True] * 95 + [False] * 5)
    assert decide(None, good, block(data_file, minimum=0.85)).verdict == "pass"
    assert decide(None, good, block(data_file, minimum=0.94)).verdict == "inconclusive"
    assert decide(None, good, block(data_file, minimum=0.96)).verdict == "fail"
    summary = decide(None, good, block(data_file))
    assert summary.verdict == "inconclusive"
    assert "no base" in summary.reason
    assert summary.difference is None
    assert summary.metrics["accuracy"].value == 0.95


def test_contaminated_samples_are_reported_and_do_not_decide(data_file: str) -> None:
    """Base and variant are equal on clean samples; on the flagged ones the variant knows the answers by heart."""
    flags = [True] * 40 + [False] * 200
    base = answers("base", [False] * 40 + [True] * 100 + [False] * 100)
    variant = answers("adapter", [True] * 40 + [True] * 100 + [False] * 100)
    base = [record(n, "base", r.expected, r.output, contaminated=flags[n]) for n, r in enumerate(base)]
    variant = [record(n, "adapter", r.expected, r.output, contaminated=flags[n]) for n, r in enumerate(variant)]
    summary = decide(base, variant, block(data_file))
    assert summary.metrics["accuracy"].value == pytest.approx(140 / 240)
    assert summary.without_contaminated is not None
    assert summary.without_contaminated["accuracy"].value == 0.5
    assert summary.difference is not None
    assert summary.difference.value == 0.0
    assert "40 of 240 samples also stand in the training text" in summary.reason
    assert decide(None, [r for r in variant if r.contaminated], block(data_file)).verdict == "inconclusive"


def test_unknown_contamination_gives_no_second_set_of_scores(data_file: str) -> None:
    base, same = split(50, 30, 5, 5)
    assert decide(base, same, block(data_file)).without_contaminated is None


def test_variants_that_were_asked_something_else_are_not_compared(data_file: str) -> None:
    base, other = split(50, 40, 0, 5)
    changed = [*other[:-1], record(49, "adapter", "b", "b")]
    changed[3] = QualityRecord(**{name: getattr(changed[3], name) for name in changed[3].__struct_fields__} | {"prompt_sha256": "another"})
    summary = decide(base, changed, block(data_file))
    assert summary.verdict == "not comparable"
    assert "not comparable with base: 1 samples had another prompt" in summary.reason
    assert summary.regressions is None
    assert check_same_asked({"base": base, "adapter": other}) == []
    assert "`adapter` is not comparable with `base`" in check_same_asked({"base": base, "adapter": changed})[0]
    assert "1 samples were put to one of them only" in check_same_asked({"base": base, "adapter": other[1:]})[0]


def test_the_hashes_tell_prompts_template_and_decoding_apart() -> None:
    first = asked_hashes([], Prompt(), Decoding(), 64)
    assert first == asked_hashes([], Prompt(), Decoding(), 64)
    assert first["quality_decoding"] != asked_hashes([], Prompt(), Decoding(top_p=0.9), 64)["quality_decoding"]
    assert first["quality_seed"] != asked_hashes([], Prompt(), Decoding(seed=1), 64)["quality_seed"]
    assert first["quality_decoding"] != asked_hashes([], Prompt(), Decoding(), 65)["quality_decoding"]
    assert first["quality_template"] != asked_hashes([], Prompt(system="x"), Decoding(), 64)["quality_template"]


def test_failed_requests_count_as_wrong(data_file: str) -> None:
    records = [*answers("prod", [True] * 9), record(9, "prod", "b", None, error="timeout: no answer within 5 s")]
    summary = decide(None, records, block(data_file))
    assert summary.metrics["accuracy"].value == 0.9
    assert summary.labels == {"correct answer": 9, "no answer": 1}
    assert summary.confusion is not None
    assert summary.confusion["b"]["unparsed"] == 1


def test_macro_f1_decides_by_a_paired_bootstrap(data_file: str) -> None:
    base, worse = split(150, 80, 45, 5)
    summary = decide(base, worse, block(data_file, metric="macro_f1"))
    assert summary.verdict == "fail"
    assert summary.mcnemar_p is None
    expected = [r.expected for r in base]
    before, after = (f1_score(expected, [r.output for r in records], average="macro") for records in (base, worse))
    assert summary.difference is not None
    assert summary.difference.value == pytest.approx(after - before)
    assert summary.metrics["macro_f1"].value == pytest.approx(after)
    # Two balanced classes with symmetric errors: macro-F1 is accuracy, so Tango's interval is an oracle for the bootstrap's.
    assert (summary.difference.ci95_low, summary.difference.ci95_high) == pytest.approx(tango(45, 5, 150), abs=0.02)


def test_a_variant_equal_to_base_passes_macro_f1(data_file: str) -> None:
    base, _ = split(120, 90, 0, 0)
    same = [QualityRecord(**{name: getattr(r, name) for name in r.__struct_fields__} | {"variant": "merged"}) for r in base]
    summary = decide(base, same, block(data_file, metric="macro_f1"))
    assert summary.verdict == "pass"
    assert summary.difference is not None
    assert (summary.difference.ci95_low or 0) < 0 < (summary.difference.ci95_high or 0)


def test_weighted_statistics_are_scikit_learns_on_repeated_samples() -> None:
    """Weights are repetitions: what the bootstrap computes must be what scikit-learn says of the repeated samples."""
    random = np.random.default_rng(6)
    names = ("a", "b", "c")
    expected = [names[n] for n in random.integers(0, 3, 60)]
    predicted = [(*names, classification.UNPARSED)[n] for n in random.integers(0, 4, 60)]
    weights = random.multinomial(60, np.full(60, 1 / 60), size=5).astype(float)
    statistics = class_statistics(expected, predicted, names)
    for row in weights:
        repeated = [(truth, guess) for truth, guess, times in zip(expected, predicted, row, strict=True) for _ in range(int(times))]
        oracle = classification.corpus_metrics([pair[0] for pair in repeated], [pair[1] for pair in repeated], names)
        assert dict(zip(CLASS_METRICS, statistics(row[None, :])[0], strict=True)) == pytest.approx({name: oracle[name] for name in CLASS_METRICS})


def extraction_records(variant: str, outputs: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> list[QualityRecord]:
    records = []
    for number, (output, expected) in enumerate(zip(outputs, wanted, strict=True)):
        scored = score_extraction(json.dumps(output), expected, None, finish_reason="stop")
        kept: dict[str, Any] = {"scores": scored.scores, "passed": scored.passed, "label": scored.label}
        kept |= {"expected": json.dumps(expected), "output": json.dumps(output)}
        records.append(QualityRecord(sample_id=str(number), variant=variant, prompt="", prompt_sha256="", **kept))
    return records


def test_extraction_decides_by_field_accuracy(data_file: str) -> None:
    wanted = [{"a": n, "b": n, "c": n, "d": n} for n in range(100)]
    base = extraction_records("base", wanted, wanted)
    worse = extraction_records("adapter", [{**value, "d": -1} if n % 2 else value for n, value in enumerate(wanted)], wanted)
    quality = block(data_file, "extraction", metric="field_accuracy")
    paired = paired_difference(base, worse, "field_accuracy", OBJECTS)
    assert paired.value == pytest.approx(-0.125)
    half = 1.96 * 0.125 / 10
    assert paired.interval(0.95) == pytest.approx((-0.125 - half, -0.125 + half), abs=0.004)
    assert decide(base, worse, quality).verdict == "fail"
    summary = decide(base, worse, block(data_file, "extraction", metric="json_validity"))
    assert summary.verdict == "pass"
    assert summary.confusion is None
    assert deciding_metric(block(data_file, "extraction")) == "exact_match"


def test_equivalence_needs_evidence_not_a_missing_difference(data_file: str) -> None:
    quality = block(data_file)
    left, right = split(20, 15, 1, 1)
    found = equivalent(left, right, quality)
    assert found.verdict == "cannot tell"
    assert found.flip_rate.value == 0.1
    assert (found.n_to_decide or 0) > 20
    left, right = split(1000, 800, 10, 10)
    found = equivalent(left, right, quality)
    assert found.verdict == "equal"
    assert (found.low, found.high) == pytest.approx(tango(10, 10, 1000, 0.90))
    left, right = split(1000, 600, 150, 10)
    assert equivalent(left, right, quality).verdict == "not equal"
    with pytest.raises(ValueError, match="one of them only"):
        equivalent(left, right[1:], quality)


def simulate(data_file: str, n: int, only_base: float, only_variant: float, runs: int, seed: int) -> dict[str, float]:
    random = np.random.default_rng(seed)
    quality = block(data_file)
    counts: dict[str, int] = {}
    for _ in range(runs):
        kinds = random.choice(3, size=n, p=[only_base, only_variant, 1 - only_base - only_variant])
        both = random.random(n) < 0.7
        base = answers("base", list((kinds == 0) | ((kinds == 2) & both)))
        variant = answers("adapter", list((kinds == 1) | ((kinds == 2) & both)))
        paired = paired_difference(base, variant, "accuracy", CLASSES)
        verdict = "pass" if paired.interval(0.90)[0] > -quality.margin else "fail" if paired.interval(0.90)[1] < -quality.margin else "inconclusive"
        counts[verdict] = counts.get(verdict, 0) + 1
    return {verdict: count / runs for verdict, count in counts.items()}


def test_error_rates_of_the_decision(data_file: str) -> None:
    """Simulation, 150 samples, 10% discordant. Equal: hardly ever failed. On the margin: passed at most about 5% of the time (alpha).
    20 points worse: found nearly always. Limits allow for 3 standard errors of 300 runs."""
    equal = simulate(data_file, 150, 0.05, 0.05, 300, 7)
    assert equal.get("fail", 0) <= 0.02
    at_margin = simulate(data_file, 150, 0.075, 0.025, 300, 8)
    assert at_margin.get("pass", 0) <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    assert at_margin.get("fail", 0) <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    worse = simulate(data_file, 150, 0.25, 0.05, 300, 9)
    assert worse.get("fail", 0) >= 0.95
    assert "pass" not in worse
