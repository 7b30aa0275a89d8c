"""COMET: what is said of a wrong checkpoint or environment, what the other Python is asked, and the real package where there is one.

The last test needs unbabel-comet in an environment of its own: PERFBENCH_COMET_PYTHON names its Python. Its oracle: the package's own `predict` over the
checkpoint that tests/tiny_comet.py makes, one sample at a time, loaded with strict=True (unbabel-comet 2.2.7, transformers 4.57.6, torch 2.13).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from perfbench.errors import ScenarioError
from perfbench.quality import comet, model_scores, translation
from perfbench.quality.bertscore import Pair
from perfbench.quality.own_process import OwnProcessError
from perfbench.quality.rows import HeldOutRows
from perfbench.records import QualityRecord
from perfbench.scenario.quality import Comet, Translation
from perfbench.scenario.quality_metrics import quality_findings, quality_warnings

REAL = os.environ.get("PERFBENCH_COMET_PYTHON")
PAIRS = [
    Pair("the dog bit the man.", ["the dog bit the man."]), Pair("the cat sat on a mat.", ["the dog bit the man."]), Pair(" ", ["x"]),
    Pair("cat", ["the cat sat on the mat.", "the cat"]),
]  # fmt: skip
SOURCES = ["der hund biss den mann.", "der hund biss den mann.", "x", "die katze"]
FAKE = """
class Model:
    def __init__(self, given, holds):
        self.given = given
        self.on_load_checkpoint({"state_dict": holds})
    @classmethod
    def load_from_checkpoint(cls, checkpoint, **given):
        return cls(given, ["a"] if "half" in checkpoint else ["a", "b"])
    def named_parameters(self):
        return [("a", None), ("b", None)]
    def predict(self, samples, **given):
        print("a library that prints")
        assert self.given == {"pretrained_model": "/enc", "local_files_only": True}, self.given
        assert given["gpus"] == 0
        return type("Told", (), {"scores": [len(sample["ref"]) / 100 for sample in samples]})
str2model = {"regression_metric": Model}
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A Python that has something called comet."""
    package, about = tmp_path / "site" / "comet", tmp_path / "site" / "unbabel_comet-9.9.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: unbabel-comet\nVersion: 9.9\n")
    (package / "models.py").write_text(FAKE)
    (package / "__init__.py").write_text(
        "from comet.models import str2model\n"
        "def load_from_checkpoint(path, local_files_only):\n"
        "    return str2model['regression_metric'].load_from_checkpoint(path, local_files_only=local_files_only)\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/site exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint and an encoder, as far as they are looked at beforehand."""
    made = tmp_path / "model"
    (made / "checkpoints").mkdir(parents=True)
    (made / "checkpoints" / "model.ckpt").write_bytes(b"weights")
    (made / "hparams.yaml").write_text("class_identifier: regression_metric\n")
    (made / "encoder").mkdir()
    (made / "encoder" / "config.json").write_text("{}")
    (made / "encoder" / "tokenizer.json").write_text("{}")
    return made


def settings(python: object, folder: Path, encoder: str | None = None) -> Comet:
    return Comet.model_construct(python=str(python), checkpoint=str(folder / "checkpoints" / "model.ckpt"), encoder=encoder or str(folder / "encoder"))


def test_the_guest_gives_the_best_over_references_and_nothing_for_an_empty_answer(fake: Path, folder: Path) -> None:
    assert list(comet.findings(settings(fake, folder), "quality.task.comet")) == []
    scores, told = comet.score(settings(fake, folder, "/enc"), PAIRS, SOURCES)
    assert scores == [0.2, 0.2, 0.0, 0.23]
    assert told.startswith(f"{folder}, sha256 ")
    assert told.endswith(" of model.ckpt, unbabel-comet 9.9")


def test_a_checkpoint_that_lacks_weights_gives_no_score(fake: Path, folder: Path) -> None:
    half = folder.rename(folder.with_name("half"))
    with pytest.raises(OwnProcessError, match=r"ended with code 1 \(.*model\.ckpt lacks the weights b, and 0 more\)"):
        comet.score(settings(fake, half, "/enc"), PAIRS, SOURCES)


def wrong(given: Comet) -> str:
    with pytest.raises(ScenarioError) as error:
        model_scores.check_models(Translation.model_construct(comet=given, source="s"))
    return str(error.value)


def test_what_is_wrong_is_said_before_anything_starts(fake: Path, folder: Path, tmp_path: Path) -> None:
    python = wrong(settings(sys.executable, folder))
    assert f"quality.task.comet.python: {sys.executable} cannot import comet: ModuleNotFoundError: No module named 'comet'; expected a Python that" in python
    (tmp_path / "text").write_text("no program")
    assert "text cannot be started: " in wrong(settings(tmp_path / "text", folder))
    (folder / "encoder" / "tokenizer.json").unlink()
    assert "encoder has no tokenizer, expected one of tokenizer.json, *.model" in wrong(settings(fake, folder))
    (folder / "encoder" / "config.json").unlink()
    assert "quality.task.comet.encoder: " in wrong(settings(fake, folder))
    (folder / "hparams.yaml").write_text("class_identifier: unified_metric\n")
    assert "hparams.yaml says class_identifier `unified_metric`; expected `regression_metric`" in wrong(settings(fake, folder))
    (folder / "hparams.yaml").write_text("a: [")
    assert "hparams.yaml is missing or cannot be read; COMET keeps it in the folder above the checkpoint's" in wrong(settings(fake, folder))
    (folder / "checkpoints" / "model.ckpt").unlink()
    assert "model.ckpt is no file; expected FOLDER/checkpoints/model.ckpt, with hparams.yaml in FOLDER" in wrong(settings(fake, folder))


@pytest.mark.parametrize(("raw", "scores"), [([1.1, -0.1, 0.5, 0.25], [1.0, 0.0, 0.0, 0.5]), ([0.1, -1.2, 0.5, 0.25], None)])
def test_scores_of_another_scale_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, raw: list[float], scores: list[float] | None) -> None:
    monkeypatch.setattr(comet, "answer_of", lambda *given, **more: msgspec.json.encode({"scores": raw, "version": "2"}))
    if scores is not None:
        assert comet.score(settings("python", folder), PAIRS, SOURCES)[0] == scores
        return
    with pytest.raises(ValueError, match=r"gives scores from -1\.20 to 0\.50; expected a checkpoint whose scores run from 0 to 1"):
        comet.score(settings("python", folder), PAIRS, SOURCES)


def test_it_reads_the_source_of_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(comet, "score", lambda *asked: given.append(asked[1:]) or ([0.5], "told"))
    record = QualityRecord(sample_id="7", variant="base", prompt="", prompt_sha256="", expected="a", output="b", passed=True, label="")
    task = Translation.model_construct(comet=settings("python", Path("x")), source="german", bertscore=None)
    found, how = model_scores.with_model_scores(task, {"base": [record]}, {"7": {"german": "hund"}})
    assert given == [([Pair("b", ["a"])], ["hund"])]
    assert found["base"][0].scores == {"comet": 0.5}
    assert how["comet"].signature == "told"


def test_the_scenario_names_the_source_and_decides_by_another_metric_too(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="`comet` reads the text that was to be translated; name its column as `source`"):
        Translation(task="translation", expected="want", comet=settings("p", tmp_path))
    rows = HeldOutRows("rows.jsonl", {0: {"want": "a"}})
    with pytest.raises(ScenarioError, match=r"quality\.task\.source: row 0 of rows\.jsonl lacks column `german`"):
        translation.scorer(Translation(task="translation", expected="want", source="german"), rows)
    quality = {"task": {"task": "translation", "expected": "want"}, "metric": "comet"}
    (finding,) = quality_findings({"quality": quality})
    assert "`comet` needs `quality.task.comet`" in str(finding)
    assert "a weak metric decides alone: comet is a model's opinion" in quality_warnings(quality)[0]


@pytest.mark.skipif(REAL is None, reason="PERFBENCH_COMET_PYTHON names no Python that has unbabel-comet")
def test_the_real_package_gives_its_own_figures(tmp_path: Path) -> None:
    assert REAL is not None
    made = tmp_path / "made"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([REAL, str(Path(__file__).parents[2] / "tiny_comet.py"), str(made)], check=True, capture_output=True, env=environment)
    assert list(comet.findings(settings(REAL, made), "quality.task.comet")) == []
    scores, told = comet.score(settings(REAL, made), PAIRS, SOURCES)
    assert scores == pytest.approx([0.299298, 0.272471, 0.0, 0.241562], abs=2e-6)
    assert "unbabel-comet 2." in told
