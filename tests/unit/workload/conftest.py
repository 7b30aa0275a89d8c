"""Tokenizers to count with: three small ones of very different kinds made here, and the demo's own where it lies on this machine."""

import json
import os
from pathlib import Path

import pytest

from perfbench.workload.tokens import LocalTokens
from perfbench.workload.words import WORDS

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DEMO_BASES = (Path("/tmp/pb/smol"), Path(os.environ.get("PERFBENCH_CACHE") or Path.home() / ".cache/perfbench") / "demo" / "base")


def make_model(folder: Path, kind: str) -> Path:
    """A folder with a tokenizer of its own and a chat template. bpe: byte-level, 400 entries, so that most words are several tokens and neighbours merge."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = [AddedToken(token, special=True) for token in ("<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")]
    corpus = [" ".join(WORDS[start::7]) for start in range(7)] * 3
    if kind == "words":
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.train_from_iterator(corpus, trainers.WordLevelTrainer(special_tokens=["<unk>", *(token.content for token in special)]))
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[token.content for token in special], initial_alphabet=alphabet)
        tokenizer.train_from_iterator(corpus, trainer)
    else:  # like SentencePiece: spaces are part of tokens, and merges go across words
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
        tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", *(token.content for token in special)]))
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": {"__type": "AddedToken", "content": "<s>", "special": True}, "chat_template": "{{ bos_token }}" + TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session", params=["words", "bpe", "across", "demo"])
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param != "demo":
        return make_model(tmp_path_factory.mktemp("models") / request.param, request.param)
    found = next((folder for folder in DEMO_BASES if (folder / "tokenizer.json").is_file()), None)
    if found is None:
        pytest.skip("the demo's base model is not on this machine: `perfbench demo` makes it")
    return found


@pytest.fixture(scope="session")
def tokens(model_folder: Path) -> LocalTokens:
    return LocalTokens(model_folder)
