"""Made prompts of a trace: exact lengths, and equal blocks are equal tokens."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from perfbench.errors import ScenarioError
from perfbench.load.traces import TracePart, TraceRequest
from perfbench.prompts import Renderer
from perfbench.records import TraceUse
from perfbench.scenario.model import Prompt
from perfbench.workload.tokens import LocalTokens
from perfbench.workload.trace_prompts import trace_prompts

USE = TraceUse(path="t", format="mooncake", requests=0, left_out=0, context_tokens=None, clipped_prompts=0, clipped_answers=0, shares_prefixes=True)


def request(number: int, tokens: int | None, blocks: tuple[int, ...] = (), **text) -> TraceRequest:
    return TraceRequest(f"line-{number}", tokens, 5, text.get("prompt"), text.get("messages"), blocks, None)


def made(tokens: LocalTokens, requests: list[TraceRequest], block_tokens: int = 64, api: str = "chat"):
    part = TracePart(np.arange(len(requests)), tuple(requests), block_tokens, USE)
    return trace_prompts(part, Renderer(Prompt(api=api)), lambda: tokens, chat=api == "chat", seed=3, key="load.stages[0]")


def common(one: list[int], other: list[int]) -> int:
    return next((place for place, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), min(len(one), len(other)))


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_every_prompt_has_its_exact_length(tokens: LocalTokens, api: str) -> None:
    lengths = [60, 61, 62, 63, 130, 257, 400, 1000]
    prompts, lengthened = made(tokens, [request(number, length, blocks) for number, length in enumerate(lengths) for blocks in ((), (1, 2, 3))], api=api)
    assert [len(tokens.ids(prompt)) for prompt in prompts] == [length for length in lengths for _ in range(2)]
    assert lengthened == 0


def test_equal_blocks_are_equal_tokens_and_other_blocks_are_not(tokens: LocalTokens) -> None:
    block, requests = 64, [request(0, 300, (7, 8, 9, 1)), request(1, 300, (7, 8, 5, 6)), request(2, 300, (7, 8, 9, 2)), request(3, 300, (4, 8, 9, 1))]
    ids = [tokens.ids(prompt) for prompt in made(tokens, requests, block)[0]]
    template = common(ids[0], ids[3])
    assert template < 50
    for (one, left), (other, right) in combinations(enumerate(requests), 2):
        shared = common(list(left.blocks), list(right.blocks))
        # A tokenizer may join a word to the next one, and two other blocks may begin with the same word.
        assert shared * block - 6 <= common(ids[one], ids[other]) - template <= shared * block + 8


def test_the_same_blocks_and_length_are_the_same_prompt_and_no_blocks_share_nothing(tokens: LocalTokens) -> None:
    requests = [request(0, 200, (1, 2, 3, 4)), request(9, 200, (1, 2, 3, 4)), request(10, 200), request(11, 200)]
    prompts, _ = made(tokens, requests)
    assert prompts[0].messages == prompts[1].messages
    assert common(tokens.ids(prompts[2]), tokens.ids(prompts[3])) < 60
    again, _ = made(tokens, requests)
    assert [prompt.sha256 for prompt in again] == [prompt.sha256 for prompt in prompts]


def test_a_prompt_shorter_than_the_template_is_the_template_and_counted(tokens: LocalTokens) -> None:
    least = len(tokens.ids(Renderer(Prompt()).prompt("", {"prompt": ""}, "")))
    prompts, lengthened = made(tokens, [request(0, 1), request(1, least), request(2, least + 40)])
    assert [len(tokens.ids(prompt)) for prompt in prompts] == [least, least, least + 40]
    assert lengthened == (1 if least > 1 else 0)


def test_prompts_of_the_trace_need_no_tokenizer() -> None:
    requests = [request(0, None, prompt="hello"), request(1, None, messages=[{"role": "user", "content": "hi"}])]
    part = TracePart(np.arange(2), tuple(requests), 512, USE)

    def no_tokens() -> LocalTokens:
        raise AssertionError("a tokenizer was asked for")

    prompts, _ = trace_prompts(part, Renderer(Prompt(user="Say: {{ prompt }}")), no_tokens, chat=True, seed=0, key="k")
    assert [prompt.messages for prompt in prompts] == [[{"role": "user", "content": "Say: hello"}], [{"role": "user", "content": "hi"}]]
    with pytest.raises(ScenarioError, match="line-1 of the trace has chat `messages`"):
        trace_prompts(part, Renderer(Prompt(api="completions")), no_tokens, chat=False, seed=0, key="k")
