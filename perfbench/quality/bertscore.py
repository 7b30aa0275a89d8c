"""BERTScore (Zhang et al. 2020): how alike an answer and a reference are, token by token, by an encoder's contextual embeddings.

Every token of the answer is held against the token of the reference that it is most alike (cosine), and the other way round: precision is the mean over the
answer's tokens, recall over the reference's, the score is their F1, best over the references. It equals the package bert-score 0.3.13 (a test holds it to
that), which is no dependency: its last release is of February 2023, it wants matplotlib, and with transformers 5 it fails at an empty text.

    tokens     those that open and close a text may be matched and have no weight; others weigh 1, or with `idf` log((N + 1) / (n + 1)), where n of the N
               references hold the token; texts are cut at the most tokens that the encoder takes
    baseline   (score - b) / (1 - b), with b the F of the layer in a file of bert-score's form: raw scores crowd between 0.8 and 1; below b counts as 0
    empty      an empty or missing answer scores 0

The encoder is a local folder; nothing is downloaded. It runs in a process of its own, on the CPU, after all load has ended. No sample passes or fails by it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from perfbench.errors import Finding, MissingPartError, ModelError
from perfbench.models.headers import other_weight_files, safetensors_files
from perfbench.models.inspect import identity_sha256, read_config
from perfbench.quality.own_process import answer_of, ours
from perfbench.scenario.quality import BertScore

ENCODERS = ("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
"""By `model_type`: those whose layers end as their outputs do, so that the first so many layers are an encoder too."""
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_TIMEOUT_S = 3600
METRIC = "bertscore"


class Pair(msgspec.Struct, frozen=True):
    """One answer and what it is held against."""

    output: str
    references: list[str]


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is given. `documents` are the references that token weights are counted in; None for equal weights."""

    path: str
    layer: int
    pairs: list[Pair]
    documents: list[str] | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What it gives back: F1 of every pair."""

    scores: list[float]
    transformers: str


def findings(settings: BertScore, key: str) -> Iterator[Finding]:
    """What is wrong with the encoder and the baseline, before anything starts. Raises MissingPartError without transformers."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        needed = f"`{key}` needs {' and '.join(missing)}, which is not installed"
        raise MissingPartError(needed, hint="pip install 'perfbench[cpu]' or 'perfbench[gpu]' brings it")
    folder = Path(settings.path)
    try:
        config = read_config(folder, "config.json")
        weights = safetensors_files(folder) or other_weight_files(folder)
    except ModelError as error:
        yield Finding(f"{key}.path", error.message)
        return
    kind, layers = config.get("model_type"), config.get("num_hidden_layers", config.get("n_layers"))
    if kind not in ENCODERS:
        yield Finding(f"{key}.path", f"{folder} holds a model of type `{kind}`; expected an encoder, one of {', '.join(ENCODERS)}")
    elif not weights:
        yield Finding(f"{key}.path", f"{folder} has a config and no weights; download or save it again")
    elif not any(next(folder.glob(pattern), None) for pattern in _TOKENIZERS):
        yield Finding(f"{key}.path", f"{folder} has no tokenizer, expected one of {', '.join(_TOKENIZERS)}; download or save it again")
    elif not isinstance(layers, int) or settings.layer > layers:
        yield Finding(f"{key}.layer", f"{folder} has {layers} layers; expected 1 to {layers}, got {settings.layer}")
    if settings.baseline is not None:
        try:
            read_baseline(Path(settings.baseline), settings.layer)
        except ValueError as error:
            yield Finding(f"{key}.baseline", str(error))


def read_baseline(path: Path, layer: int) -> float:
    """The F of a layer in a file of bert-score's form. Raises ValueError that says what is wrong with the file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = {str(row.get("LAYER")): row.get("F") for row in csv.DictReader(file)}
        value = float(rows[str(layer)] or "")
    except KeyError:
        raise ValueError(f"{path} has no row for layer {layer}; expected the columns LAYER, P, R, F, separated by commas, and a row for each layer") from None
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}; expected the columns LAYER, P, R, F, separated by commas") from None
    if not 0 <= value < 1:
        raise ValueError(f"{path} has F {value:g} for layer {layer}; expected at least 0 and below 1")
    return value


def score(settings: BertScore, pairs: Sequence[Pair], documents: Sequence[str]) -> tuple[list[float], str]:
    """The score of every pair, in 0..1, and how they were computed. Raises OwnProcessError, and ValueError or ModelError for files that have changed."""
    baseline = None if settings.baseline is None else read_baseline(Path(settings.baseline), settings.layer)
    asked = [number for number, pair in enumerate(pairs) if pair.output.strip()]
    spec = Spec(path=settings.path, layer=settings.layer, pairs=[pairs[number] for number in asked], documents=list(documents) if settings.idf else None)
    output = answer_of(ours("perfbench.quality.bertscore_model"), msgspec.json.encode(spec), timeout_s=_TIMEOUT_S)
    found = msgspec.json.decode(output, type=Found)
    scores = [0.0] * len(pairs)
    for number, raw in zip(asked, found.scores, strict=True):
        scores[number] = min(max(raw if baseline is None else (raw - baseline) / (1 - baseline), 0.0), 1.0)
    folder = Path(settings.path)
    digest = identity_sha256(folder, safetensors_files(folder) or other_weight_files(folder))[:16]
    rescaled = "not rescaled" if baseline is None else f"rescaled by {baseline:g} ({Path(settings.baseline or '').name})"
    weights = "idf" if settings.idf else "no idf"
    return scores, f"{folder}, sha256 {digest}, layer {settings.layer}, {weights}, {rescaled}, transformers {found.transformers}"
