"""A COMET checkpoint of a few thousand weights, made by unbabel-comet itself: run by its Python, with the folder as argument.

numpy's frozen generator fills the weights by name, so that scores are the same everywhere. As in a published checkpoint the encoder is a name on the Hub.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from comet.models import RegressionMetric
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

WORDS = "the a cat dog man bit der die hund katze mann biss sass auf matte sat on mat"
HUB = "xlm-roberta-large"


def make_encoder(folder: Path) -> Path:
    """An XLM-RoBERTa: config and tokenizer."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"\u2581{word}", -3.0) for word in WORDS.split()), ("\u2581", -4.0)]
    pieces += [*((letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz.,'"), ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    told = {"tokenizer_class": "XLMRobertaTokenizerFast", "model_max_length": 64, **{f"{name}_token": token for name, token in names.items()}}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    transformers.XLMRobertaConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=66,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, type_vocab_size=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def make_checkpoint(folder: Path) -> None:
    """FOLDER/encoder, FOLDER/hparams.yaml and FOLDER/checkpoints/model.ckpt."""
    encoder = make_encoder(folder / "encoder")
    model = RegressionMetric(
        pretrained_model=str(encoder), hidden_sizes=[16, 8], load_pretrained_weights=False, local_files_only=True, final_activation="Sigmoid"
    )
    with torch.no_grad():
        for name, weights in model.named_parameters():
            drawn = np.random.RandomState(zlib.crc32(name.encode()) % 2**31).standard_normal(tuple(weights.shape)).astype(np.float32)
            weights.copy_(torch.from_numpy(drawn) * 0.4 + (1.0 if name.endswith("LayerNorm.weight") else 0.0))
    (folder / "checkpoints").mkdir()
    settings = {**model.hparams, "pretrained_model": HUB}
    stored = {"state_dict": model.state_dict(), "hyper_parameters": settings, "pytorch-lightning_version": "2.0.0"}
    torch.save(stored, folder / "checkpoints" / "model.ckpt")
    (folder / "hparams.yaml").write_text(f"class_identifier: regression_metric\nencoder_model: XLM-RoBERTa\npretrained_model: {HUB}\n")


if __name__ == "__main__":
    make_checkpoint(Path(sys.argv[1]))
