"""Two hand-set runs through the gate: exact changes, each verdict, and each reason to refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from perfbench.analyse.gate import run_gate
from perfbench.analyse.run_differences import compare_runs
from perfbench.analyse.starts import start_sd
from perfbench.analyse.stats import student_t975
from perfbench.analyse.summarise import summarise
from perfbench.analyse.two_runs import FinishedRun, check_comparable, finished_run
from perfbench.errors import InputError, NotComparableError, ScenarioError
from perfbench.records import GateResult, ModelInfo
from perfbench.scenario.gate import Gate

MEMORY = 1000.0
ONE_START = student_t975(8) * 2**0.5 * start_sd("ttft_s", "closed")
"""Half of an interval that holds nothing but what another start of either server would change."""
Maker = Callable[..., FinishedRun]


@pytest.fixture
def finished(make_run: Any, record: Any, sample: Any) -> Maker:
    """A finished run of `merged` with 24 requests, two of them at a time: TTFT 0.2 to 0.43 s, TPOT 0.05 s, 5 tokens; `slower` scales both."""

    def make(name: str, *, slower: float = 1.0, noise: float = 0.0, repeats: int = 1, passed: int = 45, void: bool = False, **changes: Any) -> FinishedRun:
        run, rng = make_run(name), np.random.default_rng(len(name))
        trials = [f"merged.one.r{repeat}" for repeat in range(repeats)]
        scenario = {
            "variants": ["merged"], "slo": {"ttft_s": {"p50": 5.0}}, "cost": {"server_hour_usd": 3.6},
            "quality": {"data": {"path": "/nowhere", "limit": None}, "task": {"task": "classification", "expected": "label", "labels": ["yes", "no"]},
                        "metric": None, "margin": 0.1, "minimum": None},
        }  # fmt: skip
        run.manifest(trials, **{**scenario, **changes.pop("scenario", {})})
        manifest = run.folder.manifest()
        run.folder.write_manifest(msgspec.structs.replace(manifest, **{"hashes": {"load_prompts": "a"}, "versions": {"vllm": "0.32.0"}, **changes}))
        run.server("merged", ["merged"])
        for trial in trials:
            records = []
            for k in range(24):
                off = 1 + noise * rng.standard_normal()
                ttft, tpot = (0.2 + 0.01 * k) * slower * off, 0.05 * slower
                records.append(record(trial, 2.0 + k * 0.4 * slower, prompt_id=str(k), ttft=ttft, tpot=tpot))
            run.trial(trial, records, client_cpu_s=9.9 if void else 0.1)
        run.samples([sample(t, "host", "host_rss_bytes", MEMORY * slower, server="merged") for t in (3, 5, 7)])
        run.quality("merged", [k < passed for k in range(50)])
        run.folder.write_summary(summarise(run.folder))
        return finished_run(run.folder.path)

    return make


def _gate(baseline: FinishedRun, run: FinishedRun, *rules: dict[str, Any], allow: tuple[str, ...] = ()) -> GateResult:
    gate = Gate.model_validate_json(msgspec.json.encode({"rules": list(rules)}))
    return run_gate(baseline, run, gate, check_comparable(baseline, run, allow), file="gate.yaml")


def test_a_planted_slow_down_is_found_and_its_size_is_exact(finished: Maker) -> None:
    result = _gate(finished("old"), finished("new", slower=1.25), {"metric": "ttft_s", "allowed_relative": 0.1}, {"metric": "tpot_s", "allowed_relative": 0.3})
    ttft, tpot = result.checks
    assert result.verdict == "regression"
    assert (ttft.change, ttft.ci95_low, ttft.ci95_high) == pytest.approx((0.25, 0.25 - ONE_START, 0.25 + ONE_START), rel=5e-3)
    assert ttft.verdict == "regression" and ttft.n == 20, "four of the slower run's are scheduled after its window"
    assert (tpot.verdict, tpot.change) == ("pass", pytest.approx(0.25))


def test_the_same_run_twice_passes(finished: Maker) -> None:
    rules = [
        {"metric": "ttft_s", "statistic": "p90", "allowed_relative": 0.12}, {"metric": "output_tokens_per_s", "allowed_relative": 0.1},
        {"metric": "goodput_per_s", "allowed_relative": 0.1}, {"metric": "usd_per_request", "allowed_relative": 0.1},
        {"metric": "usd_per_million_output_tokens", "allowed_relative": 0.1}, {"metric": "host_rss_bytes", "allowed_relative": 0.0},
        {"metric": "quality", "allowed_absolute": 0.1},
    ]  # fmt: skip
    result = _gate(finished("old"), finished("new"), *rules)
    names = ["ttft_s", "output_tokens_per_s", "goodput_per_s", "usd_per_request", "usd_per_million_output_tokens", "host_rss_bytes", "accuracy"]
    assert [(check.metric, check.verdict) for check in result.checks] == [(name, "pass") for name in names]
    assert result.verdict == "pass"


def test_noise_across_the_allowed_change_cannot_tell_and_says_how_many_would(finished: Maker) -> None:
    result = _gate(finished("old", noise=0.3), finished("newer", slower=1.1, noise=0.3), {"metric": "ttft_s", "allowed_relative": 0.1})
    (check,) = result.checks
    assert (result.verdict, check.verdict) == ("cannot tell", "cannot tell")
    assert check.ci95_low is not None and check.ci95_high is not None and check.ci95_low < 0.1 < check.ci95_high
    assert check.n_to_decide is None or check.n_to_decide > check.n


def test_throughput_and_price_get_worse_in_their_own_direction(finished: Maker) -> None:
    """24 requests in the window of 10 s become 16: a third fewer, so each costs half as much again."""
    rules = [{"metric": name, "allowed_relative": 0.05} for name in ("requests_per_s", "usd_per_request")]
    rate, price = _gate(finished("old"), finished("new", slower=1.5), *rules).checks
    assert rate.change is not None and price.change is not None
    assert (1 + rate.change) * (1 + price.change) == pytest.approx(1.0)
    assert rate.change < -0.25 and price.change > 0.3
    assert (rate.verdict, price.verdict) == ("regression", "regression")


def test_memory_is_one_figure_and_decides_by_itself(finished: Maker) -> None:
    rules = [
        {"metric": "host_rss_bytes", "allowed_relative": 0.2},
        {"metric": "host_rss_bytes", "allowed_absolute": 260.0},
        {"metric": "vram_bytes", "allowed_relative": 0.1},
    ]
    relative, absolute, vram = _gate(finished("old"), finished("new", slower=1.25), *rules).checks
    assert (relative.verdict, relative.change, relative.ci95_low) == ("regression", pytest.approx(0.25), None)
    assert (absolute.verdict, absolute.change) == ("pass", pytest.approx(250.0))
    assert (vram.verdict, vram.reason) == ("cannot tell", "not measured in both runs")


def test_quality_is_paired_by_sample(finished: Maker) -> None:
    """45 of 50 became 30: 15 lost, none won; Tango's interval lies beyond ten points, and reaches across thirty."""
    old, new = finished("old"), finished("new", passed=30)
    lost, unsure = _gate(old, new, {"metric": "quality", "allowed_absolute": 0.1}, {"metric": "quality", "allowed_absolute": 0.3}).checks
    assert (lost.metric, lost.change, lost.verdict) == ("accuracy", pytest.approx(-0.3), "regression")
    assert unsure.verdict == "cannot tell"


def test_a_metric_that_other_models_computed_is_not_compared(finished: Maker) -> None:
    """As if an encoder had computed the accuracy."""

    def computed(name: str, signature: str) -> FinishedRun:
        run = finished(name)
        variant = run.summary.variants["merged"]
        assert variant.quality is not None
        quality = msgspec.structs.replace(variant.quality, signatures={"accuracy": signature})
        return replace(run, summary=msgspec.structs.replace(run.summary, variants={"merged": msgspec.structs.replace(variant, quality=quality)}))

    old, rule = computed("old", "/a/enc, sha256 11, layer 1, transformers 5.1"), {"metric": "quality", "allowed_absolute": 0.1}
    (check,) = _gate(old, computed("moved", "/b/enc, sha256 11, layer 1, transformers 5.2"), rule).checks
    assert (check.change, "not comparable" in check.reason) == (0.0, False)
    (check,) = _gate(old, computed("other", "/a/enc, sha256 11, layer 2, transformers 5.1"), rule).checks
    assert check.verdict == "cannot tell"
    assert "it was computed by other models (sha256 11, layer 1; 11, layer 2)" in check.reason


def test_void_trials_cannot_tell(finished: Maker) -> None:
    (check,) = _gate(finished("old"), finished("new", void=True), {"metric": "ttft_s", "allowed_relative": 0.1}).checks
    assert (check.verdict, check.baseline) == ("cannot tell", None)
    assert "void" in check.reason


def test_a_rule_for_what_is_not_there_is_an_error_not_a_pass(finished: Maker) -> None:
    rules = [{"metric": "ttft_s", "allowed_relative": 0.1, "variants": ["adapter"]}, {"metric": "ttft_s", "allowed_relative": 0.1, "stages": ["two"]}]
    with pytest.raises(ScenarioError) as caught:
        _gate(finished("old"), finished("new"), *rules)
    assert [finding.key for finding in caught.value.findings] == ["rules[0].variants", "rules[1].stages"]


OLD: dict[str, Any] = {"scenario": {"variations": {"merged-2": {"of": "merged", "args": {"max-lora-rank": 8}}}}}


@pytest.mark.parametrize(
    ("changes", "kind", "named"),
    [
        ({"hashes": {"load_prompts": "b"}}, "prompts", "load prompts differ (sha256 a, b)"),
        ({"hashes": {"load_prompts": "a", "decoding": "d"}}, "decoding", "only one of the runs"),
        ({"hashes": {"load_prompts": "a", "quality_template": "d"}}, "template", "only one of the runs"),
        ({"versions": {"vllm": "0.33.0"}}, "versions", "vllm 0.32.0 -> 0.33.0"),
        ({"hardware": {"cpu": {"model": "other"}}}, "hardware", "cpu model (none) -> other"),
        ({"scenario": {"serve": {"args": {"enforce-eager": True}, "env": {}}}}, "serve", "args.enforce-eager (none) -> True"),
        ({"scenario": {"cost": {"server_hour_usd": 1.0}}}, "price", "server_hour_usd 3.6 -> 1.0"),
        ({"scenario": {"variations": {"merged-2": {"of": "merged", "args": {"max-lora-rank": 64}}}}}, "serve", "merged-2: args.max-lora-rank 8 -> 64"),
    ],
)
def test_runs_that_are_not_comparable_are_refused_and_told_why(finished: Maker, changes: dict[str, Any], kind: str, named: str) -> None:
    old, new = finished("old", **OLD if "variations" in changes.get("scenario", {}) else {}), finished("new", **changes)
    with pytest.raises(NotComparableError) as caught:
        check_comparable(old, new, ())
    assert caught.value.exit_code == 2
    assert f"{kind}: " in caught.value.message and named in caught.value.message
    if kind in ("prompts", "decoding", "template"):
        with pytest.raises(InputError, match="cannot be allowed"):
            check_comparable(old, new, (kind,))
    else:
        assert [one.kind for one in check_comparable(old, new, (kind,))] == [kind]


def test_a_hash_is_said_by_the_values_behind_it(finished: Maker) -> None:
    old, new = (finished(name, hashes={"decoding": name}, scenario={"decoding": {"temperature": t, "stop": []}}) for name, t in (("old", 0.0), ("new", 0.7)))
    with pytest.raises(NotComparableError, match=r"decoding: decoding differs \(temperature 0\.0 -> 0\.7\)"):
        check_comparable(old, new, ())


def test_a_run_is_not_held_against_itself(finished: Maker) -> None:
    """A baseline that is the run itself, or a copy of it, would pass every rule."""
    old = finished("old")
    with pytest.raises(NotComparableError, match="are one run"):
        check_comparable(old, old, ())


def test_what_a_variant_of_one_run_needs_does_not_make_runs_unlike(finished: Maker) -> None:
    def model(sha256: str) -> ModelInfo:
        return ModelInfo(path="/m", revision=None, architecture=None, dtype=None, parameters=None, weight_bytes=None, sha256=sha256)

    old = finished("old", models={"base": model("b")})
    assert check_comparable(old, finished("new", models={"base": model("b"), "merged-2": model("m")}), ()) == []
    with pytest.raises(NotComparableError, match="models: base b -> c"):
        check_comparable(old, finished("other", models={"base": model("c")}), ())


def test_variants_that_are_gone_are_named(finished: Maker) -> None:
    old, new = finished("old", scenario={"variants": ["merged", "adapter"]}), finished("new")
    assert _gate(old, new, {"metric": "ttft_s", "allowed_relative": 0.1}).only_in_one == ["variant adapter is only in the baseline"]


def test_what_cannot_be_compared_says_which_run_lacks_what(finished: Maker) -> None:
    rules = [{"metric": name, "allowed_relative": 0.1} for name in ("usd_per_request", "goodput_per_s")]
    limits = {"slo": {"ttft_s": {"p50": 0.35}}}
    old, slow = finished("old", scenario=limits), finished("slow", slower=2.0, scenario=limits)
    assert _gate(old, slow, rules[0]).checks[0].reason == "of the run: no stage meets the SLO"
    no_slo = [finished(name, scenario={"slo": {}}) for name in ("a", "b")]
    assert _gate(*no_slo, rules[1]).checks[0].reason == "the scenario has no SLO"


def test_prices_in_two_currencies_are_no_difference(finished: Maker) -> None:
    old, new = finished("old"), finished("new", scenario={"cost": {"server_hour_usd": 3.6, "currency": "EUR"}})
    rule = {"metric": "usd_per_request", "allowed_relative": 0.1}
    (check,) = _gate(old, new, rule, allow=("price",)).checks
    assert (check.verdict, check.reason) == ("cannot tell", "the baseline's prices are in USD, the run's in EUR")
    (alike,) = _gate(new, finished("newer", scenario={"cost": {"server_hour_usd": 3.6, "currency": "EUR"}}), rule).checks
    assert (alike.verdict, alike.unit) == ("pass", "EUR")


def test_another_load_is_refused(finished: Maker) -> None:
    stage = {"name": "one", "arrival": "closed", "concurrency": 2, "warmup_s": 2.0, "duration_s": 10.0, "drain_s": 8.0, "output": {"max_tokens": 64}}
    load = {"data": {"path": "/nowhere/prompts.jsonl", "limit": None}, "stages": [stage], "seed": 7}
    with pytest.raises(NotComparableError) as caught:
        check_comparable(finished("old"), finished("new", scenario={"load": load}), ())
    assert "stage one: concurrency 1 -> 2" in caught.value.message and "seed (none) -> 7" in caught.value.message


def test_an_unknown_kind_is_named(finished: Maker) -> None:
    with pytest.raises(InputError, match="expected one of models, serve, versions, hardware, price"):
        check_comparable(finished("old"), finished("new"), ("weather",))


def test_compare_says_better_worse_same(finished: Maker) -> None:
    old, new = finished("old", repeats=2), finished("new", slower=0.8, repeats=2)
    found = {(one.metric, one.statistic): one for one in compare_runs(old, new, []).differences}
    ttft = found["ttft_s", "mean"]
    assert (ttft.verdict, ttft.relative, ttft.starts) == ("better", pytest.approx(-0.2), 1)
    assert ttft.relative_ci95_low == pytest.approx(-0.2 - ONE_START, rel=5e-3), "two repeats of one start"
    assert found["accuracy", "share"].verdict == "same"
    assert (found["host_rss_bytes", "peak"].verdict, found["host_rss_bytes", "peak"].difference) == ("cannot tell", pytest.approx(-200.0))
    same = {one.metric: one.verdict for one in compare_runs(old, old, []).differences if one.ci95_low is not None}
    assert same.pop("usd_per_correct_request") == "cannot tell", "50 samples alike are not all samples alike"
    assert set(same.values()) == {"same"}, "a run against itself is of one start"


@pytest.mark.parametrize(("failed", "verdict"), [((0, 0), "cannot tell"), ((0, 12), "regression"), ((0, 1), "cannot tell")])
def test_failed_requests_are_counted_where_they_void_the_trial_too(make_run: Any, record: Any, failed: tuple[int, int], verdict: str) -> None:
    """24 requests a run; none failed in either is not known to be less than 5 points, and half of them void the trial and are a regression."""
    runs = []
    for name, count in zip(("old", "new"), failed, strict=True):
        run = make_run(name)
        run.manifest(["merged.one.r0"], variants=["merged"])
        run.folder.write_manifest(msgspec.structs.replace(run.folder.manifest(), hashes={"load_prompts": "a"}))
        records = [
            record("merged.one.r0", 2.0 + k * 0.4, prompt_id=str(k), **({"status": "failed", "error": "timeout"} if k % 2 and k < 2 * count else {}))
            for k in range(24)
        ]
        run.trial("merged.one.r0", records)
        run.folder.write_summary(summarise(run.folder))
        runs.append(finished_run(run.folder.path))
    result = _gate(runs[0], runs[1], {"metric": "failed_share", "allowed_absolute": 0.05})
    (check,) = result.checks
    assert (check.verdict, check.change) == (verdict, pytest.approx((failed[1] - failed[0]) / 24))
    relative = _gate(runs[0], runs[1], {"metric": "failed_share", "allowed_relative": 0.5}).checks[0]
    assert relative.reason == "the baseline is 0, so that no share of it can be told; give allowed_absolute"


def test_many_requests_without_a_failure_pass(make_run: Any, record: Any) -> None:
    """Of 240 requests none failed: by Wilson fewer than 1.6% would in either."""
    runs = []
    for name in ("old", "new"):
        run = make_run(name)
        run.manifest(["merged.one.r0"], variants=["merged"])
        run.folder.write_manifest(msgspec.structs.replace(run.folder.manifest(), hashes={"load_prompts": "a"}))
        run.trial("merged.one.r0", [record("merged.one.r0", 2.0 + k * 0.04, prompt_id=str(k)) for k in range(240)])
        run.folder.write_summary(summarise(run.folder))
        runs.append(finished_run(run.folder.path))
    (check,) = _gate(runs[0], runs[1], {"metric": "failed_share", "allowed_absolute": 0.02}).checks
    assert (check.verdict, check.change) == ("pass", 0.0)
    assert check.ci95_high is not None and 0.015 < check.ci95_high < 0.017


def test_a_correct_answer_costs_more_where_fewer_are_right(finished: Maker) -> None:
    """As many requests for the same money; 45 of 50 right became 30 of 50, so that a right one costs half as much again."""
    (check,) = _gate(finished("old"), finished("new", passed=30), {"metric": "usd_per_correct_request", "allowed_relative": 0.1}).checks
    assert (check.change, check.verdict) == (pytest.approx(0.5), "regression")
    assert check.ci95_low is not None and check.ci95_low > 0.1
    (same,) = _gate(finished("older"), finished("newer"), {"metric": "usd_per_correct_request", "allowed_relative": 0.15}).checks
    assert (same.change, same.verdict) == (pytest.approx(0.0), "pass")


def test_energy_needs_a_counter_and_two_repeats(finished: Maker, sample: Any) -> None:
    (none,) = _gate(finished("old"), finished("new"), {"metric": "energy_j_per_request", "allowed_relative": 0.1}).checks
    assert (none.verdict, none.reason, none.change) == ("cannot tell", "there is no energy counter in both runs", None)


@pytest.mark.parametrize(("figures", "verdict"), [([(10.0, 13.0)], "cannot tell"), ([(10.0, 13.0), (10.2, 13.2)], "regression"), ([(10.0, 10.1)] * 2, "pass")])
def test_energy_repeat_by_repeat(finished: Maker, figures: list[tuple[float, float]], verdict: str) -> None:
    """+30% is beyond 10%; a percent is within, another start of the servers allowed for; one repeat has no interval."""
    old, new = (_with_energy(finished(name, repeats=len(figures)), [pair[side] for pair in figures]) for side, name in enumerate(("old", "new")))
    (check,) = _gate(old, new, {"metric": "energy_j_per_request", "allowed_relative": 0.1, "stages": ["one"]}).checks
    assert (check.verdict, check.n) == (verdict, len(figures))


def _with_energy(run: FinishedRun, joules: list[float]) -> FinishedRun:
    """As if a counter had been read in each repeat."""
    trials = {}
    for key, trial in run.trials.items():
        energy = msgspec.structs.replace(trial.summary.metrics["ttft_s"], unit="J", mean=joules[key[2]])
        trials[key] = replace(trial, summary=msgspec.structs.replace(trial.summary, metrics={**trial.summary.metrics, "energy_j_per_request": energy}))
    return replace(run, trials=trials)
