"""Which trials count and which stage is the headline."""


import msgspec
import pytest

from perfbench.records import Audit, Rates, Summary, TrialSummary
from perfbench.report import repeats


def _with_trials(summary: Summary, change) -> Summary:
    """The summary with `change(variant, trial)` in place of each trial; None drops it."""
    variants = {}
    for name, variant in summary.variants.items():
        changed = [change(name, trial) for trial in variant.trials]
        variants[name] = msgspec.structs.replace(variant, trials=[trial for trial in changed if trial is not None])
    return msgspec.structs.replace(summary, variants=variants)


def _void(trial: TrialSummary) -> TrialSummary:
    return msgspec.structs.replace(trial, audit=Audit(verdict="void", reasons=["The clock stepped."]))


def test_a_void_repeat_is_left_out_of_mean_and_range(summary: Summary) -> None:
    changed = _with_trials(summary, lambda name, trial: _void(trial) if trial.repeat == 2 else trial)
    first = next(trial for trial in summary.variants["merged"].trials if trial.stage == "closed-4" and trial.repeat == 1).metrics["ttft_s"].p95
    assert repeats.metric_over_repeats(changed.variants["merged"], "closed-4", "ttft_s", "p95")[:4] == (first, first, first, 1)
    both = repeats.metric_over_repeats(summary.variants["merged"], "closed-4", "ttft_s", "p95")
    assert both.n == 2 and both.low < both.mean < both.high


def test_a_suspect_repeat_stays(summary: Summary) -> None:
    verdicts = [trial.audit.verdict for trial in repeats.usable_trials(summary.variants["base+lora"], "poisson-2")]
    assert verdicts == ["valid", "suspect"]


def test_nothing_measured_is_none_and_not_zero() -> None:
    assert repeats.over_repeats([None, None]) == (None, None, None, 0, None, None)
    assert repeats.over_repeats([None, 2.0, 4.0])[:4] == (3.0, 2.0, 4.0, 2)


def test_headline_is_the_fastest_stage_that_every_variant_can_bear(summary: Summary) -> None:
    headline = repeats.headline_stage(summary)
    assert headline == ("poisson-2", "poisson", "the stage with the highest throughput of those at which every variant meets the SLO")
    assert headline.ttft_metric == "ttft_scheduled_s"


def test_headline_without_slo_or_when_nobody_meets_it(summary: Summary) -> None:
    without = msgspec.structs.replace(_with_trials(summary, lambda name, trial: msgspec.structs.replace(trial, slo=None)), slo={})
    assert repeats.headline_stage(without) == ("closed-4", "closed", "the stage with the highest throughput (the scenario sets no SLO)")
    nobody = _with_trials(summary, lambda name, trial: msgspec.structs.replace(trial, slo={**trial.slo, "met": False}))
    assert repeats.headline_stage(nobody) == ("closed-4", "closed", "the stage with the highest throughput: no variant meets the SLO at any stage")
    assert repeats.headline_stage(_with_trials(summary, lambda name, trial: None)) is None


def test_headline_does_not_say_that_the_slo_is_missed_where_nothing_can_be_told(summary: Summary) -> None:
    void = Audit(verdict="void", reasons=["another process"])
    useless = _with_trials(summary, lambda name, trial: msgspec.structs.replace(trial, audit=void))
    assert repeats.headline_stage(useless).reason == "the first one: none of the run's trials can be used"
    few = _with_trials(summary, lambda name, trial: msgspec.structs.replace(trial, slo={**trial.slo, "met": None}))
    assert repeats.headline_stage(few).reason == "the stage with the highest throughput: no stage is known to meet the SLO or to miss it"


def test_headline_says_how_many_meet_the_slo(summary: Summary) -> None:
    def met(name: str, trial: TrialSummary) -> TrialSummary:
        return msgspec.structs.replace(trial, slo={**trial.slo, "met": name != "adapter" and trial.stage == "closed-4"})

    changed = _with_trials(summary, met)
    assert repeats.headline_stage(changed).reason == "the stage with the highest throughput of those at which 3 of 4 variants meet the SLO"


@pytest.mark.parametrize(("met", "answer"), [([True, True], True), ([True, False], False), ([True, None], None), ([None, False], False), ([], None)])
def test_a_stage_meets_the_slo_when_all_its_repeats_do(summary: Summary, met: list[bool | None], answer: bool | None) -> None:
    trial = summary.variants["base"].trials[0]
    trials = [msgspec.structs.replace(trial, repeat=number, slo={"met": one, "limits": {}}) for number, one in enumerate(met)]
    variant = msgspec.structs.replace(summary.variants["base"], trials=trials)
    assert repeats.meets_slo(variant, trial.stage) is answer


def test_a_rate_that_was_not_measured_stays_none(summary: Summary) -> None:
    none = Rates(requests_per_s=1.0, output_tokens_per_s=None, goodput_per_s=None)
    changed = _with_trials(summary, lambda name, trial: msgspec.structs.replace(trial, rates=none))
    assert repeats.rate_over_repeats(changed.variants["base"], "closed-1", "goodput_per_s").mean is None


def test_an_interval_over_repeats_stands_beside_the_mean(summary: Summary) -> None:
    import msgspec

    from perfbench.records import Estimate, StageSummary

    base = summary.variants["base"]
    sure = StageSummary(repeats=2, metrics={"ttft_s": {"p95": Estimate(value=0.5, ci95_low=0.4, ci95_high=0.7)}}, rates={})
    told = msgspec.structs.replace(base, stages={"closed-4": sure})
    assert repeats.metric_over_repeats(told, "closed-4", "ttft_s", "p95")[4:] == (0.4, 0.7)
    assert repeats.metric_over_repeats(told, "closed-4", "tpot_s", "p95")[4:] == (None, None)
