"""Greedy answers token by token, with log-probabilities: what merge fidelity is told by (`analyse/fidelity.py`).

vLLM gives the tokens (`return_token_ids`) and, with `logprobs`, the log-probability of each and of the best ones at its position; `return_tokens_as_token_ids`
writes these as `token_id:123`, so that no two tokens with the same text are taken for one. Decoding is the scenario's, made greedy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perfbench.prompts import RenderedPrompt
from perfbench.quality.ask import Answer, Target, ask_all
from perfbench.records import TokenAnswer
from perfbench.scenario.model import Decoding

_BEST = 2
"""The token itself and the runner-up."""
_PREFIX = "token_id:"


def ask_tokens(
    target: Target,
    prompts: Sequence[RenderedPrompt],
    decoding: Decoding,
    *,
    max_tokens: int,
    concurrency: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[TokenAnswer]:
    """One row a prompt, in their order; a failed request has no tokens. Raises EndpointError when every request fails."""
    chat = bool(prompts) and prompts[0].messages is not None
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": _BEST} if chat else {"logprobs": _BEST}
    answers = ask_all(
        target, prompts, greedy(decoding), max_tokens=max_tokens, concurrency=concurrency, on_progress=on_progress, token_ids=True,
        more={**asked, "return_tokens_as_token_ids": True},
    )  # fmt: skip
    return [_row(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


def greedy(decoding: Decoding) -> Decoding:
    """The scenario's decoding without chance."""
    return decoding.model_copy(update={"temperature": 0.0, "top_p": 1.0})


def _row(prompt: RenderedPrompt, answer: Answer) -> TokenAnswer:
    ids, steps = answer.token_ids or [], read_logprobs(answer.logprobs or {})
    told = len(ids) if len(ids) == len(steps) and [step[0] for step in steps] == ids else 0
    return TokenAnswer(
        prompt_id=prompt.prompt_id,
        prompt_sha256=prompt.sha256,
        output=answer.output,
        token_ids=ids[:told],
        logprobs=[step[1] for step in steps[:told]],
        runner_up_ids=[step[2] for step in steps[:told]],
        runner_up_logprobs=[step[3] for step in steps[:told]],
    )


def read_logprobs(logprobs: Mapping[str, Any]) -> list[tuple[int, float, int | None, float | None]]:
    """(token, log-probability, runner-up, its log-probability) of each position, from a choice's `logprobs`: chat's form or completions'. Empty for neither."""
    try:
        if "content" in logprobs:
            return [
                (_id(step["token"]), float(step["logprob"]), *_runner_up(_id(step["token"]), {one["token"]: one["logprob"] for one in step["top_logprobs"]}))
                for step in logprobs["content"] or []
            ]
        tokens, values, best = (logprobs.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs"))
        return [(_id(token), float(value), *_runner_up(_id(token), top or {})) for token, value, top in zip(tokens, values, best, strict=True)]
    except (KeyError, TypeError, ValueError):
        return []


def _id(token: str) -> int:
    if not token.startswith(_PREFIX):
        raise ValueError(token)
    return int(token.removeprefix(_PREFIX))


def _runner_up(chosen: int, best: Mapping[str, float]) -> tuple[int | None, float | None]:
    others = {_id(token): float(value) for token, value in best.items() if _id(token) != chosen}
    second = max(others, key=lambda token: others[token], default=None)
    return second, None if second is None else others[second]
