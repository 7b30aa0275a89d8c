"""The model card: read back by the Hub's own reader, and safe with hostile text."""

from __future__ import annotations

import msgspec
import pytest
from huggingface_hub import ModelCard
from report_run import write_run

from perfbench.errors import InputError
from perfbench.report.model_card import publish, render_model_card
from perfbench.results import RunFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("card"))


def test_the_hub_reads_the_results_that_the_summary_holds(folder: RunFolder) -> None:
    summary, manifest = folder.summary(), folder.manifest()
    card = ModelCard(render_model_card(summary, manifest))
    read = {(result.metric_args["variant"], result.metric_type): result for result in card.data.eval_results}
    wanted = {
        (name, metric): estimate.value
        for name in ("adapter", "merged")
        if (quality := summary.variants[name].quality) is not None
        for metric, estimate in quality.metrics.items()
        if estimate.value is not None
    }
    assert wanted
    assert {key: result.metric_value for key, result in read.items()} == pytest.approx(wanted, abs=1e-6)
    assert all(result.verified is None for result in read.values())
    assert all(result.metric_args["n"] > 0 for result in read.values())


def test_every_metric_that_decides_is_named_with_its_margin(folder: RunFolder) -> None:
    manifest = folder.manifest()
    gates = [{"metric": "accuracy", "margin": None}, {"metric": "macro_f1", "margin": 0.2}]
    quality = {**manifest.scenario["quality"], "metric": None, "metrics": gates, "margin": 0.1}
    several = msgspec.structs.replace(manifest, scenario={**manifest.scenario, "quality": quality})
    assert "| Metric | accuracy, margin 0.1; macro\\_f1, margin 0.2 |" in render_model_card(folder.summary(), several)


def test_every_line_of_the_record_is_there(folder: RunFolder) -> None:
    text = render_model_card(folder.summary(), folder.manifest())
    for line in (
        "Base model", "Fine-tune", "Tuning", "Data set and split", "Held-out rows excluded from training", "Prompt template", "Chat template", "Decoding",
        "Metric", "Tool and version", "Hardware and backend", "Samples", "## Limitations",
    ):  # fmt: skip
        assert line in text


def test_local_paths_do_not_leave_the_machine(folder: RunFolder) -> None:
    manifest = folder.manifest()
    base = {"path": "/home/somebody/secret/base", "hub": None, "revision": None}
    scenario = {**manifest.scenario, "models": {**manifest.scenario.get("models", {}), "base": base}}
    text = render_model_card(folder.summary(), msgspec.structs.replace(manifest, scenario=scenario))
    assert "somebody" not in text


def test_without_a_quality_check_there_is_nothing_to_publish(folder: RunFolder) -> None:
    summary, manifest = folder.summary(), folder.manifest()
    bare = {name: msgspec.structs.replace(variant, quality=None) for name, variant in summary.variants.items()}
    scenario = {key: value for key, value in manifest.scenario.items() if key != "quality"}
    text = render_model_card(msgspec.structs.replace(summary, variants=bare), msgspec.structs.replace(manifest, scenario=scenario))
    assert ModelCard(text).data.eval_results is None
    assert "there is no result to publish" in text


def test_publishing_without_a_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"--publish me/model: the Hub did not take the card: "):
        publish("---\nlibrary_name: peft\n---\n# Card\n", "me/model")
