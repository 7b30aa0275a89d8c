"""Made prompts of exact length: ordinary words, seeded, some of them beginning with a text that they share. No real data.

Length is that of the whole prompt as the server counts it: chat template, system message and the scenario's own template included. A shared prefix
is a text of exactly so many tokens at the start of what the user says; prompts of one group agree in all tokens up to its end, which is checked token
by token, because a tokenizer may join the prefix's last word to what follows; an empty line after it makes that unlikely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from perfbench.errors import Finding, ScenarioError
from perfbench.prompts import RenderedPrompt, Renderer
from perfbench.scenario.workload import SharedPrefix, Synthetic
from perfbench.workload.exact import NoExactTextError, TooFewTokensError, exact_text
from perfbench.workload.lengths import draw_lengths
from perfbench.workload.tokens import PromptTokens

_ATTEMPTS = 8
_AFTER_PREFIX = "\n\n"
_LENGTHS, _SHARING, _PREFIX, _TEXT = range(4)
"""Each kind of draw has a seed of its own, so that one more prompt changes none of the others."""

OnCount = Callable[[int, int], None]


@dataclass(frozen=True)
class _Maker:
    """What every prompt of one synthetic source needs."""

    synthetic: Synthetic
    renderer: Renderer
    tokens: PromptTokens
    seed: Sequence[int]
    key: str

    def ids(self, text: str) -> list[int]:
        return self.tokens.ids(self.renderer.prompt("", {"prompt": text}, "a made prompt"))

    def count(self, text: str) -> int:
        return len(self.ids(text))

    def random(self, *kind: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([*self.seed, *kind]))

    def refuse(self, part: str, problem: str) -> NoReturn:
        raise ScenarioError("scenario", [Finding(f"{self.key}.{part}", problem)])


@dataclass(frozen=True)
class _Prefix:
    """A group's shared text, and the tokens that every prompt of the group begins with."""

    text: str
    ids: list[int]


def make_texts(
    synthetic: Synthetic, renderer: Renderer, tokens: PromptTokens, *, turns: int, seed: Sequence[int], key: str, on_count: OnCount | None = None
) -> list[list[str]]:
    """The user texts of every prompt, `turns` of them; filled into the scenario's template, each has exactly the drawn number of tokens.

    Raises ScenarioError where a drawn length is shorter than the template and the shared prefix alone.
    """
    maker = _Maker(synthetic, renderer, tokens, seed, key)
    lengths = draw_lengths(synthetic.input_tokens, synthetic.prompts * turns, [*seed, _LENGTHS], key=f"{key}.input_tokens")
    prefixes = _prefixes(maker)
    made = []
    for number in range(synthetic.prompts):
        mine = lengths[number * turns : (number + 1) * turns]
        texts = [_text(maker, wanted, prefixes[number] if turn == 0 else None, number * turns + turn) for turn, wanted in enumerate(mine)]
        made.append(texts)
        if on_count is not None:
            on_count(number + 1, synthetic.prompts)
    return made


def _text(maker: _Maker, wanted: int, prefix: _Prefix | None, number: int) -> str:
    beginning = prefix.text + _AFTER_PREFIX if prefix is not None else ""
    for attempt in range(_ATTEMPTS):
        try:
            text = exact_text(wanted, maker.count, maker.random(_TEXT, number, attempt), beginning=beginning)
        except TooFewTokensError as error:
            inside = "the template and the shared prefix alone have" if prefix is not None else "the template alone has"
            maker.refuse("input_tokens", f"a length of {wanted} tokens was drawn, and {inside} {error.least}; let lengths begin above that")
        except NoExactTextError:
            continue
        if prefix is None or maker.ids(text)[: len(prefix.ids)] == prefix.ids:
            return text
    maker.refuse("input_tokens", f"no text of exactly {wanted} tokens was found for this tokenizer; choose another length")


def _prefixes(maker: _Maker) -> list[_Prefix | None]:
    """The prefix of each prompt. Which prompts share, and in which group, is drawn; how many do is exact."""
    shared, count = maker.synthetic.shared_prefix, maker.synthetic.prompts
    if shared is None:
        return [None] * count
    groups = [_prefix(maker, shared, group) for group in range(shared.groups)]
    sharing = [int(number) for number in maker.random(_SHARING).permutation(count)[: round(shared.share * count)]]
    chosen: list[_Prefix | None] = [None] * count
    for place, number in enumerate(sharing):
        chosen[number] = groups[place % len(groups)]
    return chosen


def _prefix(maker: _Maker, shared: SharedPrefix, group: int) -> _Prefix:
    """A text that adds exactly `tokens` to the empty prompt, with the ids up to its end."""
    empty = maker.ids("")
    for attempt in range(_ATTEMPTS):
        random = maker.random(_PREFIX, group, attempt)
        try:
            text = exact_text(len(empty) + shared.tokens, maker.count, random)
        except NoExactTextError:
            continue
        ids = maker.ids(text)
        head = next((place for place, (one, other) in enumerate(zip(empty, ids, strict=False)) if one != other), len(empty))
        # The template's own tokens come before the text and, for most templates, after it: the shared tokens end where the text does.
        return _Prefix(text, ids[: head + shared.tokens])
    maker.refuse("shared_prefix.tokens", f"no text of exactly {shared.tokens} tokens was found for this tokenizer; choose another length")


def rendered(texts: Sequence[Sequence[str]], renderer: Renderer) -> list[RenderedPrompt]:
    """The texts as prompts `s0`, `s1`, ...; more than one text is a conversation."""
    prompts = []
    for number, turns in enumerate(texts):
        prompt_id = f"s{number}"
        if len(turns) == 1:
            prompts.append(renderer.prompt(prompt_id, {"prompt": turns[0]}, "a made prompt"))
        else:
            prompts.append(renderer.conversation(prompt_id, {}, turns, None, "a made prompt"))
    return prompts
