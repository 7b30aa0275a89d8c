"""Result files of other tools. foreign/*.json are what vLLM 0.32 and guidellm 0.8.1 wrote of 20 requests to the truth server, cut to the keys that count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_run import write_run

from perfbench.errors import InputError
from perfbench.report.foreign import foreign_table, read_foreign

FILES = Path(__file__).with_name("foreign")
AIPERF = {
    "schema_version": "1.4",
    "aiperf_version": "0.13.0",
    "input_config": {"phases": {"profiling": [{"concurrency": 4}]}},
    "request_count": {"unit": "requests", "avg": 20.0},
    "request_throughput": {"unit": "requests/sec", "avg": 40.5},
    "output_token_throughput": {"unit": "tokens/sec", "avg": 648.0},
    "time_to_first_token": {"unit": "ms", "avg": 25.0, "p50": 24.0, "p90": 30.0, "p95": 31.0, "p99": 33.0},
    "inter_token_latency": {"unit": "ms", "avg": 5.0, "p50": 5.0, "p90": 5.5, "p95": 5.6, "p99": 6.0},
    "request_latency": {"unit": "ms", "avg": 100.0, "p50": 99.0},
}


def test_vllm_bench() -> None:
    (result,) = read_foreign(FILES / "vllm_0_32.json")
    assert (result.tool, result.load, result.requests_ok, result.requests_failed) == ("vllm bench serve", "concurrency 4", 20, 0)
    assert result.metrics["ttft_s"].p50 == pytest.approx(0.021877122)
    assert result.metrics["tpot_s"].p99 == pytest.approx(0.005042935)
    assert result.output_tokens_per_s == pytest.approx(653.8674)
    assert result.goodput_per_s is None


def test_guidellm() -> None:
    (result,) = read_foreign(FILES / "guidellm_0_8.json")
    assert (result.tool, result.version, result.load) == ("guidellm", "0.8.1", "concurrent, 4 streams")
    assert result.metrics["ttft_s"].p50 == pytest.approx(0.0213632584)
    assert result.metrics["e2e_s"].mean == pytest.approx(0.0974656582), "guidellm gives request_latency in seconds, the others in ms"
    assert result.metrics["tpot_s"].theirs == "inter_token_latency_ms"


def test_guidellm_says_its_goodput_as_a_distribution(tmp_path: Path) -> None:
    content = json.loads((FILES / "guidellm_0_8.json").read_text())
    assert read_foreign(FILES / "guidellm_0_8.json")[0].goodput_per_s is None
    content["benchmarks"][0]["metrics"]["request_goodput"] = {"successful": {"mean": 36.5, "count": 19}}
    path = tmp_path / "with_slo.json"
    path.write_text(json.dumps(content))
    assert read_foreign(path)[0].goodput_per_s == 36.5


def test_aiperf(tmp_path: Path) -> None:
    path = tmp_path / "profile_export_aiperf.json"
    path.write_text(json.dumps(AIPERF))
    (result,) = read_foreign(path)
    assert (result.tool, result.version, result.load, result.requests_ok, result.requests_failed) == ("aiperf", "0.13.0", "concurrency 4", 20, 0)
    assert result.metrics["ttft_s"].p95 == pytest.approx(0.031)
    assert result.metrics["e2e_s"].p95 is None
    assert "icl_s" not in result.metrics


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ('{"a": 1}', "is no result file that perfbench knows"),
        ("[]", "is no result file that perfbench knows"),
        ('{"benchmarks": [{}]}', "looks like a result of guidellm, but its part 'metrics' is missing"),
        ('{"benchmarks": 3}', "looks like a result of guidellm"),
        (json.dumps({**AIPERF, "time_to_first_token": {"unit": "furlongs", "avg": 1}}), "looks like a result of aiperf, but its part 'furlongs'"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_foreign(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_foreign(tmp_path / "missing.json")


def test_the_run_keeps_them_and_an_import_again_replaces(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert folder.foreign() == []
    vllm, guidellm = read_foreign(FILES / "vllm_0_32.json"), read_foreign(FILES / "guidellm_0_8.json")
    folder.add_foreign(vllm)
    folder.add_foreign([*guidellm, *vllm])
    assert folder.foreign() == [*guidellm, *vllm]
    table = foreign_table(folder.foreign())
    assert [row[0].detail for row in table.rows] == ["theirs", "theirs"]
    assert table.rows[0][2].title == "time_to_first_token_ms: f - s"
