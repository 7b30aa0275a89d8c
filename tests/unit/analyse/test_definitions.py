"""Other tools' figures on requests whose times are set by hand, against their formulas by hand."""

from __future__ import annotations

import polars as pl
import pytest

from perfbench.analyse.definitions import DEFINITIONS, GOODPUT, TOOLS, Recomputed, recompute

S = 1_000_000_000


def frame() -> pl.DataFrame:
    """Sent at 0 and 1 s; the first: 4 tokens in chunks at 0.5, 0.7, 1.1 s (the last holds two), response ends 1.2 s; the second: one token after 0.3 s."""
    return pl.DataFrame(
        {
            "scheduled_ns": [0, 1 * S], "sent_ns": [0, 1 * S], "first_token_ns": [S // 2, round(1.3 * S)], "last_token_ns": [round(1.1 * S), round(1.3 * S)],
            "end_ns": [round(1.2 * S), round(1.3 * S)], "output_tokens": [4, 1], "prompt_tokens": [5, 5],
            "chunk_ns": [[S // 2, round(0.7 * S), round(1.1 * S)], [round(1.3 * S)]],
        }
    )  # fmt: skip


def found(tool: str, **limits_s: float) -> dict[str, Recomputed]:
    return {row.name: row for row in recompute(tool, "adapter", "one", [frame()], limits_s)}


@pytest.mark.parametrize(
    ("tool", "name", "mean"),
    [
        ("vllm", "TTFT", (0.5 + 0.3) / 2),
        ("vllm", "TPOT", 0.6 / 3),
        ("vllm", "ITL", (0.2 + 0.4) / 2),
        ("vllm", "E2EL", (1.1 + 0.3) / 2),
        ("guidellm", "ITL", 0.6 / 3),
        ("guidellm", "TPOT", (1.1 + 0.3) / 5),
        ("guidellm", "request latency", (1.2 + 0.3) / 2),
        ("aiperf", "ITL", 0.6 / 3),
        ("aiperf", "ICL", (0.2 + 0.4) / 2),
        ("inference-perf", "TTFT", 0.5),
        ("inference-perf", "ITL", (0.2 + 0.4 + 0.0) / 3),
        ("inference-perf", "NTPOT", (1.2 / 4 + 0.3) / 2),
    ],
)
def test_formulas(tool: str, name: str, mean: float) -> None:
    assert found(tool)[name].theirs["mean"] == pytest.approx(mean)


def test_ours_stand_beside_them() -> None:
    row = found("guidellm")["TPOT"]
    assert row.ours == "ntpot_s"
    assert row.our_values["mean"] == pytest.approx((1.1 / 4 + 0.3) / 2)
    assert found("vllm")["ITL"].our_values["mean"] == pytest.approx(0.3)


def test_goodput_and_the_answer_of_one_token() -> None:
    """Both keep TTFT; the second has no time per token: vLLM passes it, no other does, and to inference-perf it has no TTFT. Whole time: 0 to 1.3 s."""
    limits = {"ttft_s": 0.6, "tpot_s": 0.25}
    assert found("vllm", **limits)["goodput"].theirs["mean"] == pytest.approx(2 / 1.3)
    assert found("aiperf", **limits)["goodput"].theirs["mean"] == pytest.approx(1 / 1.3)
    assert found("guidellm", **limits)["goodput"].theirs["mean"] == pytest.approx(1 / 1.3)
    assert found("inference-perf", **limits)["goodput"].theirs["mean"] == pytest.approx(1 / 1.3)
    assert found("guidellm", ttft_s=0.6)["goodput"].theirs["mean"] == pytest.approx(2 / 1.3)
    assert found("inference-perf", ttft_s=0.6)["goodput"].theirs["mean"] == pytest.approx(1 / 1.3)
    assert "goodput" not in found("vllm")


def test_time_between_repeats_is_nobodys_goodput() -> None:
    """Two repeats a minute apart: the rate is that of one, not a share of the minute in which other trials ran."""
    times = [name for name in frame().columns if name.endswith("_ns") and name != "chunk_ns"]
    later = frame().with_columns(pl.col(name) + 60 * S for name in times)
    rows = {row.name: row for row in recompute("vllm", "adapter", "one", [frame(), later], {"ttft_s": 0.6}, goodput_per_s=1.5)}
    assert rows["goodput"].theirs["mean"] == pytest.approx(2 / 1.3)
    assert rows["goodput"].our_values["mean"] == 1.5


def test_each_tool_holds_its_own_latency_against_a_limit_and_says_what_it_has_no_limit_for() -> None:
    """The first response ends with its usage at 1.2 s, its content at 1.1 s: guidellm and inference-perf count the former."""
    good = {tool: found(tool, e2e_s=1.15)["goodput"].theirs["mean"] for tool in TOOLS}
    assert good == pytest.approx({"vllm": 2 / 1.3, "aiperf": 2 / 1.3, "guidellm": 1 / 1.3, "inference-perf": 1 / 1.3})
    row = found("vllm", ttft_s=0.6, ttft_scheduled_s=0.1)["goodput"]
    assert row.note == "goodput by ttft_s <= 0.6 s; vllm has no limit on ttft_scheduled_s"
    assert found("inference-perf", ntpot_s=0.31)["goodput"].theirs["mean"] == pytest.approx(2 / 1.3)


def test_a_goodput_by_tokens_that_nobody_counted_is_not_told() -> None:
    without = frame().with_columns(output_tokens=pl.lit(None, pl.Int64))
    for tool, limits in (("vllm", {"tpot_s": 1.0}), ("inference-perf", {"ttft_s": 1.0}), ("aiperf", {"tpot_s": 1.0})):
        (row,) = (one for one in recompute(tool, "adapter", "one", [without], limits) if one.name == "goodput")
        assert row.theirs["mean"] is None
    (row,) = (one for one in recompute("vllm", "adapter", "one", [without], {"ttft_s": 1.0}) if one.name == "goodput")
    assert row.theirs["mean"] == pytest.approx(2 / 1.3)


def test_guidellm_weighs_a_request_by_its_tokens() -> None:
    """Its own result file says so: of 20 answers of 16 tokens, ITL counts 300 and TPOT 320."""
    assert (found("guidellm")["ITL"].n, found("guidellm")["TPOT"].n) == (3, 5)


def test_every_tool_is_told_whole() -> None:
    assert {one.tool for one in DEFINITIONS} == set(TOOLS) == set(GOODPUT)
    assert all(one.formula and one.ours for one in DEFINITIONS)
    assert any("role" in one.differs for one in DEFINITIONS if one.tool == "vllm")


@pytest.mark.parametrize("tool", TOOLS)
def test_nothing_of_nothing(tool: str) -> None:
    rows = recompute(tool, "adapter", "one", [frame().clear()], {"ttft_s": 1.0})
    assert all(value is None for row in rows for value in row.theirs.values())
