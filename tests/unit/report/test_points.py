"""The points of the plots: right values, and thinned aloud."""

import msgspec
import polars as pl
import pytest

from perfbench.records import Audit, Manifest, SteadyState, Summary
from perfbench.report import figures, points
from perfbench.results import RunFolder


@pytest.fixture(scope="module")
def latencies(folder: RunFolder, manifest: Manifest) -> pl.DataFrame:
    return points.request_latencies(folder, manifest)


def test_latencies_in_the_window_are_those_that_the_summary_counts(latencies: pl.DataFrame, summary: Summary) -> None:
    trial = next(trial for trial in summary.variants["adapter"].trials if (trial.stage, trial.repeat) == ("closed-4", 1))
    chosen = latencies.filter((pl.col("trial") == "adapter.closed-4.r1") & pl.col("measured"))
    assert (chosen["status"] == "ok").sum() == trial.requests.ok
    assert (chosen["status"] == "failed").sum() == trial.requests.failed
    assert chosen["ttft_s"].mean() == pytest.approx(trial.metrics["ttft_s"].mean)
    assert chosen["tpot_s"].mean() == pytest.approx(trial.metrics["tpot_s"].mean)


def test_open_loop_latencies_count_from_the_scheduled_time(latencies: pl.DataFrame, summary: Summary) -> None:
    trial = next(trial for trial in summary.variants["base"].trials if (trial.stage, trial.repeat) == ("poisson-2", 1))
    chosen = latencies.filter((pl.col("trial") == "base.poisson-2.r1") & pl.col("measured"))
    assert chosen["ttft_s"].mean() == pytest.approx(trial.metrics["ttft_scheduled_s"].mean)
    assert chosen["e2e_s"].mean() == pytest.approx(trial.metrics["e2e_scheduled_s"].mean)


def test_few_points_are_all_there() -> None:
    frame = pl.DataFrame({"a": [1, 2, 3]})
    kept, words = points.thin(frame, 3)
    assert kept.equals(frame) and words == ""
    assert points.thin(frame.clear(), 3)[0].is_empty()


def test_many_points_are_thinned_aloud_and_keep_the_last() -> None:
    kept, words = points.thin(pl.DataFrame({"a": range(4801)}), 400)
    assert words == "every 13th of 4,801"
    assert kept["a"].to_list()[:3] == [0, 13, 26] and kept["a"][-1] == 4800
    assert kept.height <= 401


@pytest.mark.parametrize(("number", "text"), [(2, "2nd"), (3, "3rd"), (11, "11th"), (21, "21st"), (112, "112th"), (1001, "1,001st")])
def test_ordinals(number: int, text: str) -> None:
    assert points.ordinal(number) == text


def test_the_distribution_ends_at_one_and_its_middle_is_the_median() -> None:
    frame = pl.DataFrame({"measured": True, "status": "ok", "ttft_s": [value / 1000 for value in range(1, 1001)]})
    curve = points.cumulative(frame, "ttft_s")
    assert curve.y[-1] == 1.0 and curve.x[-1] == 1.0
    assert all(y == pytest.approx(x) for x, y in zip(curve.x, curve.y, strict=True))
    assert curve.thinned == "every 3rd of 1,000"
    assert points.cumulative(frame.clear(), "ttft_s") == ([], [], "")


def test_telemetry_is_that_of_the_variants_own_server_and_trial(folder: RunFolder, manifest: Manifest) -> None:
    windows = points.trial_windows(folder, manifest)
    assert points.servers_of(folder) == {"base": "plain", "base+lora": "lora", "adapter": "lora", "merged": "merged"}
    curve = points.telemetry(folder, windows["adapter.closed-4.r2"], "lora", "num_requests_running")
    assert len(curve.x) == 78 and curve.x[0] == 0.0 and curve.x[-1] == 38.5
    assert points.telemetry(folder, windows["adapter.closed-4.r2"], "plain", "num_requests_running").x == []


def test_every_plot_of_a_run_is_there_and_says_what_it_shows(folder: RunFolder, summary: Summary, manifest: Manifest, latencies: pl.DataFrame) -> None:
    plots = {figure.key: figure for figure in figures.all_figures(folder, summary, manifest, latencies)}
    kinds = ("cdf-ttft_s", "cdf-tpot_s", "cdf-e2e_s", "ttft-time", "kv_cache_usage_perc", "num_requests_running", "num_requests_waiting", "adapter-tax")
    expected = {f"{kind}-{stage}" for kind in kinds for stage in ("closed-1", "closed-4", "poisson-2")}
    assert set(plots) == expected | {"throughput-ttft_s", "throughput-tpot_s", "memory-ledger"}
    assert all(figure.alt and figure.note for figure in plots.values())
    assert [trace["name"] for trace in plots["throughput-tpot_s"].plot["data"]] == [*summary.variants, "Pareto front"]


def test_the_slo_line_stands_at_the_limit(folder: RunFolder, summary: Summary) -> None:
    plot = figures.latency_throughput(summary, "ttft_s").plot
    assert [(shape["y0"], shape["y1"]) for shape in plot["layout"]["shapes"]] == [(0.8, 0.8)]
    assert plot["layout"]["annotations"][0]["text"] == "SLO 800 ms"


def test_warm_up_and_drain_are_shaded(folder: RunFolder, summary: Summary, manifest: Manifest, latencies: pl.DataFrame) -> None:
    windows = points.trial_windows(folder, manifest).values()
    layout = figures.latency_over_time(summary, latencies.filter(pl.col("stage") == "closed-1"), "closed-1", windows).plot["layout"]
    assert [(shape["x0"], shape["x1"]) for shape in layout["shapes"]] == [(0.0, 5.0), (35.0, 39.0)]


def test_whiskers_of_the_adapter_tax_are_the_intervals_as_shares(summary: Summary) -> None:
    plot = figures.adapter_tax(summary, "closed-1").plot
    bar = next(trace for trace in plot["data"] if trace["name"] == "TPOT")
    one = next(one for one in summary.comparisons if (one.left, one.right, one.metric, one.stage) == ("base", "adapter", "tpot_s", "closed-1"))
    place = bar["x"].index("base → adapter")
    left_mean = one.difference / one.relative
    assert bar["y"][place] + bar["error_y"]["array"][place] == pytest.approx(one.ci95_high / left_mean)
    assert bar["y"][place] - bar["error_y"]["arrayminus"][place] == pytest.approx(one.ci95_low / left_mean)


def test_the_pareto_front_holds_what_no_other_point_beats_in_both() -> None:
    # (1, 0.1) is slower to serve but quicker to answer; (2, 0.3) is beaten by (3, 0.3), which serves more at the same latency; (2, 0.2) stays.
    curve = [(1.0, 0.1), (2.0, 0.3), (3.0, 0.3), (2.0, 0.2), (2.5, 0.9)]
    assert points.pareto_front(curve) == [(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)]
    assert points.pareto_front([]) == []


def test_distributions_are_of_the_requests_that_the_tables_are_of(folder: RunFolder, manifest: Manifest, summary: Summary) -> None:
    """Not of void trials, and of a window that was cut only of the part that is kept."""
    latencies = points.request_latencies(folder, manifest)
    variant, stage = "merged", "closed-4"
    void, cut = [trial for trial in summary.variants[variant].trials if trial.stage == stage]
    void = msgspec.structs.replace(void, audit=Audit(verdict="void", reasons=["x"]))
    cut = msgspec.structs.replace(cut, steady=SteadyState(verdict="steady", sentence="", kept_from_s=2.0, kept_until_s=4.0, cut_s=1.0))
    changed = msgspec.structs.replace(summary, variants={variant: msgspec.structs.replace(summary.variants[variant], trials=[void, cut])})
    kept = points.counted(latencies, changed)
    assert set(kept["repeat"]) == {cut.repeat} and set(kept["stage"]) == {stage} and len(kept)
    since_s = kept["t_s"] - kept["from_s"]
    assert since_s.min() >= 2.0 and since_s.max() < 4.0
