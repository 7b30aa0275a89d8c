"""COMET (Rei et al. 2020, 2022): what a model that was trained on people's judgements says of a translation, its source and a reference.

The package unbabel-comet computes it, from a local checkpoint. It wants transformers below 5, numpy below 2 and protobuf below 5, so it lives in an environment
of its own, whose Python the scenario names; `comet_guest` runs there, on the CPU, after all load has ended. Nothing is downloaded: a checkpoint names
the encoder that it was made from as the Hub does, and a folder with that encoder's settings and tokenizer stands in for it.

Only checkpoints that read source, translation and reference (`regression_metric`), with scores in 0..1 as wmt22-comet-da has them; older ones give z-scores.
The best over the references; an empty or missing answer scores 0. No sample passes or fails by it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import msgspec
import yaml

from perfbench.errors import Finding, ModelError
from perfbench.models.inspect import identity_sha256, read_config
from perfbench.quality.bertscore import Pair
from perfbench.quality.own_process import OFFLINE, answer_of
from perfbench.scenario.quality import Comet

METRIC = "comet"
INSTALL = "python -m venv FOLDER && FOLDER/bin/pip install unbabel-comet 'setuptools<81', and name FOLDER/bin/python"
_GUEST = Path(__file__).with_name("comet_guest.py")
_CLASS = "regression_metric"
_TOKENIZERS = ("tokenizer.json", "*.model")
_LOWEST, _HIGHEST = -0.25, 1.25
"""wmt22-comet-da leaves 0..1 by little; z-scores do by more."""
_TIMEOUT_S = 3600
_IMPORT_S = 300


class _Found(msgspec.Struct, frozen=True):
    scores: list[float]
    version: str


def findings(settings: Comet, key: str) -> Iterator[Finding]:
    """What is wrong with the checkpoint, the encoder and the environment, before anything starts."""
    checkpoint, encoder = Path(settings.checkpoint), Path(settings.encoder)
    problem = _wrong_checkpoint(checkpoint)
    if problem is not None:
        yield Finding(f"{key}.checkpoint", problem)
    try:
        read_config(encoder, "config.json")
        if not any(next(encoder.glob(pattern), None) for pattern in _TOKENIZERS):
            yield Finding(f"{key}.encoder", f"{encoder} has no tokenizer, expected one of {', '.join(_TOKENIZERS)}; download or save it again")
    except ModelError as error:
        yield Finding(f"{key}.encoder", error.message)
    problem = _wrong_python(settings.python)
    if problem is not None:
        yield Finding(f"{key}.python", problem)


def _wrong_checkpoint(checkpoint: Path) -> str | None:
    if not checkpoint.is_file():
        return f"{checkpoint} is no file; expected FOLDER/checkpoints/model.ckpt, with hparams.yaml in FOLDER"
    settings = checkpoint.parents[1] / "hparams.yaml"
    try:
        read = yaml.safe_load(settings.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return f"{settings} is missing or cannot be read; COMET keeps it in the folder above the checkpoint's"
    kind = read.get("class_identifier") if isinstance(read, dict) else None
    if kind != _CLASS:
        return f"{settings} says class_identifier `{kind}`; expected `{_CLASS}`, which reads source, translation and reference, as wmt22-comet-da"
    return None


@cache
def _wrong_python(python: str) -> str | None:
    """Its import is tried, which takes seconds, before a server is started for it."""
    told = "import comet, importlib.metadata; importlib.metadata.version('unbabel-comet')"
    try:
        tried = subprocess.run([python, "-c", told], capture_output=True, text=True, timeout=_IMPORT_S, env=_environment(), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{python} cannot be started: {error}; expected a Python that has unbabel-comet ({INSTALL})"
    if tried.returncode == 0:
        return None
    lines = tried.stderr.strip().splitlines() or ["it said nothing"]
    return f"{python} cannot import comet: {lines[-1][:200]}; expected a Python that has unbabel-comet ({INSTALL})"


def _environment() -> dict[str, str]:
    """What its Python gets: nothing of ours that names packages, and no network."""
    return {**{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}, **OFFLINE}


def score(settings: Comet, pairs: Sequence[Pair], sources: Sequence[str]) -> tuple[list[float], str]:
    """The score of every translation, in 0..1, and how they were computed. Raises OwnProcessError, and ValueError for scores of another scale."""
    asked = [
        (number, {"src": source, "mt": pair.output.strip(), "ref": reference})
        for number, (pair, source) in enumerate(zip(pairs, sources, strict=True))
        if pair.output.strip()
        for reference in pair.references
    ]
    checkpoint, scores, version = Path(settings.checkpoint), [0.0] * len(pairs), ""
    if asked:
        given = msgspec.json.encode({"checkpoint": settings.checkpoint, "encoder": settings.encoder, "samples": [sample for _, sample in asked]})
        found = msgspec.json.decode(answer_of([settings.python, str(_GUEST)], given, timeout_s=_TIMEOUT_S, environment=_environment()), type=_Found)
        low, high = min(found.scores), max(found.scores)
        if low < _LOWEST or high > _HIGHEST:
            raise ValueError(f"{checkpoint} gives scores from {low:.2f} to {high:.2f}; expected a checkpoint whose scores run from 0 to 1, as wmt22-comet-da")
        for (number, _), raw in zip(asked, found.scores, strict=True):
            scores[number] = max(scores[number], min(raw, 1.0))
        version = f", unbabel-comet {found.version}"
    digest = identity_sha256(checkpoint.parent, [checkpoint])[:16]
    return scores, f"{checkpoint.parents[1]}, sha256 {digest} of {checkpoint.name}{version}"
