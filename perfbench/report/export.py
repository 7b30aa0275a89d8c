"""A run in the forms that other tools read: records as CSV or Parquet, figures as OpenMetrics text, over OTLP, to MLflow or to Weights & Biases.

Figures come from `open_metrics.points`, so that every tool gets the same numbers under the same names. What needs a package that is not installed says
which; nothing is sent anywhere unless it was asked for by name.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perfbench.errors import InputError, MissingPartError
from perfbench.records import Manifest, Summary
from perfbench.report.open_metrics import Point, points, render_open_metrics
from perfbench.results import RunFolder

if TYPE_CHECKING:
    import polars as pl

Form = Literal["csv", "parquet", "openmetrics", "otlp", "mlflow", "wandb"]
FORMS: tuple[Form, ...] = ("csv", "parquet", "openmetrics", "otlp", "mlflow", "wandb")


def export(folder: RunFolder, form: Form, out: Path | None) -> str:
    """Write or send a run; returns where it went, in words. `out` is the file or folder to write; its default lies in the run folder.

    Raises InputError for a file that cannot be written or a receiver that does not answer, MissingPartError for a package that is not installed.
    """
    summary, manifest = folder.summary(), folder.manifest()
    if form in ("csv", "parquet"):
        return str(_write_table(folder, form, out))
    if form == "openmetrics":
        return str(_write(out or folder.path / "metrics.prom", render_open_metrics(summary, manifest)))
    if out is not None:
        raise InputError(f"--out: {form} sends the run to a server and writes no file; leave --out away")
    send = {"otlp": _send_otlp, "mlflow": _log_mlflow, "wandb": _log_wandb}[form]
    return send(folder, summary, manifest)


def _write_table(folder: RunFolder, form: str, out: Path | None) -> Path:
    """Records, one row a request, with the metrics of the table beside the stamps; as CSV, lists become text."""
    import polars as pl

    from perfbench.analyse.metrics import per_request_columns

    path = out or folder.path / f"requests.{form}"
    rows: pl.LazyFrame = folder.records()
    kept = rows.collect_schema()
    rows = rows.with_columns(column for column in per_request_columns() if column.meta.output_name() not in kept)
    try:
        if form == "parquet":
            rows.sink_parquet(path)
        else:
            lists = [name for name, kind in rows.collect_schema().items() if isinstance(kind, pl.List)]
            rows.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in lists).sink_csv(path)
    except OSError as error:
        raise InputError(f"--out: {path} cannot be written: {error.strerror or error}") from None
    return path


def _write(path: Path, text: str) -> Path:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out: {path} cannot be written: {error.strerror}") from None
    return path


def _send_otlp(folder: RunFolder, summary: Summary, manifest: Manifest) -> str:
    """One gauge a metric to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names (OTLP over HTTP), stamped with the run's own time."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        raise InputError("otlp: OTEL_EXPORTER_OTLP_ENDPOINT is not set; expected the collector's address, as in http://127.0.0.1:4318")
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import (
            Gauge,
            Metric,
            MetricExportResult,
            MetricsData,
            NumberDataPoint,
            ResourceMetrics,
            ScopeMetrics,
        )
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    except ImportError:
        raise MissingPartError("otlp: OpenTelemetry's exporter is not installed", hint="pip install 'perfbench[otlp]'") from None
    time_ns = round(datetime.fromisoformat(manifest.started_utc).timestamp() * 1e9)
    families: dict[str, list[Point]] = {}
    for point in points(summary):
        families.setdefault(point.name, []).append(point)
    metrics = [
        Metric(
            name=f"perfbench.{name}", description="", unit="",
            data=Gauge([NumberDataPoint(attributes=one.labels, start_time_unix_nano=time_ns, time_unix_nano=time_ns, value=one.value) for one in family]),
        )
        for name, family in families.items()
    ]  # fmt: skip
    resource = Resource({"service.name": "perfbench", "perfbench.run_id": summary.run_id, "perfbench.scenario": summary.scenario})
    scope = ScopeMetrics(scope=InstrumentationScope("perfbench", manifest.perfbench_version), metrics=metrics, schema_url="")
    exporter = OTLPMetricExporter(timeout=10)
    try:
        result = exporter.export(MetricsData(resource_metrics=[ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")]))
    finally:
        exporter.shutdown()
    if result is not MetricExportResult.SUCCESS:
        raise InputError(f"otlp: the collector at {endpoint} did not take the metrics; check that it runs and speaks OTLP over HTTP")
    return endpoint


def _log_mlflow(folder: RunFolder, summary: Summary, manifest: Manifest) -> str:
    """One MLflow run: scenario and versions as parameters, figures as metrics, reports as artifacts."""
    try:
        import mlflow
    except ImportError:
        raise MissingPartError("mlflow: the package mlflow is not installed", hint="pip install mlflow") from None
    mlflow.set_experiment(summary.scenario)
    with mlflow.start_run(run_name=summary.run_id) as logged:
        mlflow.log_params(_parameters(summary, manifest))
        mlflow.log_metrics({_flat_name(point): point.value for point in points(summary)})
        for name in ("summary.json", "manifest.json", "report.md", "report.html", "model_card.md"):
            if (folder.path / name).is_file():
                mlflow.log_artifact(str(folder.path / name))
        return f"MLflow run {logged.info.run_id} at {mlflow.get_tracking_uri()}"


def _log_wandb(folder: RunFolder, summary: Summary, manifest: Manifest) -> str:
    """One W&B run; WANDB_MODE=offline keeps it on this machine."""
    try:
        import wandb
    except ImportError:
        raise MissingPartError("wandb: the package wandb is not installed", hint="pip install wandb") from None
    run: Any = wandb.init(project=f"perfbench-{summary.scenario}", name=summary.run_id, config=_parameters(summary, manifest))
    try:
        run.summary.update({_flat_name(point): point.value for point in points(summary)})
        artifact = wandb.Artifact(summary.run_id, type="perfbench-run")
        for name in ("summary.json", "manifest.json", "report.md", "report.html"):
            if (folder.path / name).is_file():
                artifact.add_file(str(folder.path / name))
        run.log_artifact(artifact)
    finally:
        run.finish()
    return str(run.url or run.dir)


def _parameters(summary: Summary, manifest: Manifest) -> dict[str, str]:
    versions = {f"version.{name}": value for name, value in manifest.versions.items()}
    hashes = {f"sha256.{name}": value for name, value in manifest.hashes.items()}
    facts = {"run_id": summary.run_id, "scenario": summary.scenario, "serve": summary.recommendation.serve or "cannot say", "valid": str(summary.valid)}
    return {**facts, **versions, **hashes}


def _flat_name(point: Point) -> str:
    """`merged/closed/r0/ttft_s.p95`: trackers have names, not labels. `+` is not allowed in MLflow's."""
    labels = point.labels
    parts = [labels["variant"], labels.get("stage"), f"r{labels['repeat']}" if "repeat" in labels else None, point.name]
    name = "/".join(part for part in parts if part) + "".join(f".{labels[key]}" for key in ("stat", "outcome") if key in labels)
    return name.replace("+", "_")
