"""Exports: read back by the readers that others would use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import polars as pl
import pytest
from report_run import write_run

from perfbench.errors import InputError, MissingPartError
from perfbench.records import Audit
from perfbench.report.export import export
from perfbench.report.open_metrics import points, render_open_metrics
from perfbench.results import RunFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("export"))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_records_come_out_with_their_metrics(folder: RunFolder, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"out.{form}"
    assert export(folder, form, path) == str(path)  # type: ignore[arg-type]
    rows = pl.read_csv(path, infer_schema_length=None) if form == "csv" else pl.read_parquet(path)
    records = folder.records().collect()
    assert len(rows) == len(records)
    answered = rows.filter(pl.col("status") == "ok")
    assert answered["ttft_s"].to_list() == pytest.approx(((answered["first_token_ns"] - answered["sent_ns"]) / 1e9).to_list())
    assert rows["prompt_tokens"].dtype.is_integer(), "record columns stay as they are"
    gaps = rows["chunk_ns"].str.split(" ").list.len().to_list() if form == "csv" else rows["chunk_ns"].list.len().to_list()
    assert max(gaps) == records["chunk_ns"].list.len().max()


def test_a_folder_that_cannot_be_written_is_named(folder: RunFolder, tmp_path: Path) -> None:
    for form in ("csv", "openmetrics"):
        with pytest.raises(InputError, match="cannot be written"):
            export(folder, form, tmp_path / "missing" / "out")  # type: ignore[arg-type]


def test_open_metrics_is_read_by_prometheus_own_parser(folder: RunFolder) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    summary = folder.summary()
    families = list(parser.text_string_to_metric_families(render_open_metrics(summary, folder.manifest())))
    read = {(family.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}
    common = {"run_id": summary.run_id, "scenario": summary.scenario}
    assert read == {(f"perfbench_{one.name}", tuple(sorted((common | one.labels).items()))): one.value for one in points(summary)}
    assert len(read) > 100


def test_void_trials_and_what_was_not_measured_have_no_point(folder: RunFolder) -> None:
    summary = folder.summary()
    merged = summary.variants["merged"]
    first, *others = merged.trials
    void = msgspec.structs.replace(first, audit=Audit(verdict="void", reasons=["the client was measured"]))
    changed = msgspec.structs.replace(merged, trials=[void, *others], memory=msgspec.structs.replace(merged.memory, vram_bytes_peak=None))
    told = list(points(msgspec.structs.replace(summary, variants={"merged": changed})))
    assert {(one.labels.get("stage"), one.labels.get("repeat")) for one in told if "stage" in one.labels} == {
        (trial.stage, str(trial.repeat)) for trial in others
    }
    assert not any(one.name == "vram_bytes_peak" for one in told)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    taken: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    thread.join()
    server.server_close()


def test_otlp_reaches_a_collector(folder: RunFolder, collector: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    url, taken = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    assert export(folder, "otlp", None) == url
    request = service.ExportMetricsServiceRequest.FromString(taken[0])
    (resource,) = request.resource_metrics
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes}["perfbench.run_id"] == folder.summary().run_id
    sent = {
        (metric.name, tuple(sorted((pair.key, pair.value.string_value) for pair in point.attributes))): point.as_double
        for metric in resource.scope_metrics[0].metrics
        for point in metric.gauge.data_points
    }
    assert sent == {(f"perfbench.{one.name}", tuple(sorted(one.labels.items()))): one.value for one in points(folder.summary())}


def test_otlp_without_a_collector_says_so(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with pytest.raises(InputError, match="OTEL_EXPORTER_OTLP_ENDPOINT is not set"):
        export(folder, "otlp", None)
    with pytest.raises(InputError, match="writes no file"):
        export(folder, "otlp", Path("x"))


def test_mlflow_gets_figures_and_reports(folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    try:
        import mlflow
    except ImportError:
        with pytest.raises(MissingPartError, match="mlflow is not installed"):
            export(folder, "mlflow", None)
        return
    export(folder, "mlflow", None)
    (run,) = mlflow.search_runs(experiment_names=[folder.summary().scenario], output_format="list")
    assert run.data.params["run_id"] == folder.summary().run_id
    assert len(run.data.metrics) == len(list(points(folder.summary())))


def test_wandb_missing_says_so(folder: RunFolder) -> None:
    try:
        import wandb  # noqa: F401
    except ImportError:
        with pytest.raises(MissingPartError, match="wandb is not installed"):
            export(folder, "wandb", None)
