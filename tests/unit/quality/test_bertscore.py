"""BERTScore against the package bert-score, and the way from a scenario's encoder to a report.

The oracle's figures: bert-score 0.3.13 with transformers 4.57.6 and torch 2.13 in an environment of its own, on the folders that `tiny_encoder` makes
(numpy fills their weights, so they are the same for every version of transformers):

    bert_score.score(OUTPUTS, REFERENCES, model_type=FOLDER, num_layers=LAYER, idf=IDF, device="cpu", nthreads=0)[2]
    bert_score.score(OUTPUTS, REFERENCES, model_type=FOLDER, num_layers=2, rescale_with_baseline=True, baseline_path=FILE, lang="en", device="cpu")[2]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from answering_server import AnsweringServer, chat
from tiny_encoder import LAYERS, make_bert, make_roberta

pytest.importorskip("torch")
pytest.importorskip("transformers")

from perfbench.errors import MissingPartError, ScenarioError
from perfbench.quality import bertscore, bertscore_model, model_scores
from perfbench.quality.bertscore_model import compute
from perfbench.quality.own_process import OwnProcessError
from perfbench.records import QualityRecord
from perfbench.report.progress import RunProgress
from perfbench.rescore import rescore
from perfbench.run import run_scenario
from perfbench.scenario import load_scenario
from perfbench.scenario.quality import BertScore, Summarisation

OUTPUTS = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him.", "", "a zebra"]
REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."], ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."], ["The cat sat on the mat."],
    ["no dog, a cat " + "and it sat " * 30],  # longer than the encoder reads
]  # fmt: skip
ORACLE = {
    ("bert", 1, False): [1.0, 0.844647, 0.934219, 0.0, 0.742038],
    ("bert", 1, True): [1.0, 0.828758, 0.921552, 0.0, 0.745115],
    ("bert", 3, False): [1.0, 0.969957, 0.987243, 0.0, 0.931156],
    ("bert", 3, True): [1.0, 0.970144, 0.986761, 0.0, 0.93107],
    ("roberta", 1, False): [1.0, 0.83953, 0.896498, 0.0, 0.814569],
    ("roberta", 1, True): [1.0, 0.863173, 0.902851, 0.0, 0.834931],
    ("roberta", 3, False): [1.0, 0.977726, 0.991943, 0.0, 0.950115],
    ("roberta", 3, True): [1.0, 0.977934, 0.992014, 0.0, 0.949441],
}
BASELINE = "LAYER,P,R,F\n0,0.1,0.1,0.1\n1,0.2,0.2,0.21\n2,0.3,0.3,0.31\n3,0.4,0.4,0.41\n"
RESCALED = [1.0, 0.948941, 0.973158, -0.449275, 0.8976]
PAIRS = [bertscore.Pair(output, references) for output, references in zip(OUTPUTS, REFERENCES, strict=True)]
DOCUMENTS = [text for references in REFERENCES for text in references]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    (folder / "baseline.tsv").write_text(BASELINE)
    return {"bert": make_bert(folder / "bert"), "roberta": make_roberta(folder / "roberta"), "baseline": folder / "baseline.tsv"}


@pytest.mark.parametrize(("name", "layer", "idf"), ORACLE)
def test_it_is_bert_score(encoders: dict[str, Path], name: str, layer: int, idf: bool) -> None:
    asked = [pair for pair in PAIRS if pair.output]
    found = compute(bertscore.Spec(path=str(encoders[name]), layer=layer, pairs=asked, documents=DOCUMENTS if idf else None))
    assert found.scores == pytest.approx([value for value, pair in zip(ORACLE[name, layer, idf], PAIRS, strict=True) if pair.output], abs=2e-6)


def test_in_a_process_of_its_own_rescaled_and_never_below_0(encoders: dict[str, Path]) -> None:
    settings = BertScore.model_construct(path=str(encoders["roberta"]), layer=2, idf=False, baseline=str(encoders["baseline"]))
    scores, told = bertscore.score(settings, PAIRS, DOCUMENTS)
    assert scores == pytest.approx([max(value, 0.0) for value in RESCALED], abs=4e-6)
    assert told.startswith(f"{encoders['roberta']}, sha256 ")
    assert ", layer 2, no idf, rescaled by 0.31 (baseline.tsv), transformers " in told


def test_weights_that_are_not_all_there_are_no_encoder(encoders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in encoders["bert"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layer.0.output.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks the weights encoder\.layer\.0\.output\.dense\.weight"):
        compute(bertscore.Spec(path=str(tmp_path), layer=1, pairs=PAIRS[:1]))


def wrong(folder: Path, **given: Any) -> str:
    with pytest.raises(ScenarioError) as error:
        model_scores.check_models(Summarisation.model_construct(bertscore=BertScore.model_construct(**{"path": str(folder), "baseline": None, **given})))
    return str(error.value)


def test_what_is_wrong_is_said_before_anything_starts(encoders: dict[str, Path], tmp_path: Path) -> None:
    assert f"quality.task.bertscore.layer: {encoders['bert']} has {LAYERS} layers; expected 1 to {LAYERS}, got 9" in wrong(encoders["bert"], layer=9)
    assert "config.json is missing or cannot be read; expected a Hugging Face model folder" in wrong(tmp_path, layer=1)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 2}))
    assert "quality.task.bertscore.path: " in wrong(tmp_path, layer=1)
    assert "holds a model of type `llama`; expected an encoder, one of albert, bert," in wrong(tmp_path, layer=1)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 2}))
    assert "has a config and no weights" in wrong(tmp_path, layer=1)
    (tmp_path / "model.safetensors").write_bytes((encoders["bert"] / "model.safetensors").read_bytes())
    assert "has no tokenizer, expected one of tokenizer.json, vocab.txt" in wrong(tmp_path, layer=1)
    baseline = tmp_path / "b.tsv"
    for text, told in (
        ("LAYER,P,R,F\n2,0.3,0.3,0.3\n", "has no row for layer 1; expected the columns LAYER, P, R, F"),
        ("LAYER,P,R\n1,0.3,0.3\n", "cannot be read"),
        ("LAYER,P,R,F\n1,0.3,0.3,x\n", "cannot be read"),
        ("LAYER,P,R,F\n1,0.3,0.3,1.5\n", "has F 1.5 for layer 1; expected at least 0 and below 1"),
        ("\xff", "has no row for layer 1"),
    ):
        baseline.write_text(text)
        assert told in wrong(encoders["bert"], layer=1, baseline=str(baseline))


def test_without_transformers_it_is_said_what_to_install(encoders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bertscore, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match="needs torch and transformers, which is not installed"):
        list(bertscore.findings(BertScore.model_construct(path=str(encoders["bert"]), layer=1, baseline=None), "quality.task.bertscore"))


def test_the_client_imports_no_torch() -> None:
    told = "import sys, perfbench.run, perfbench.rescore; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def record(variant: str, output: str | None, *, must_refuse: bool = False) -> QualityRecord:
    return QualityRecord(
        sample_id="1", variant=variant, prompt="", prompt_sha256="", expected='["a", "b"]', output=output, scores={"rouge1": 1.0}, passed=True, label="",
        must_refuse=must_refuse,
    )  # fmt: skip


def test_a_model_that_fails_leaves_its_metric_unrun_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> Any:
        raise OwnProcessError("was killed, most likely for its memory")

    monkeypatch.setattr(bertscore, "score", fails)
    task = Summarisation.model_construct(bertscore=BertScore.model_construct(path="x", layer=1))
    records = {"base": [record("base", "a")]}
    assert model_scores.with_model_scores(task, records, {})[0] == records
    assert model_scores.with_model_scores(task, records, {})[1]["bertscore"].problem == "the process that computes it was killed, most likely for its memory"


def test_every_answer_that_can_be_right_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(bertscore, "score", lambda settings, pairs, documents: given.append((pairs, documents)) or ([0.25, 0.5], "told"))
    task = Summarisation.model_construct(bertscore=BertScore.model_construct(path="x", layer=1))
    records = {"base": [record("base", None), record("base", "no", must_refuse=True)], "adapter": [record("adapter", "c")], "merged": []}
    found, how = model_scores.with_model_scores(task, records, {})
    assert given == [([bertscore.Pair("", ["a", "b"]), bertscore.Pair("c", ["a", "b"])], ["a", "b"])]
    assert [one.scores for part in found.values() for one in part] == [{"rouge1": 1, "bertscore": 0.25}, {"rouge1": 1}, {"rouge1": 1, "bertscore": 0.5}]
    assert [*found] == [*records]
    assert how["bertscore"].signature == "told"


def scenario_file(folder: Path, url: str, encoder: str, metrics: str) -> Path:
    rows = [{"id": f"q{n}", "prompt": f"Sum up {n}", "want": "the dog bit the man"} for n in range(4)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "sums.yaml"
    file.write_text(
        f"""
name: sums
endpoints: {{base: {{url: "{url}", model: base}}, adapter: {{url: "{url}", model: adapter}}}}
load:
  data: rows.jsonl
  stages: [{{name: one, arrival: closed, concurrency: 1, warmup_s: 0, duration_s: 0.3, drain_s: 2, output: {{max_tokens: 8}}}}]
quality:
  data: rows.jsonl
  task: {{task: summarisation, expected: want, max_words: 9, bertscore: {encoder}}}
  {metrics}
  margin: 0.2
  max_tokens: 8
"""
    )
    return file


def test_from_an_encoder_to_a_report(encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bertscore, "answer_of", lambda command, given, timeout_s: bertscore_model._work(given))  # a process takes seconds to import torch
    said = {"base": "the dog bit the man", "adapter": "zebra"}
    with AnsweringServer(lambda body: chat(said[body["model"]]), ("base", "adapter")) as server:
        file = scenario_file(tmp_path, server.url, f"{{path: '{encoders['bert']}', layer: 1}}", "metric: bertscore")
        run = run_scenario(load_scenario(file), scenario_file=file, parent=tmp_path / "results", quiet=True, measure_floor=False)
    base, adapter = (run.summary().variants[name].quality for name in said)
    assert base is not None
    assert adapter is not None
    assert base.metrics["bertscore"].value == pytest.approx(1.0, abs=1e-6)
    assert adapter.metrics["bertscore"].value is not None
    assert adapter.metrics["bertscore"].value < 0.8
    assert adapter.gates[0].metric == "bertscore"
    assert "a weak metric decides alone: bertscore measures how alike" in adapter.warnings[0]
    assert adapter.signatures["bertscore"].startswith(f"{encoders['bert']}, sha256 ")
    for name in ("report.html", "report.md", "model_card.md"):
        assert "layer 1, no idf, not rescaled" in (run.path / name).read_text().replace("\\", ""), name
    assert str(encoders["bert"]) not in (run.path / "model_card.md").read_text()

    def fails(command: list[str], given: bytes, timeout_s: float) -> bytes:
        raise OwnProcessError("was killed, most likely for its memory")

    monkeypatch.setattr(bertscore, "answer_of", fails)
    scenario_file(tmp_path, "http://127.0.0.1:9", f"{{path: '{encoders['bert']}', layer: 1}}", "metrics: [length_ok, bertscore]")
    with RunProgress(quiet=True) as progress:
        rescore(run.path, file, progress)
    quality = run.summary().variants["adapter"].quality
    assert quality is not None
    assert "bertscore" not in quality.metrics
    assert quality.verdict == "inconclusive"
    assert quality.reason == "bertscore was not run: the process that computes it was killed, most likely for its memory"
    assert "Not run: bertscore (the process that computes it was killed" in (run.path / "report.html").read_text()
