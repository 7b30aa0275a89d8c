"""Text that a tokenizer makes exactly N tokens of, from ordinary words.

Token ids that are drawn and decoded do not come back when the text is encoded again: neighbours merge. So the text is built and counted as the server
will count it: words are added and dropped until the count is met; where whole words step over it, the last few are exchanged for others and for
single characters. What comes out has been counted, never estimated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from perfbench.workload.words import PIECES, WORDS

Count = Callable[[str], int]
"""Tokens of the whole prompt with this text in it."""

_ROUNDS = 30
_EXCHANGED = 6
"""So many words at the end are given up, one after another, to find an ending that fits."""


class TooFewTokensError(ValueError):
    """The tokens asked for are fewer than the prompt has without any word. `least` says how many it has."""

    def __init__(self, least: int) -> None:
        super().__init__(f"at least {least} tokens")
        self.least = least


class NoExactTextError(ValueError):
    """No text with this count was found."""


def exact_text(tokens: int, count: Count, random: np.random.Generator, *, beginning: str = "") -> str:
    """`beginning` and words after it, so that `count(text) == tokens`. Raises TooFewTokensError and NoExactTextError."""
    least = count(beginning)
    if least > tokens:
        raise TooFewTokensError(least)
    words = [*([beginning] if beginning else [])]
    kept, have = len(words), least
    under: list[str] = list(words)
    for _ in range(_ROUNDS):
        if have == tokens:
            return " ".join(words)
        if have < tokens:
            under = list(words)
            words = words + _draw(max(1, round((tokens - have) / _tokens_per_word(words, kept, have - least))), random)
        else:
            words = words[: max(len(under) + 1, len(words) - max(1, round((have - tokens) / _tokens_per_word(words, kept, have - least))))]
            if len(words) == len(under) + 1 and len(words) > kept and count(" ".join(words)) > tokens:
                break
        have = count(" ".join(words))
    return _with_another_ending(under, kept, tokens, count, random)


def _tokens_per_word(words: list[str], kept: int, tokens: int) -> float:
    """As seen so far, at least 1/2 so that no round jumps far beyond."""
    return max(0.5, tokens / (len(words) - kept)) if len(words) > kept and tokens > 0 else 1.0


def _draw(count: int, random: np.random.Generator) -> list[str]:
    return [WORDS[int(index)] for index in random.integers(0, len(WORDS), count)]


def _with_another_ending(words: list[str], kept: int, tokens: int, count: Count, random: np.random.Generator) -> str:
    """Give up the last words one by one; in front of each gap try every word, then a word and a piece."""
    endings = [WORDS[int(index)] for index in random.permutation(len(WORDS))[:64]]
    for given_up in range(min(_EXCHANGED, len(words) - kept) + 1):
        start = words[: len(words) - given_up]
        for ending in (*PIECES, *endings):
            have = count(" ".join([*start, ending]))
            if have == tokens:
                return " ".join([*start, ending])
        filled = _filled_with_pieces(start, tokens, count)
        if filled is not None:
            return filled
    raise NoExactTextError(f"no text of exactly {tokens} tokens was found")


def _filled_with_pieces(words: list[str], tokens: int, count: Count) -> str | None:
    """Short pieces until the count is met; None where they step over it."""
    for piece in PIECES:
        tried = list(words)
        have = count(" ".join(tried))
        while have < tokens and len(tried) < len(words) + 64:
            tried.append(piece)
            have = count(" ".join(tried))
        if have == tokens:
            return " ".join(tried)
    return None
