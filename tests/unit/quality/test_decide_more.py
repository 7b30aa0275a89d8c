"""Several metrics, groups, slices, metrics that were not run, and simulations of what the decision gets wrong."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfbench.quality.decide import decide, holm
from perfbench.quality.equivalence import equivalent
from perfbench.quality.intervals import Array, as_floats, clustered_standard_error, mean_interval, tango
from perfbench.quality.measures import Paired, Reading, paired_difference
from perfbench.records import JudgeSummary, QualityRecord
from perfbench.scenario.quality import Quality, QuestionAnswering


@pytest.fixture
def data_file(tmp_path: Path) -> str:
    path = tmp_path / "eval.jsonl"
    path.write_text('{"want": "a"}\n')
    return str(path)


def block(data_file: str, **more: Any) -> Quality:
    return Quality.model_validate_json(json.dumps({"data": {"path": data_file}, "task": {"task": "qa", "expected": "want"}, "margin": 0.05, **more}))


def records(variant: str, hits: Sequence[float], **scores: Sequence[float]) -> list[QualityRecord]:
    """`hits` are exact matches; more per-sample scores by name."""
    return [
        QualityRecord(
            sample_id=str(n), variant=variant, prompt="", prompt_sha256="", expected="x", output=f"{variant} {hit}", passed=bool(hit),
            label="correct answer" if hit else "wrong answer", scores={"exact_match": float(hit), **{name: values[n] for name, values in scores.items()}},
        )
        for n, hit in enumerate(hits)
    ]  # fmt: skip


def changed(given: Sequence[QualityRecord], **by_name: Any) -> list[QualityRecord]:
    return [
        QualityRecord(**{name: getattr(record, name) for name in record.__struct_fields__} | {name: value(n) for name, value in by_name.items()})
        for n, record in enumerate(given)
    ]


def normal(value: float, error: float) -> Paired:
    """A metric whose interval is known: value -+ z error."""
    from scipy.special import ndtri

    def interval(level: float) -> tuple[float, float]:
        z = float(ndtri(0.5 + level / 2))
        return value - z * error, value + z * error

    return Paired(value, 100, 1.0, interval)


def test_holm_by_hand() -> None:
    """Margins of 0, so one-sided p = 1 - Phi(value / error): 0.010, 0.020, 0.030, 0.3. Holm at 0.05: 0.010 <= 0.0125 shows, 0.020 > 0.0167 does not,
    and nothing after it, although 0.020 alone would."""
    pairs = [normal(value, 1.0) for value in (2.054, 2.326, 1.881, 0.524)]
    assert [verdict for verdict, _ in holm(pairs, [1e-12] * 4)] == ["inconclusive", "pass", "inconclusive", "inconclusive"]
    assert [verdict for verdict, _ in holm([pairs[0]], [1e-12])] == ["pass"]
    # 0.010, 0.020, 0.030 alone: 0.010 <= 0.0167, 0.020 <= 0.025, 0.030 <= 0.05: all show.
    found = holm(pairs[:3], [1e-12] * 3)
    assert [verdict for verdict, _ in found] == ["pass"] * 3
    assert [level for _, level in found] == pytest.approx([0.95, 1 - 0.1 / 3, 0.90])
    assert [verdict for verdict, _ in holm([normal(-9, 1), normal(9, 1)], [0.1, 0.1])] == ["fail", "pass"]


def test_all_metrics_must_pass_and_one_that_fails_fails_all(data_file: str) -> None:
    quality = block(data_file, metrics=["exact_match", {"metric": "token_f1", "margin": 0.1}])
    hits, f1 = [1.0] * 150 + [0.0] * 50, [0.9] * 200
    base = records("base", hits, token_f1=f1)
    same = decide(base, records("adapter", hits, token_f1=[0.9 + 0.01 * (n % 2) for n in range(200)]), quality)
    assert (same.verdict, [gate.verdict for gate in same.gates]) == ("pass", ["pass", "pass"])
    assert [(gate.metric, gate.margin) for gate in same.gates] == [("exact_match", 0.05), ("token_f1", 0.1)]
    assert "2 of 2 metrics pass (Holm's correction)" in same.reason
    worse = decide(base, records("adapter", hits, token_f1=[0.6 + 0.01 * (n % 2) for n in range(200)]), quality)
    assert (worse.verdict, [gate.verdict for gate in worse.gates]) == ("fail", ["pass", "fail"])
    assert worse.metric == "exact_match"
    assert "1 of 2 metrics fail" in worse.reason
    assert "token_f1" in worse.reason


def test_a_weak_metric_alone_is_warned_about(data_file: str) -> None:
    hits = [1.0, 0.0] * 40
    base, other = (records(name, hits, token_f1=hits, fuzzy=hits) for name in ("base", "adapter"))
    assert "a weak metric decides alone: token_f1" in decide(base, other, block(data_file, metric="token_f1")).warnings[0]
    assert decide(base, other, block(data_file, metrics=["fuzzy", "exact_match"])).warnings == []
    assert decide(base, other, block(data_file)).warnings == []


def test_a_metric_without_a_judge_is_not_run_and_decides_nothing(data_file: str) -> None:
    quality = block(data_file, task={"task": "chat"})
    made = changed(records("base", [0.0] * 5), scores=lambda n: {}, passed=lambda n: None, label=lambda n: "not judged")
    summary = decide(made, changed(made, variant=lambda n: "adapter"), quality)
    assert summary.verdict == "inconclusive"
    assert summary.reason == "rubric_score was not run: no judge is configured; add `quality.judge`"
    assert set(summary.not_run) == {"rubric_score", "win_rate", "human_score"}
    assert summary.metrics == {}
    assert (summary.regressions, summary.regressed) == (0, [])
    assert decide(made, made, quality).verdict == "reference"


def test_slices_show_where_a_difference_comes_from(data_file: str) -> None:
    before = [1.0] * 60
    after = [0.0] * 20 + [1.0] * 40
    base, worse = (
        changed(records(name, hits), slices=lambda n: {"lang": "de" if n < 20 else "en"}) for name, hits in (("base", before), ("adapter", after))
    )
    summary = decide(base, worse, block(data_file, slices=("lang",)))
    assert list(summary.slices["lang"]) == ["de", "en"]
    german, english = summary.slices["lang"].values()
    assert (german.n, german.value.value, english.n, english.value.value) == (20, 0.0, 40, 1.0)
    assert german.difference is not None
    assert english.difference is not None
    assert (german.difference.value, english.difference.value) == (-1.0, 0.0)
    assert (english.difference.ci95_low, english.difference.ci95_high) == pytest.approx(tango(0, 0, 40))
    assert summary.regressed == [str(n) for n in range(20)]
    alone = decide(base, base, block(data_file, slices=("lang",))).slices["lang"]["de"]
    assert alone.difference is None


def test_the_clustered_standard_error_by_hand() -> None:
    """Groups (1, 1), (0), (0, 1): mean 0.6; deviations summed by group 0.8, -0.6, -0.2; sqrt(0.64 + 0.36 + 0.04) / 5."""
    assert clustered_standard_error(as_floats([1, 1, 0, 0, 1]), [0, 0, 1, 2, 2]) == pytest.approx(1.04**0.5 / 5)


def grouped(variant: str, hits: Sequence[float], size: int) -> list[QualityRecord]:
    return changed(records(variant, hits), group=lambda n: f"g{n // size}")


def test_groups_widen_the_interval_by_what_they_share(data_file: str) -> None:
    """Ten copies of each of 30 answers say no more than the 30: the interval must be that of 30, not of 300."""
    random = np.random.default_rng(4)
    before, after = ((random.random(30) < share).astype(float) for share in (0.7, 0.6))
    many = [grouped(name, np.repeat(hits, 10).tolist(), 10) for name, hits in (("base", before), ("adapter", after))]
    summary = decide(many[0], many[1], block(data_file, groups="doc"))
    assert summary.groups == 30
    assert summary.mcnemar_p is None
    assert summary.difference is not None
    few = mean_interval(after - before)
    assert (summary.difference.ci95_low, summary.difference.ci95_high) == pytest.approx(few, abs=0.04)
    assert summary.standard_errors["exact_match"] == pytest.approx((after.var() / 30) ** 0.5)
    assert "only 4 groups" in decide(many[0][:40], many[1][:40], block(data_file, groups="doc")).warnings[0]
    single = decide(grouped("base", before.tolist(), 1), grouped("adapter", after.tolist(), 1), block(data_file, groups="doc"))
    assert single.difference is not None
    assert (single.difference.ci95_low, single.difference.ci95_high) == pytest.approx(few, abs=0.04)


def test_the_judges_win_rate_is_held_against_a_half(data_file: str) -> None:
    quality = block(data_file, task={"task": "chat"}, metric="win_rate", margin=0.1)
    base = changed(records("base", [1.0] * 120), scores=lambda n: {})
    won = changed(records("adapter", [1.0] * 120), scores=lambda n: {"win_rate": (1.0, 0.5, 0.0, 0.5)[n % 4]})
    summary = decide(base, won, quality)
    assert summary.verdict == "pass"
    assert summary.difference is not None
    assert summary.difference.value == 0.0
    assert "a half" in summary.reason
    lost = changed(won, scores=lambda n: {"win_rate": 0.5 if n % 4 else 0.0} if n % 2 else {"win_rate": 0.0})
    assert decide(base, lost, quality).verdict == "fail"


def test_only_samples_with_a_score_count(data_file: str) -> None:
    quality = block(data_file, must_refuse="unsafe", metrics=["exact_match", "refused_when_due"])
    made = [
        changed(
            records(name, [1.0] * 100), must_refuse=lambda n: n < 40, passed=lambda n, s=share: n >= s,
            scores=lambda n, s=share: {"refused_when_due": float(n >= s)} if n < 40 else {"exact_match": 1.0},
        )
        for name, share in (("base", 0), ("adapter", 30))
    ]  # fmt: skip
    summary = decide(made[0], made[1], quality)
    assert summary.metrics["refused_when_due"].value == 0.25
    assert summary.metrics["exact_match"].value == 1.0
    assert (summary.verdict, [gate.verdict for gate in summary.gates]) == ("fail", ["inconclusive", "fail"])
    assert [gate.n for gate in summary.gates] == [60, 40]


def test_equivalence_of_a_mean(data_file: str) -> None:
    quality = block(data_file, metric="token_f1")
    random = np.random.default_rng(3)
    f1 = random.random(300).tolist()
    noise = (np.asarray(f1) + random.normal(0, 0.02, 300)).tolist()
    found = equivalent(records("adapter", [1.0] * 300, token_f1=f1), records("merged", [1.0] * 300, token_f1=noise), quality)
    assert (found.metric, found.verdict) == ("token_f1", "equal")
    assert -0.05 < found.low <= found.difference <= found.high < 0.05
    worse = (np.asarray(f1) - 0.2).tolist()
    assert equivalent(records("adapter", [1.0] * 300, token_f1=f1), records("merged", [1.0] * 300, token_f1=worse), quality).verdict == "not equal"


READING = Reading(QuestionAnswering(task="qa", expected="want"), ())


def rates(kind: str, n: int, shift: float, runs: int, seed: int) -> dict[str, float]:
    """Verdicts of many runs of n samples whose true difference is `shift`, margin 0.05, 15% discordant (or a spread of 0.25 for a mean)."""
    random = np.random.default_rng(seed)
    counts = dict.fromkeys(("pass", "fail", "inconclusive"), 0)
    for _ in range(runs):
        if kind == "exact_match":
            worse, better = 0.075 - shift / 2, 0.075 + shift / 2
            draw = random.choice(3, size=n, p=[worse, better, 1 - worse - better])
            before, after = as_floats(draw != 1), as_floats(draw != 0)
            pair = paired_difference(records("base", before.tolist()), records("adapter", after.tolist()), kind, READING)
        else:
            before = np.clip(random.normal(0.6, 0.1, n), 0, 1)
            drift: Array = random.normal(shift, 0.25, n)
            zeros = [0.0] * n
            pair = paired_difference(records("base", zeros, token_f1=before.tolist()), records("a", zeros, token_f1=(before + drift).tolist()), kind, READING)
        counts[holm([pair], [0.05])[0][0]] += 1
    return {verdict: count / runs for verdict, count in counts.items()}


@pytest.mark.parametrize(("kind", "runs"), [("exact_match", 200), ("token_f1", 60)])
def test_planted_regressions_are_found_and_equal_models_are_not_failed(kind: str, runs: int) -> None:
    """The quick form of benchmarks/quality/decision.py. Limits allow for three standard errors of the number of runs."""
    slack = 3 * (0.05 * 0.95 / runs) ** 0.5
    equal = rates(kind, 250, 0.0, runs, 11)
    assert equal["fail"] <= 0.01 + slack / 2
    margin = rates(kind, 250, -0.05, runs, 12)
    assert margin["pass"] <= 0.05 + slack
    assert margin["fail"] <= 0.05 + slack
    planted = rates(kind, 250, -0.14, runs, 13)
    assert planted["fail"] >= 0.8
    assert planted["pass"] == 0


def test_a_summary_is_json(data_file: str) -> None:
    import msgspec

    base = records("base", [1.0, 0.0] * 30)
    text = msgspec.json.encode(decide(base, changed(base, variant=lambda n: "adapter"), block(data_file, slices=())))
    assert json.loads(text)["gates"][0]["metric"] == "exact_match"


@pytest.mark.parametrize(
    ("base", "variant", "verdict"),
    [
        ([0.0] * 100, [0.0] * 100, "inconclusive"),  # neither does the task: nothing can be worse by the margin
        ([0.0] * 10, [0.0] * 10, "inconclusive"),
        ([1.0] * 2 + [0.0] * 98, [0.0] * 2 + [1.0] * 3 + [0.0] * 95, "inconclusive"),
        ([0.0] * 100, [1.0] * 70 + [0.0] * 30, "pass"),  # what the fine-tune is for
        ([1.0] * 10 + [0.0] * 90, [1.0] * 10 + [0.0] * 90, "pass"),
    ],
)
def test_two_models_that_cannot_do_the_task_are_no_pass(data_file: str, base: list[float], variant: list[float], verdict: str) -> None:
    summary = decide(records("base", base), records("adapter", variant), block(data_file))
    assert summary.verdict == verdict
    told = f"neither base nor this variant does the task: exact_match is {np.mean(base):.3f} and {np.mean(variant):.3f}, no more than the margin of 0.050"
    assert (summary.reason == told) == (verdict == "inconclusive")
    assert summary.n_to_decide is None


def test_a_judge_that_does_not_judge_is_warned_about(data_file: str) -> None:
    quality = block(data_file, judge={"url": "http://127.0.0.1:9", "model": "j"})
    judge = JudgeSummary(model="j", verdicts=24, inconsistent=0.75)
    rubric = records("adapter", [1.0] * 12, rubric_score=[1.0] * 12, answer_correctness=[1.0] * 11 + [0.0])
    warnings = decide(records("base", [1.0] * 12), rubric, quality, judge).warnings
    assert warnings == [
        "the judge's pairwise verdicts changed with the order of the answers in 75% of pairs: they say little",
        "the judge gave all 12 answers the same rubric_score: let people look at some (perfbench samples --blind)",
    ]
    assert decide(records("base", [1.0] * 12), rubric[:5], quality, JudgeSummary(model="j", verdicts=5, inconsistent=0.2)).warnings == []
