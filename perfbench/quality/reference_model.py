"""The reference itself: transformers in float32 on the CPU. Imported only by the process that `reference` starts."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import psutil
import torch

from perfbench.quality.own_process import reply
from perfbench.quality.reference import ScoredAnswer, ServedAnswer, Subject, judge, worst_answers
from perfbench.records import ReferenceCheck

_HEADROOM = 1.3
"""Weights in float32, plus activations and logits of a few short answers, plus the loader's own copies."""


def check_subject(subject: Subject) -> ReferenceCheck:
    """Load the weights, score the answers, judge; skipped with a reason for what does not fit or cannot be loaded."""
    reason = _why_not(subject)
    if reason is not None:
        return ReferenceCheck(variant=subject.variant, verdict="skipped", reason=reason)
    try:
        model, tokenizer = _load(subject)
    except Exception as error:  # noqa: BLE001 (transformers and custom model code raise anything; a check that cannot be done is skipped, aloud)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return ReferenceCheck(variant=subject.variant, verdict="skipped", reason=f"transformers cannot load {subject.model_path}: {lines[0][:300]}")
    penalty = _repetition_penalty(subject.model_path)
    with torch.inference_mode():
        scored = [_score(model, answer, subject.temperature, penalty) for answer in subject.answers]
        check = judge(subject, scored)
        if check.verdict != "fail":
            return check
        examples = [_example(model, tokenizer, subject.answers[index], penalty) for index in worst_answers(scored)]
    return msgspec.structs.replace(check, examples=examples)


def _why_not(subject: Subject) -> str | None:
    folder = Path(subject.model_path)
    if not (folder / "config.json").is_file():
        return f"{folder} holds no config.json, so there are no weights to compare with"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config") is not None:
        return "the weights are quantised; the reference computes in float32 and would call the difference damage"
    parameters = _parameters(folder)
    if parameters is None:
        return f"{folder} holds no safetensors file, so its size cannot be told beforehand"
    needed, available = parameters * 4 * _HEADROOM, psutil.virtual_memory().available
    if needed > available:
        return f"{parameters / 1e9:.1f}B parameters need {needed / 2**30:.1f} GiB in float32, {available / 2**30:.1f} GiB are available"
    return None


def _parameters(folder: Path) -> int | None:
    """Parameters by the headers of the safetensors files: 8 bytes of length, then JSON with a shape for each tensor."""
    count = 0
    for file in folder.glob("*.safetensors"):
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        count += sum(_product(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return count or None


def _product(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _load(subject: Subject) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"local_files_only": True, "trust_remote_code": subject.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(subject.model_path, **options)
    model = AutoModelForCausalLM.from_pretrained(subject.model_path, dtype=torch.float32, **options)
    if subject.adapter_path is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, subject.adapter_path, torch_dtype=torch.float32)
    return model.eval(), tokenizer


def _repetition_penalty(model_path: str) -> float:
    """vLLM takes default sampling settings from generation_config.json; of these, the penalty changes a greedy choice too."""
    file = Path(model_path) / "generation_config.json"
    if not file.is_file():
        return 1.0
    return float(json.loads(file.read_text(encoding="utf-8")).get("repetition_penalty") or 1.0)


def _score(model: Any, answer: ServedAnswer, temperature: float, penalty: float) -> ScoredAnswer:
    """One forward pass over prompt and answer; row t of the logits is what the reference would say at token t of the answer."""
    tokens = torch.tensor([answer.prompt_token_ids + answer.token_ids])
    start, served = len(answer.prompt_token_ids), torch.tensor(answer.token_ids)
    logits = model(tokens).logits[0, start - 1 : -1].float()
    if penalty != 1.0:
        for step in range(len(logits)):
            seen = tokens[0, : start + step].unique()
            values = logits[step, seen]
            logits[step, seen] = torch.where(values > 0, values / penalty, values * penalty)
    if temperature > 0:
        logits = logits / temperature
    logprobs = logits.log_softmax(-1)
    said = logprobs.gather(1, served[:, None])[:, 0]
    best = logprobs.max(-1)
    if temperature > 0:
        weighted = logprobs.exp() * logprobs
        entropy = -weighted.nansum(-1)
        variance = (weighted * logprobs).nansum(-1) - entropy**2
        cost = -said - entropy
    else:
        cost, variance = best.values - said, torch.zeros_like(said)
    return ScoredAnswer(
        logprobs=said.tolist(), cost=cost.tolist(), variance=variance.clamp(min=0).tolist(), top1=(best.indices == served).tolist()
    )


def _example(model: Any, tokenizer: Any, answer: ServedAnswer, penalty: float) -> dict[str, str]:
    """The reference's own greedy answer to the same prompt, as long as the served one."""
    prompt = torch.tensor([answer.prompt_token_ids])
    output = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=len(answer.token_ids),
        repetition_penalty=penalty,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    text = tokenizer.decode(output[0, len(answer.prompt_token_ids) :], skip_special_tokens=True)
    return {"prompt": answer.prompt, "served": answer.text, "reference": str(text)}


def _work(given: bytes) -> bytes:
    return msgspec.json.encode([check_subject(subject) for subject in msgspec.json.decode(given, type=list[Subject])])


if __name__ == "__main__":
    reply(_work)
