"""Prompts of a trace stage: the trace's own where it has them, else made text of exactly the trace's lengths, chat template included.

Block ids become text: a block's words are drawn from a seed that its id is part of, so that equal ids are equal text everywhere in a run, and a prompt is
its blocks one after another. Prompts that begin with the same ids begin with the same tokens, and a prefix cache sees what it saw where the trace was
taken. The last block fills what is left of the length. A prompt without ids shares nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np

from perfbench.errors import Finding, ScenarioError
from perfbench.load.traces import TracePart, TraceRequest
from perfbench.prompts import RenderedPrompt, Renderer, sha256_of
from perfbench.workload.exact import NoExactTextError, TooFewTokensError, exact_text
from perfbench.workload.tokens import PromptTokens

_ATTEMPTS = 8
_BLOCK, _REST, _ALONE = range(3)
"""Each kind of draw has a seed of its own."""

OnCount = Callable[[int, int], None]


def trace_prompts(
    part: TracePart, renderer: Renderer, tokens: Callable[[], PromptTokens], *, chat: bool, seed: int, key: str, on_count: OnCount | None = None
) -> tuple[list[RenderedPrompt], int]:
    """(the prompt of every request of the part, how many are longer than asked for because the template alone is).

    `tokens` is called once, and only where a prompt has to be made. Raises ScenarioError for chat messages that are to be sent as completions, and for
    a length that the tokenizer makes no text of.
    """
    maker: _TextMaker | None = None
    prompts = []
    for number, request in enumerate(part.requests):
        if request.messages is not None:
            if not chat:
                _refuse(key, request, "has chat `messages`; remove `prompt.api: completions`, or give its `prompt` as text")
            prompts.append(RenderedPrompt(prompt_id=request.prompt_id, messages=request.messages, text=None, sha256=sha256_of(request.messages)))
            continue
        text = request.prompt
        if text is None:
            maker = maker or _TextMaker(renderer, tokens(), seed, part.block_tokens, key)
            text = maker.text(request)
        prompts.append(renderer.prompt(request.prompt_id, {"prompt": text}, f"{request.prompt_id} of the trace"))
        if on_count is not None:
            on_count(number + 1, len(part.requests))
    return prompts, maker.lengthened if maker is not None else 0


def _refuse(key: str, request: TraceRequest, problem: str) -> NoReturn:
    raise ScenarioError("scenario", [Finding(f"{key}.trace", f"{request.prompt_id} of the trace {problem}")])


class _TextMaker:
    """Texts of exact length; keeps those of blocks."""

    def __init__(self, renderer: Renderer, tokens: PromptTokens, seed: int, block_tokens: int, key: str) -> None:
        self.lengthened = 0
        self._renderer, self._tokens, self._seed, self._block_tokens, self._key = renderer, tokens, seed, block_tokens, key
        self._least = self._count("")
        self._blocks: dict[int, str] = {}

    def text(self, request: TraceRequest) -> str:
        """What the user says, so that the whole prompt has the request's length; nothing where the template alone is as long."""
        wanted = request.input_tokens
        assert wanted is not None
        if wanted <= self._least:
            self.lengthened += wanted < self._least
            return ""
        beginning, last = self._beginning(request.blocks, wanted)
        kind = [_ALONE, int(request.prompt_id.removeprefix("line-"))] if last is None else [_REST, last]
        for attempt in range(_ATTEMPTS):
            try:
                return exact_text(wanted, self._count, self._random(*kind, attempt), beginning=beginning)
            except TooFewTokensError:
                beginning = ""
            except NoExactTextError:
                continue
        _refuse(self._key, request, f"has {wanted} tokens, and no text of exactly so many was found for this tokenizer; change `length_scale`")

    def _beginning(self, blocks: Sequence[int], wanted: int) -> tuple[str, int | None]:
        """(the blocks that fit whole, the id of the one that fills the rest)."""
        whole = max(0, min(len(blocks), (wanted - self._least) // self._block_tokens))
        while True:
            text = " ".join(self._block(block) for block in blocks[:whole])
            # Where two blocks meet, their words may become a token more or less than apart.
            if whole == 0 or self._count(text) <= wanted:
                return text, (blocks[min(whole, len(blocks) - 1)] if blocks else None)
            whole -= 1

    def _block(self, block: int) -> str:
        """The text of a block: it adds `block_tokens` tokens to the empty prompt."""
        found = self._blocks.get(block)
        for attempt in range(_ATTEMPTS):
            if found is not None:
                break
            try:
                found = exact_text(self._least + self._block_tokens, self._count, self._random(_BLOCK, block, attempt))
            except NoExactTextError:
                continue
        if found is None:
            problem = f"this tokenizer makes no text of {self._block_tokens} tokens, the length of a block; change `length_scale`"
            raise ScenarioError("scenario", [Finding(f"{self._key}.trace", problem)])
        return self._blocks.setdefault(block, found)

    def _count(self, text: str) -> int:
        return len(self._tokens.ids(self._renderer.prompt("", {"prompt": text}, "a made prompt")))

    def _random(self, *kind: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self._seed, *kind]))
