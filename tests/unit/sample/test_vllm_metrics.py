from __future__ import annotations

import http.server
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.sample.spec import SampleTarget
from perfbench.sample.vllm_metrics import WANTED, Line, MetricsScraper, parse_metrics, readings

MEASURED = Path(__file__).with_name("vllm_0_32_metrics.txt").read_text()


def test_a_real_servers_text_gives_its_values() -> None:
    assert readings(parse_metrics(MEASURED)) == {
        "num_requests_running": (3.0, "requests"),
        "num_requests_waiting": (0.0, "requests"),
        "kv_cache_usage_perc": (0.016574585635359074, "share"),
        "prefix_cache_queries": (99.0, "tokens"),
        "prefix_cache_hits": (0.0, "tokens"),
        "num_preemptions": (0.0, "preemptions"),
        "prompt_tokens": (99.0, "tokens"),
        "generation_tokens": (28.0, "tokens"),
        "kv_cache_tokens": (23296, "tokens"),
        "kv_block_size_tokens": (128, "tokens"),
    }


def test_a_real_servers_text_reads_as_the_reference_parser_reads_it() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    theirs = [
        Line(sample.name, dict(sample.labels), sample.value)
        for family in parser.text_string_to_metric_families(MEASURED)
        for sample in family.samples
    ]
    everything = frozenset(line.name for line in theirs)
    ours = list(parse_metrics(MEASURED, everything))
    assert sorted(ours, key=repr) == sorted(theirs, key=repr)
    assert len(ours) > 60


@given(
    labels=st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), st.text(max_size=20), max_size=4),
    value=st.floats(allow_nan=False),
)
def test_every_label_and_value_that_prometheus_writes_comes_back(labels: dict[str, str], value: float) -> None:
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    gauge = client.Gauge("vllm:num_requests_running", 'some text {with="braces"} 5', list(labels), registry=registry)
    (gauge.labels(**labels) if labels else gauge).set(value)
    text = client.generate_latest(registry).decode()
    assert list(parse_metrics(text)) == [Line("vllm:num_requests_running", labels, value)]


def test_names_of_older_versions_are_known_and_the_newer_one_wins() -> None:
    old = readings(parse_metrics('vllm:gpu_cache_usage_perc{model_name="m"} 0.5\nvllm:gpu_prefix_cache_hits 7\nvllm:gpu_prefix_cache_queries_total 9\n'))
    assert {name: value for name, (value, _) in old.items()} == {"kv_cache_usage_perc": 0.5, "prefix_cache_hits": 7, "prefix_cache_queries": 9}
    both = readings(parse_metrics("vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.25\n"))
    assert both["kv_cache_usage_perc"] == (0.25, "share")


def test_engines_of_a_data_parallel_server_add_up_and_shares_are_averaged() -> None:
    text = "".join(
        f'vllm:num_requests_running{{engine="{engine}"}} {2 + engine}\nvllm:kv_cache_usage_perc{{engine="{engine}"}} {0.25 + engine / 2}\n'
        f'vllm:cache_config_info{{block_size="16",engine="{engine}",num_gpu_blocks="1000"}} 1.0\n'
        for engine in (0, 1)
    )
    found = {name: value for name, (value, _) in readings(parse_metrics(text)).items()}
    assert found == {"num_requests_running": 5, "kv_cache_usage_perc": 0.5, "kv_cache_tokens": 32000, "kv_block_size_tokens": 16}


def test_a_capacity_the_server_does_not_know_is_absent() -> None:
    text = 'vllm:cache_config_info{block_size="None",num_gpu_blocks="None"} 1.0\nvllm:kv_cache_usage_perc NaN\n'
    assert readings(parse_metrics(text)) == {}


def test_a_near_name_is_not_taken_for_a_wanted_one() -> None:
    text = 'vllm:prompt_tokens_created 5\nvllm:prompt_tokens_by_source_total{source="x"} 6\nvllm:iteration_tokens_total_sum 7\n#vllm:prompt_tokens 8\n'
    assert readings(parse_metrics(text)) == {}


@pytest.mark.parametrize(
    "line",
    ["vllm:num_requests_running", "vllm:num_requests_running{a=\"b\" 1", "vllm:num_requests_running{a=b} 1", "vllm:num_requests_running one",
     "vllm:num_requests_running 1 2 3"],
)  # fmt: skip
def test_a_wanted_line_that_is_malformed_is_an_error_never_a_number(line: str) -> None:
    with pytest.raises(ValueError, match=r"metrics l|could not convert"):
        list(parse_metrics(line))


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    try:
        found = list(parse_metrics(text))
    except ValueError:
        return
    assert all(line.name in WANTED and (math.isnan(line.value) or isinstance(line.value, float)) for line in found)


class Exporter(http.server.ThreadingHTTPServer):
    """A `/metrics` endpoint that can refuse, stall, hang up, and counts its connections."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.body, self.status, self.hang_up = MEASURED, 200, False
        self.connections = 0
        self.seen_keys: list[str | None] = []
        self.stall = threading.Event()
        self.stall.set()

    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/metrics"


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Exporter

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()

    def do_GET(self) -> None:
        self.server.seen_keys.append(self.headers.get("Authorization"))
        self.server.stall.wait(10)
        body = self.server.body.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if self.server.hang_up:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    server = Exporter()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stall.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def scraper(exporter: Exporter) -> Iterator[MetricsScraper]:
    made = MetricsScraper(SampleTarget(server="base", root_pid=None, metrics_url=exporter.url(), variants=["base", "base+lora"]), timeout_s=0.5)
    yield made
    made.close()


def test_one_connection_serves_all_readings_and_the_capacity_is_told_once(exporter: Exporter, scraper: MetricsScraper) -> None:
    first, second = scraper.read(), scraper.read()
    assert exporter.connections == 1
    assert {sample.name for sample in first} - {sample.name for sample in second} == {"kv_cache_tokens", "kv_block_size_tokens"}
    assert all(sample.source == "server" and sample.labels == {"server": "base", "variants": "base,base+lora"} for sample in first + second)
    assert len({sample.t_ns for sample in first}) == 1
    exporter.body = MEASURED.replace('kv_cache_size_tokens="23296"', 'kv_cache_size_tokens="11648"')
    assert {sample.name: sample.value for sample in scraper.read()}["kv_cache_tokens"] == 11648


def test_a_connection_that_the_server_closed_in_between_is_no_failure(exporter: Exporter, scraper: MetricsScraper) -> None:
    exporter.hang_up = True
    assert len([scraper.read() for _ in range(3)]) == 3
    assert exporter.connections == 3


def test_a_stalled_server_costs_one_reading_and_the_next_one_is_fresh(exporter: Exporter, scraper: MetricsScraper) -> None:
    exporter.stall.clear()
    with pytest.raises(TimeoutError):
        scraper.read()
    exporter.stall.set()
    exporter.body = "vllm:num_requests_running 8\n"
    assert [sample.value for sample in scraper.read()] == [8.0]


def test_refusals_and_other_servers_are_named(exporter: Exporter, scraper: MetricsScraper) -> None:
    exporter.status = 401
    with pytest.raises(ValueError, match="status 401"):
        scraper.read()
    exporter.status, exporter.body = 200, "sglang:num_running_reqs 3\n"
    with pytest.raises(ValueError, match="names no vLLM metric"):
        scraper.read()


def test_the_key_comes_from_the_environment_variable(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sesame")
    scraper = MetricsScraper(SampleTarget(server="e", root_pid=None, metrics_url=exporter.url(), api_key_env="SOME_KEY"), timeout_s=0.5)
    scraper.read()
    scraper.close()
    assert exporter.seen_keys == ["Bearer sesame"]


def test_proxies_are_never_asked(exporter: Exporter, scraper: MetricsScraper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert scraper.read()
