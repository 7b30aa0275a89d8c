"""Encoders of a few thousand weights, the same on every machine and with every version of transformers: numpy's frozen generator fills them by name.

For BERTScore and COMET, which want a folder of a BERT, a RoBERTa or an XLM-RoBERTa as the Hub has them.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

WORDS = (
    "the", "a", "cat", "dog", "man", "bit", "sat", "on", "mat", "had", "just", "him", "it", "was", "not", "surprising", "unexpected", "no", "one", "first",
    "bitten", "wasn", ".", ",", "'", "t",
)  # fmt: skip
LAYERS = 3
_SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 66,
}  # fmt: skip


def make_bert(folder: Path) -> Path:
    """WordPiece: whole words of WORDS, and letters."""
    import transformers

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*WORDS, *letters]), *(f"##{letter}" for letter in letters)]
    _save(folder, transformers.BertModel(transformers.BertConfig(vocab_size=len(vocabulary), **_SIZES)), "BertTokenizer")
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return folder


def make_roberta(folder: Path) -> Path:
    """Bytes with a few merges: a word after a space is another token than at the start."""
    import transformers

    merges = ["\u0120 t", "t h", "\u0120t h", "\u0120th e", "th e", "\u0120 d", "o g", "\u0120d og", "a t", "\u0120 c", "\u0120c at", "i t"]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = [*special, *_byte_letters(), *dict.fromkeys("".join(merge.split(" ")) for merge in merges), "<mask>"]
    config = transformers.RobertaConfig(vocab_size=len(vocabulary), bos_token_id=0, pad_token_id=1, eos_token_id=2, type_vocab_size=1, **_SIZES)
    _save(folder, transformers.RobertaModel(config), "RobertaTokenizer")
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(vocabulary)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return folder


def _byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in a byte-level BPE: printable ones for themselves, the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [code for code in range(256) if code not in printable]
    return [chr(code) for code in printable] + [chr(256 + number) for number in range(len(others))]


def _save(folder: Path, model: Any, tokenizer_class: str) -> None:
    import torch

    with torch.no_grad():
        for name, weights in model.named_parameters():
            drawn = np.random.RandomState(zlib.crc32(name.encode()) % 2**31).standard_normal(tuple(weights.shape)).astype(np.float32)
            scale, around = (0.1, 1.0) if name.endswith("LayerNorm.weight") else (0.4, 0.0)
            weights.copy_(torch.from_numpy(drawn) * scale + around)
    model.save_pretrained(folder)
    told = {"tokenizer_class": tokenizer_class, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
