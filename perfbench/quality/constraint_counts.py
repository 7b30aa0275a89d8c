"""Constraints that count something: at least, at most or exactly so many words, lines, headings, ... in an answer.

Words are runs of letters and digits with inner apostrophes and hyphens; they are compared without regard to case. A sentence ends with . ! ? or a line's
end; paragraphs stand between blank lines.
"""

from __future__ import annotations

import re

import msgspec

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_BULLET = re.compile(r"^\s*[-*+\u2022]\s+\S", re.MULTILINE)
_NUMBERED = re.compile(r"^\s*\d+[.)]\s+\S", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+\S", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_HIGHLIGHT = re.compile(r"\*\*[^\n*]+\*\*|(?<!\*)\*[^\s*][^\n*]*\*(?!\*)")
_SENTENCE_END = re.compile(r"[.!?\n]")
_LETTER = re.compile(r"[^\W_]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def words_of(text: str) -> list[str]:
    """The words of a text, case folded."""
    return [word.casefold() for word in _WORD.findall(text)]


def paragraphs_of(text: str) -> list[str]:
    """Parts between blank lines."""
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


class CheckedConstraint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"):
    """What every kind can do."""

    def holds(self, text: str) -> bool:
        raise NotImplementedError

    def problem(self) -> str | None:
        """What is wrong with the constraint itself."""
        return None


class CountConstraint(CheckedConstraint, frozen=True, kw_only=True):
    """At least one of the limits is given."""

    at_least: int | None = None
    at_most: int | None = None
    exactly: int | None = None

    def count(self, text: str) -> int:
        raise NotImplementedError

    def holds(self, text: str) -> bool:
        n = self.count(text)
        return (
            (self.at_least is None or n >= self.at_least) and (self.at_most is None or n <= self.at_most) and (self.exactly is None or n == self.exactly)
        )

    def problem(self) -> str | None:
        given = [limit for limit in (self.at_least, self.at_most, self.exactly) if limit is not None]
        if not given:
            return "needs at least one of `at_least`, `at_most`, `exactly`"
        if min(given) < 0 or (self.at_least is not None and self.at_most is not None and self.at_least > self.at_most):
            return "has limits that no text can keep"
        return None


class Words(CountConstraint, frozen=True, tag="words"):
    """Number of words."""

    def count(self, text: str) -> int:
        return len(words_of(text))


class Sentences(CountConstraint, frozen=True, tag="sentences"):
    """Number of sentences."""

    def count(self, text: str) -> int:
        return sum(_LETTER.search(part) is not None for part in _SENTENCE_END.split(text))


class Paragraphs(CountConstraint, frozen=True, tag="paragraphs"):
    """Number of paragraphs."""

    def count(self, text: str) -> int:
        return len(paragraphs_of(text))


class Lines(CountConstraint, frozen=True, tag="lines"):
    """Number of lines that are not empty."""

    def count(self, text: str) -> int:
        return sum(bool(line.strip()) for line in text.splitlines())


class Characters(CountConstraint, frozen=True, tag="characters"):
    """Number of characters, white space around the text aside."""

    def count(self, text: str) -> int:
        return len(text.strip())


class Bullets(CountConstraint, frozen=True, tag="bullets"):
    """Lines that begin as a bullet (-, *, + or a dot)."""

    def count(self, text: str) -> int:
        return len(_BULLET.findall(text))


class NumberedItems(CountConstraint, frozen=True, tag="numbered_items"):
    """Lines that begin with a number and a point or bracket."""

    def count(self, text: str) -> int:
        return len(_NUMBERED.findall(text))


class Headings(CountConstraint, frozen=True, tag="headings"):
    """Markdown headings (#)."""

    def count(self, text: str) -> int:
        return len(_HEADING.findall(text))


class Placeholders(CountConstraint, frozen=True, tag="placeholders"):
    """Parts in square brackets, as in [name]."""

    def count(self, text: str) -> int:
        return len(_PLACEHOLDER.findall(text))


class Highlights(CountConstraint, frozen=True, tag="highlights"):
    """Parts in *one* or **two** asterisks. The loose reading, which strips asterisks, never has any."""

    def count(self, text: str) -> int:
        return len(_HIGHLIGHT.findall(text))


class Numbers(CountConstraint, frozen=True, tag="numbers"):
    """Numbers in digits."""

    def count(self, text: str) -> int:
        return len(_NUMBER.findall(text))


class CapitalWords(CountConstraint, frozen=True, tag="capital_words"):
    """Words of two letters or more in capitals only."""

    def count(self, text: str) -> int:
        return sum(len(word) > 1 and word.isupper() for word in _WORD.findall(text))


class WordTimes(CountConstraint, frozen=True, kw_only=True, tag="word_times"):
    """How often a word or phrase occurs, as whole words."""

    word: str

    def count(self, text: str) -> int:
        said, wanted = words_of(text), words_of(self.word)
        return sum(said[at : at + len(wanted)] == wanted for at in range(len(said) - len(wanted) + 1)) if wanted else 0

    def problem(self) -> str | None:
        return super().problem() or (None if words_of(self.word) else "`word` holds no word")


class LetterTimes(CountConstraint, frozen=True, kw_only=True, tag="letter_times"):
    """How often a letter occurs, in either case."""

    letter: str

    def count(self, text: str) -> int:
        return text.casefold().count(self.letter.casefold())

    def problem(self) -> str | None:
        return super().problem() or (None if len(self.letter) == 1 else "`letter` is to be one character")
