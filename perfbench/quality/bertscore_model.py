"""BERTScore itself: transformers in float32 on the CPU. Imported only by the process that `bertscore` starts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import log
from typing import Any, NamedTuple

import msgspec
import torch
import transformers

from perfbench.quality.bertscore import Found, Spec
from perfbench.quality.own_process import reply

_TEXTS_AT_ONCE = 32
_SAMPLES_AT_ONCE = 64
_PAST_PADDING = ("camembert", "roberta", "xlm-roberta")
"""Their positions start behind the padding's id, so they take that many tokens less than they have positions."""


class Encoded(NamedTuple):
    """The tokens of one text: their embeddings, of length 1, and what each weighs."""

    embeddings: Any
    weights: Any


class Encoder:
    """The first so many layers of a model, with its tokenizer."""

    def __init__(self, path: str, layer: int) -> None:
        """Raises OSError or ValueError for what cannot be loaded, and for a folder whose weights are not all there."""
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        config.num_hidden_layers = layer
        self.model, told = transformers.AutoModel.from_pretrained(
            path, config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        lacking = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))
        if lacking:
            raise ValueError(f"{path} lacks the weights {lacking[0]}, and {len(lacking) - 1} more; download or save it again")
        self.model.eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
        positions = config.max_position_embeddings - (config.pad_token_id + 1 if config.model_type in _PAST_PADDING else 0)
        self.most_tokens = min(int(self.tokenizer.model_max_length), positions)
        self.before = " " if config.model_type == "roberta" else ""
        """RoBERTa knows a word by the space before it; bert-score gives the first one a space too."""

    def tokens(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer.encode(self.before + text.strip(), truncation=True, max_length=self.most_tokens)
        return found

    def encode(self, texts: Sequence[str], weights: Mapping[int, float]) -> dict[str, Encoded]:
        tokens = {text: self.tokens(text) for text in texts}
        found: dict[str, Encoded] = {}
        ordered = sorted(tokens, key=lambda text: len(tokens[text]))
        for start in range(0, len(ordered), _TEXTS_AT_ONCE):
            batch = ordered[start : start + _TEXTS_AT_ONCE]
            longest = len(tokens[batch[-1]])
            ids = torch.full((len(batch), longest), self.tokenizer.pad_token_id or 0)
            mask = torch.zeros((len(batch), longest), dtype=torch.long)
            for row, text in enumerate(batch):
                ids[row, : len(tokens[text])] = torch.tensor(tokens[text])
                mask[row, : len(tokens[text])] = 1
            embedded = torch.nn.functional.normalize(self.model(input_ids=ids, attention_mask=mask).last_hidden_state, dim=-1)
            for row, text in enumerate(batch):
                found[text] = Encoded(embedded[row, : len(tokens[text])].clone(), torch.tensor([weights[token] for token in tokens[text]]))
        return found


def compute(spec: Spec) -> Found:
    """F1 of every pair, best over its references. Samples are taken some at a time, so that embeddings of all texts need not be held at once."""
    with torch.inference_mode():
        encoder = Encoder(spec.path, spec.layer)
        weights = token_weights(encoder, spec.documents)
        scores = [0.0] * len(spec.pairs)
        ordered = sorted(range(len(spec.pairs)), key=lambda number: spec.pairs[number].references)  # answers to the same sample come together
        for start in range(0, len(ordered), _SAMPLES_AT_ONCE):
            part = ordered[start : start + _SAMPLES_AT_ONCE]
            encoded = encoder.encode([text for number in part for text in (spec.pairs[number].output, *spec.pairs[number].references)], weights)
            for number in part:
                pair = spec.pairs[number]
                scores[number] = max(f1(encoded[pair.output], encoded[reference]) for reference in pair.references)
    return Found(scores=scores, transformers=transformers.__version__)


def token_weights(encoder: Encoder, documents: Sequence[str] | None) -> Mapping[int, float]:
    """What a token weighs: 1, but 0 for those that open and close a text; with documents, its inverse document frequency."""
    if documents is None:
        even: dict[int, float] = defaultdict(lambda: 1.0)
        even.update(dict.fromkeys((encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id), 0.0))
        return even
    counts = Counter(token for text in documents for token in set(encoder.tokens(text)))
    rare: dict[int, float] = defaultdict(lambda: log(len(documents) + 1))
    rare.update({token: log((len(documents) + 1) / (count + 1)) for token, count in counts.items()})
    return rare


def f1(output: Encoded, reference: Encoded) -> float:
    """Greedy matching of one answer with one reference; 0 where no token of either has weight."""
    alike = output.embeddings @ reference.embeddings.T
    precision = float((alike.max(dim=1).values * output.weights).sum() / output.weights.sum())
    recall = float((alike.max(dim=0).values * reference.weights).sum() / reference.weights.sum())
    value = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return value if value == value else 0.0  # noqa: PLR0124 (not a number: weights that are all 0)


def _work(given: bytes) -> bytes:
    return msgspec.json.encode(compute(msgspec.json.decode(given, type=Spec)))


if __name__ == "__main__":
    reply(_work)
