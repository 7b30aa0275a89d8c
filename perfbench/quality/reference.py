"""Does the server compute what the model says? Served answers, put to the reference: transformers, the same weights, float32.

Method. The reference reads the served prompt and answer as the server tokenised them and says at every position how probable
the served token was (teacher forcing: one difference does not carry over to the next token). Two statistics, in nats a token:

    greedy (temperature 0)   regret  = logp(reference's first choice) - logp(served token); 0 where they agree
    sampled                  excess  = -logp(served token) - entropy; its mean is 0 for honest sampling, whatever the entropy

Rounding flips only near-ties, which costs next to nothing. Damage costs far more. Mean regret, SmolLM2-135M-Instruct:

    0.0023  vLLM 0.32 (CPU) in bfloat16, 648 tokens, the largest 0.95; 0.0008 to 0.0028 with LoRA enabled and used
    0.0011  transformers in bfloat16; below 0.0001 in float16; 0.0011 with 8-bit weights
    0.03    every MLP scaled by 1.1: passes, this is the limit of the method
    0.13    an adapter that is not applied (random, rank 4, small); noise of 5% on all weights
    0.18    one layer's MLP of 30 scaled by 2; 0.27 to 0.9 one tensor of one layer shuffled or left out; 0.31 two layers swapped
    0.44    4-bit weights by plain rounding; 1.0 noise of 10%; 7.6 the first layer shuffled; 10.6 random tokens

So a mean above 0.05 fails if the total is above 2 nats too: a very short answer may hold one honest near-tie. The sampled mean may
also be off by chance: three standard errors are allowed. With top_p below 1 the served tokens are more probable than the entropy
says, which can hide damage but never invents it.

It runs as a process of its own (`python -m perfbench.quality.reference_model`: spec on stdin, result on stdout, both JSON), so that the
memory is free again before load is driven. What does not fit, or cannot be checked, is `skipped` with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec

import msgspec

from perfbench.errors import ReferenceMismatchError
from perfbench.prompts import RenderedPrompt
from perfbench.quality.ask import Answer, Target, ask_all
from perfbench.quality.own_process import OwnProcessError, answer_of, ours
from perfbench.records import ReferenceCheck
from perfbench.scenario.model import Decoding

MEAN_LIMIT_NATS = 0.05
TOTAL_LIMIT_NATS = 2.0
STANDARD_ERRORS = 3.0
MOST_TOKENS = 64
_SHOWN_ANSWERS = 2
_TIMEOUT_S = 1800


class ServedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer with its tokens, as the server gave them."""

    prompt_id: str
    prompt: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    text: str


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One variant: what it should have computed, and what it answered."""

    variant: str
    model_path: str
    """Folder of the weights that it serves; for an adapter, its base."""
    adapter_path: str | None = None
    """PEFT adapter on top of it."""
    temperature: float = 0.0
    answers: list[ServedAnswer]
    trust_remote_code: bool = False


class ScoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the reference says of one answer; `cost` is the regret, or the excess where `temperature` is not 0."""

    logprobs: list[float]
    cost: list[float]
    variance: list[float]
    """Of the excess, by the reference's own distribution; zeros for regret."""
    top1: list[bool]




def ask_served(target: Target, prompts: Sequence[RenderedPrompt], *, max_tokens: int, concurrency: int) -> list[ServedAnswer]:
    """Put the check's prompts to a server, greedily whatever the scenario decodes by: the regret of a greedy answer tells most.

    At most MOST_TOKENS an answer. Empty where the server gives no token ids. Raises EndpointError when every request fails.
    """
    answers = ask_all(target, prompts, Decoding(), max_tokens=min(max_tokens, MOST_TOKENS), concurrency=concurrency, token_ids=True)
    return served_answers(prompts, answers)


def served_answers(prompts: Sequence[RenderedPrompt], answers: Sequence[Answer]) -> list[ServedAnswer]:
    """The answers that came with token ids (`ask_all(..., token_ids=True)` of a vLLM server), beside their prompts."""
    return [
        ServedAnswer(
            prompt_id=prompt.prompt_id, prompt=prompt.as_text(), prompt_token_ids=answer.prompt_token_ids, token_ids=answer.token_ids, text=answer.output
        )
        for prompt, answer in zip(prompts, answers, strict=True)
        if answer.output is not None and answer.prompt_token_ids and answer.token_ids
    ]


def reference_check(subjects: Sequence[Subject]) -> list[ReferenceCheck]:
    """Check every variant in one process; results in the same order. Never raises for a check that cannot be done: it is skipped.

    `verdict` is pass or fail by the limits above; `fail` is for the caller to raise, with `mismatch_error`.
    """
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} is not installed; pip install 'perfbench[cpu]' or 'perfbench[gpu]' brings it"
        return [_skipped(subject, reason) for subject in subjects]
    if not subjects:
        return []
    try:
        output = answer_of(ours("perfbench.quality.reference_model"), msgspec.json.encode(list(subjects)), timeout_s=_TIMEOUT_S)
    except OwnProcessError as error:
        return [_skipped(subject, f"the reference process {error}; `quality.reference_prompts` says how many answers it scores") for subject in subjects]
    return msgspec.json.decode(output, type=list[ReferenceCheck])


def _skipped(subject: Subject, reason: str) -> ReferenceCheck:
    return ReferenceCheck(variant=subject.variant, verdict="skipped", reason=reason)


def judge(subject: Subject, scored: Sequence[ScoredAnswer]) -> ReferenceCheck:
    """Pass or fail by the limits in this module's text. Pure; an answer whose reference is not a number (NaN) fails."""
    cost = [value for answer in scored for value in answer.cost]
    logprobs = [value for answer in scored for value in answer.logprobs]
    tokens = len(cost)
    if not tokens:
        return _skipped(subject, "no answer came with its tokens; only vLLM gives them")
    mean, total = sum(cost) / tokens, sum(cost)
    chance = STANDARD_ERRORS * sum(value for answer in scored for value in answer.variance) ** 0.5 / tokens
    share = sum(hit for answer in scored for hit in answer.top1) / tokens
    # NaN compares false with everything: `not (mean <= limit)` also fails weights that compute no numbers.
    bad = not mean <= MEAN_LIMIT_NATS + chance and not total <= TOTAL_LIMIT_NATS
    name = "regret" if subject.temperature == 0 else "surprise beyond the entropy"
    told = f"mean {name} {mean:.4f} nats a token over {tokens} tokens, limit {MEAN_LIMIT_NATS + chance:.2f}; {share:.0%} are the reference's first choice"
    return ReferenceCheck(
        variant=subject.variant,
        verdict="fail" if bad else "pass",
        reason=f"{'the reference would not have said this' if bad else 'no more than rounding'}: {told}",
        prompts=len(scored),
        tokens=tokens,
        mean_logprob=_number(sum(logprobs) / tokens),
        worst_logprob=_number(min(logprobs)),
        top1_share=share,
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def worst_answers(scored: Sequence[ScoredAnswer]) -> list[int]:
    """Positions of the answers to show when a check fails, the costliest first."""
    means = [sum(answer.cost) / max(1, len(answer.cost)) for answer in scored]
    return sorted(range(len(scored)), key=lambda index: -math.inf if math.isnan(means[index]) else -means[index])[:_SHOWN_ANSWERS]


def mismatch_error(check: ReferenceCheck) -> ReferenceMismatchError:
    """The error of a failed check: what was served and what the reference says, side by side."""
    shown = "\n".join(f"  {part + ':':10} {_line(example[part])}" for example in check.examples for part in ("prompt", "served", "reference"))
    return ReferenceMismatchError(
        f"variant `{check.variant}` answers something else than its own weights say; no load has been driven. {check.reason}\n{shown}",
        hint="try `serve.args: {enforce-eager: true}`, compare the weight files with their source; --no-reference-check goes on regardless",
    )


def _line(text: str) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= 240 else folded[:239] + "\u2026"
