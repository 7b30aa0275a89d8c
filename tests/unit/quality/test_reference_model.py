"""The reference on a tiny Llama with random weights: transformers' own greedy answers are the oracle."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from perfbench.quality import reference_model  # noqa: E402
from perfbench.quality.reference import ServedAnswer, Subject, reference_check  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    path = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.6
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    words = Tokenizer(WordLevel({f"w{n}": n for n in range(64)}, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w2", pad_token="w2").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def served(model: Any, prompt: list[int], **options: Any) -> ServedAnswer:
    torch.manual_seed(1)
    ids = torch.tensor([prompt])
    settings = {"do_sample": False, "max_new_tokens": 24, "min_new_tokens": 24, "pad_token_id": 2, **options}
    tokens = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()
    return ServedAnswer(prompt_id="0", prompt="p", prompt_token_ids=prompt, token_ids=tokens, text="served text")


def test_a_greedy_answer_costs_nothing_and_every_token_is_the_first_choice(model: Any) -> None:
    answer = served(model, [5, 6, 7], min_new_tokens=0, eos_token_id=None)
    with torch.inference_mode():
        scored = reference_model._score(model, answer, 0.0, 1.0)
    assert len(scored.cost) == len(answer.token_ids)
    assert max(scored.cost) < 1e-4
    assert all(scored.top1)


def test_each_token_is_scored_at_its_own_position(model: Any) -> None:
    """By hand: logits of the prefix, one forward pass a token."""
    answer = ServedAnswer(prompt_id="0", prompt="p", prompt_token_ids=[5, 6], token_ids=[9, 33, 12], text="")
    with torch.inference_mode():
        scored = reference_model._score(model, answer, 0.0, 1.0)
        for step, token in enumerate(answer.token_ids):
            logprobs = model(torch.tensor([[5, 6, *answer.token_ids[:step]]])).logits[0, -1].log_softmax(-1)
            assert scored.logprobs[step] == pytest.approx(logprobs[token].item(), abs=1e-4)
            assert scored.cost[step] == pytest.approx((logprobs.max() - logprobs[token]).item(), abs=1e-4)


def test_the_repetition_penalty_is_the_one_that_generation_applies(model: Any) -> None:
    answer = served(model, [5, 6, 7], min_new_tokens=0, eos_token_id=None, repetition_penalty=1.8)
    with torch.inference_mode():
        assert max(reference_model._score(model, answer, 0.0, 1.8).cost) < 1e-4
        assert max(reference_model._score(model, answer, 0.0, 1.0).cost) > 0.1


def test_honest_sampling_costs_its_entropy_on_average(model: Any) -> None:
    torch.manual_seed(1)
    prompts = torch.tensor([[5, 6, 7]] * 50)
    options = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0, "max_new_tokens": 30, "eos_token_id": None, "pad_token_id": 2}
    drawn = model.generate(input_ids=prompts, attention_mask=torch.ones_like(prompts), **options)[:, 3:].tolist()
    answers = [ServedAnswer(prompt_id="0", prompt="p", prompt_token_ids=[5, 6, 7], token_ids=tokens, text="") for tokens in drawn]
    with torch.inference_mode():
        scored = [reference_model._score(model, answer, 0.7, 1.0) for answer in answers]
    cost, variance = ([value for answer in scored for value in getattr(answer, name)] for name in ("cost", "variance"))
    mean, error = sum(cost) / len(cost), sum(variance) ** 0.5 / len(cost)
    assert abs(mean) < 4 * error
    assert error < 0.1


def test_the_process_passes_true_answers_fails_others_and_skips_what_it_cannot_check(model: Any, folder: Path, tmp_path: Path) -> None:
    true = served(model, [5, 6, 7], min_new_tokens=0, eos_token_id=None)
    false = ServedAnswer(prompt_id="0", prompt="why", prompt_token_ids=[5, 6, 7], token_ids=[(token + 11) % 64 for token in true.token_ids], text="nonsense")
    quantised = tmp_path / "quantised"
    quantised.mkdir()
    (quantised / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "awq"}}))
    checks = reference_check(
        [
            Subject(variant="true", model_path=str(folder), answers=[true]),
            Subject(variant="false", model_path=str(folder), answers=[false]),
            Subject(variant="quantised", model_path=str(quantised), answers=[true]),
            Subject(variant="nowhere", model_path=str(tmp_path / "none"), answers=[true]),
            Subject(variant="no tokens", model_path=str(folder), answers=[]),
        ]
    )
    assert [check.verdict for check in checks] == ["pass", "fail", "skipped", "skipped", "skipped"]
    assert checks[1].examples[0]["served"] == "nonsense"
    assert checks[1].examples[0]["reference"].startswith(f"w{true.token_ids[0]} w{true.token_ids[1]}")
    assert "quantised" in checks[2].reason
    assert "no config.json" in checks[3].reason


def test_what_does_not_fit_the_memory_is_skipped_with_both_sizes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", type("Memory", (), {"available": 1000}))
    check = reference_model.check_subject(Subject(variant="big", model_path=str(folder), answers=[]))
    assert check.verdict == "skipped"
    assert "in float32" in check.reason
