"""Constraints on an answer that a program can check: what each kind is, which arguments it takes, and whether a text keeps it.

A constraint stands in a data row as `{kind: words, at_most: 50}`. Counts take at least one of `at_least`, `at_most` and `exactly`. Words are runs of
letters and digits with inner apostrophes and hyphens; they are compared without regard to case. A sentence ends with . ! ? or a line's end; paragraphs
stand between blank lines. `prompt_problem` names what is wrong with a constraint before anything is asked.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, Literal, TypeAlias, get_args

import msgspec

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_BULLET = re.compile(r"^\s*[-*+\u2022]\s+\S", re.MULTILINE)
_NUMBERED = re.compile(r"^\s*\d+[.)]\s+\S", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+\S", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_HIGHLIGHT = re.compile(r"\*\*[^\n*]+\*\*|(?<!\*)\*[^\s*][^\n*]*\*(?!\*)")
_FENCE = re.compile(r"^```([\w+-]*)\s*\n.*?^```\s*$", re.MULTILINE | re.DOTALL)
_SENTENCE = re.compile(r"[^.!?\n]*[^\W_][^.!?\n]*(?:[.!?]+|\n|$)")
_TABLE_RULE = re.compile(r"^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def words_of(text: str) -> list[str]:
    """The words of a text, case folded."""
    return [word.casefold() for word in _WORD.findall(text)]


def paragraphs_of(text: str) -> list[str]:
    """Parts between blank lines."""
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


class _Constraint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    def holds(self, text: str) -> bool:
        raise NotImplementedError

    def problem(self) -> str | None:
        """What is wrong with the constraint itself."""
        return None


class _Count(_Constraint, frozen=True, kw_only=True):
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


class Words(_Count, frozen=True, tag="words"):
    """Number of words."""

    def count(self, text: str) -> int:
        return len(words_of(text))


class Sentences(_Count, frozen=True, tag="sentences"):
    """Number of sentences."""

    def count(self, text: str) -> int:
        return len(_SENTENCE.findall(text))


class Paragraphs(_Count, frozen=True, tag="paragraphs"):
    """Number of paragraphs."""

    def count(self, text: str) -> int:
        return len(paragraphs_of(text))


class Lines(_Count, frozen=True, tag="lines"):
    """Number of lines that are not empty."""

    def count(self, text: str) -> int:
        return sum(bool(line.strip()) for line in text.splitlines())


class Characters(_Count, frozen=True, tag="characters"):
    """Number of characters, white space around the text aside."""

    def count(self, text: str) -> int:
        return len(text.strip())


class Bullets(_Count, frozen=True, tag="bullets"):
    """Lines that begin as a bullet (-, *, + or a dot)."""

    def count(self, text: str) -> int:
        return len(_BULLET.findall(text))


class NumberedItems(_Count, frozen=True, tag="numbered_items"):
    """Lines that begin with a number and a point or bracket."""

    def count(self, text: str) -> int:
        return len(_NUMBERED.findall(text))


class Headings(_Count, frozen=True, tag="headings"):
    """Markdown headings (#)."""

    def count(self, text: str) -> int:
        return len(_HEADING.findall(text))


class Placeholders(_Count, frozen=True, tag="placeholders"):
    """Parts in square brackets, as in [name]."""

    def count(self, text: str) -> int:
        return len(_PLACEHOLDER.findall(text))


class Highlights(_Count, frozen=True, tag="highlights"):
    """Parts in *one* or **two** asterisks. The loose reading, which strips asterisks, never has any."""

    def count(self, text: str) -> int:
        return len(_HIGHLIGHT.findall(text))


class Numbers(_Count, frozen=True, tag="numbers"):
    """Numbers in digits."""

    def count(self, text: str) -> int:
        return len(_NUMBER.findall(text))


class CapitalWords(_Count, frozen=True, tag="capital_words"):
    """Words of two letters or more in capitals only."""

    def count(self, text: str) -> int:
        return sum(len(word) > 1 and word.isupper() for word in _WORD.findall(text))


class WordTimes(_Count, frozen=True, kw_only=True, tag="word_times"):
    """How often a word or phrase occurs, as whole words."""

    word: str

    def count(self, text: str) -> int:
        said, wanted = words_of(text), words_of(self.word)
        return sum(said[at : at + len(wanted)] == wanted for at in range(len(said) - len(wanted) + 1)) if wanted else 0

    def problem(self) -> str | None:
        return super().problem() or (None if words_of(self.word) else "`word` holds no word")


class LetterTimes(_Count, frozen=True, kw_only=True, tag="letter_times"):
    """How often a letter occurs, in either case."""

    letter: str

    def count(self, text: str) -> int:
        return text.casefold().count(self.letter.casefold())

    def problem(self) -> str | None:
        return super().problem() or (None if len(self.letter) == 1 else "`letter` is to be one character")


class Includes(_Constraint, frozen=True, kw_only=True, tag="includes"):
    """All of these words or phrases occur, as whole words."""

    words: list[str]

    def holds(self, text: str) -> bool:
        return all(WordTimes(word=word, at_least=1).holds(text) for word in self.words)

    def problem(self) -> str | None:
        return None if self.words and all(words_of(word) for word in self.words) else "`words` is to hold words"


class Avoids(_Constraint, frozen=True, kw_only=True, tag="avoids"):
    """None of these words or phrases occurs, as whole words."""

    words: list[str]

    def holds(self, text: str) -> bool:
        return not any(WordTimes(word=word, at_least=1).holds(text) for word in self.words)

    def problem(self) -> str | None:
        return None if self.words and all(words_of(word) for word in self.words) else "`words` is to hold words"


class AvoidsCharacters(_Constraint, frozen=True, kw_only=True, tag="avoids_characters"):
    """None of these characters occurs: no commas, no exclamation marks, ..."""

    characters: str

    def holds(self, text: str) -> bool:
        return not set(self.characters) & set(text)

    def problem(self) -> str | None:
        return None if self.characters else "`characters` is empty"


class StartsWith(_Constraint, frozen=True, kw_only=True, tag="starts_with"):
    """Begins with this text, white space aside; case matters."""

    text: str

    def holds(self, text: str) -> bool:
        return text.strip().startswith(self.text.strip())

    def problem(self) -> str | None:
        return None if self.text.strip() else "`text` is empty"


class EndsWith(_Constraint, frozen=True, kw_only=True, tag="ends_with"):
    """Ends with this text, white space aside; case matters."""

    text: str

    def holds(self, text: str) -> bool:
        return text.strip().endswith(self.text.strip())

    def problem(self) -> str | None:
        return None if self.text.strip() else "`text` is empty"


class ParagraphStarts(_Constraint, frozen=True, kw_only=True, tag="paragraph_starts"):
    """Paragraph number `paragraph` (from 1) begins with this word."""

    paragraph: int
    word: str

    def holds(self, text: str) -> bool:
        found = paragraphs_of(text)
        return self.paragraph <= len(found) and words_of(found[self.paragraph - 1])[:1] == words_of(self.word)[:1]

    def problem(self) -> str | None:
        return None if self.paragraph >= 1 and len(words_of(self.word)) == 1 else "`paragraph` counts from 1, and `word` is to be one word"


class Lowercase(_Constraint, frozen=True, tag="lowercase"):
    """No capital letter, and some letter."""

    def holds(self, text: str) -> bool:
        return text.islower()


class Uppercase(_Constraint, frozen=True, tag="uppercase"):
    """No small letter, and some letter."""

    def holds(self, text: str) -> bool:
        return text.isupper()


class OneOf(_Constraint, frozen=True, kw_only=True, tag="one_of"):
    """The whole answer is one of these, case and end punctuation aside."""

    options: list[str]

    def holds(self, text: str) -> bool:
        return text.strip().rstrip(".!").casefold() in {option.strip().rstrip(".!").casefold() for option in self.options}

    def problem(self) -> str | None:
        return None if self.options else "`options` is empty"


class Json(_Constraint, frozen=True, kw_only=True, tag="json"):
    """The whole answer is JSON; with `keys`, an object that has them all."""

    keys: list[str] = []

    def holds(self, text: str) -> bool:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return not self.keys or (isinstance(value, dict) and set(self.keys) <= value.keys())


class CodeBlock(_Constraint, frozen=True, kw_only=True, tag="code_block"):
    """A fenced code block; with `language`, one that names it."""

    language: str | None = None

    def holds(self, text: str) -> bool:
        found = [language.casefold() for language in _FENCE.findall(text)]
        return bool(found) and (self.language is None or self.language.casefold() in found)


class Table(_Constraint, frozen=True, kw_only=True, tag="table"):
    """A Markdown table; with `columns`, of so many columns; with `rows`, of at least so many rows under its header."""

    columns: int | None = None
    rows: int | None = None

    def holds(self, text: str) -> bool:
        lines = text.splitlines()
        return any(self._at(lines, number) for number in range(1, len(lines)) if "|" in lines[number] and _TABLE_RULE.match(lines[number]))

    def _at(self, lines: list[str], rule: int) -> bool:
        columns = len(lines[rule - 1].strip().strip("|").split("|"))
        body = 0
        for line in lines[rule + 1 :]:
            if "|" not in line:
                break
            body += 1
        return "|" in lines[rule - 1] and (self.columns is None or columns == self.columns) and (self.rows is None or body >= self.rows)


class Quoted(_Constraint, frozen=True, tag="quoted"):
    """The whole answer stands in double quotes."""

    def holds(self, text: str) -> bool:
        stripped = text.strip()
        return len(stripped) > 2 and (stripped[0], stripped[-1]) in (('"', '"'), ("\u201c", "\u201d"))


class Title(_Constraint, frozen=True, tag="title"):
    """Has a title in double angle brackets, as in <<Spring>>."""

    def holds(self, text: str) -> bool:
        return re.search(r"<<[^<>\n]*[^\s<>][^<>\n]*>>", text) is not None


class Postscript(_Constraint, frozen=True, kw_only=True, tag="postscript"):
    """Some line after the first begins with this mark, and text follows it."""

    marker: str = "P.S."

    def holds(self, text: str) -> bool:
        mark = self.marker.casefold()
        later = [line.strip().casefold() for line in text.strip().splitlines()[1:]]
        return any(line.startswith(mark) and len(line) > len(mark) for line in later)


class Sections(_Constraint, frozen=True, kw_only=True, tag="sections"):
    """These titles occur as lines of their own, in this order; marks of headings, asterisks and an end colon are allowed around them."""

    titles: list[str]

    def holds(self, text: str) -> bool:
        lines = iter(line.strip().strip("#* ").rstrip(":").strip("#* ").casefold() for line in text.splitlines())
        return all(title.strip().rstrip(":").casefold() in lines for title in self.titles)

    def problem(self) -> str | None:
        return None if self.titles else "`titles` is empty"


class Separated(_Constraint, frozen=True, kw_only=True, tag="separated"):
    """So many parts, none empty, between lines that hold the separator alone."""

    parts: int
    separator: str = "***"

    def holds(self, text: str) -> bool:
        found = [""]
        for line in text.splitlines():
            if line.strip() == self.separator:
                found.append("")
            else:
                found[-1] += line
        return len(found) == self.parts and all(part.strip() for part in found)


class Script(_Constraint, frozen=True, kw_only=True, tag="script"):
    """Nine letters of ten are of this script."""

    script: Literal["latin", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "han", "hangul", "kana"]

    def holds(self, text: str) -> bool:
        prefixes = {"han": ("CJK",), "kana": ("HIRAGANA", "KATAKANA", "CJK")}.get(self.script, (self.script.upper(),))
        letters = [character for character in text if character.isalpha()]
        inside = sum(unicodedata.name(letter, "").startswith(prefixes) for letter in letters)
        return bool(letters) and inside >= 0.9 * len(letters)


class Ascii(_Constraint, frozen=True, tag="ascii"):
    """No character outside ASCII: no emoji, no accents."""

    def holds(self, text: str) -> bool:
        return text.isascii()


Constraint: TypeAlias = (
    Words | Sentences | Paragraphs | Lines | Characters | Bullets | NumberedItems | Headings | Placeholders | Highlights | Numbers | CapitalWords
    | WordTimes | LetterTimes | Includes | Avoids | AvoidsCharacters | StartsWith | EndsWith | ParagraphStarts | Lowercase | Uppercase | OneOf | Json
    | CodeBlock | Table | Quoted | Title | Postscript | Sections | Separated | Script | Ascii
)  # fmt: skip

KINDS: dict[str, str] = {str(kind.__struct_config__.tag): (kind.__doc__ or "").strip() for kind in get_args(Constraint)}
"""kind -> what it asks for."""


def read_constraints(value: Any) -> list[Constraint]:
    """A column's value as constraints (in CSV: its JSON text). Raises ValueError with one sentence for a kind or argument that does not exist."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("expected a list of constraints, each {kind: ..., ...}") from None
    if not isinstance(value, list) or not value:
        raise ValueError("expected a list of constraints, each {kind: ..., ...}, and at least one")
    found: list[Constraint] = []
    for number, item in enumerate(value):
        kind = item.get("kind") if isinstance(item, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"constraint {number}: `{kind}` is no kind of constraint; expected one of {', '.join(KINDS)}")
        try:
            one = msgspec.convert(item, Constraint)
        except msgspec.ValidationError as error:
            raise ValueError(f"constraint {number} (`{kind}`): {str(error)[0].lower()}{str(error)[1:]}") from None
        problem = one.problem()
        if problem is not None:
            raise ValueError(f"constraint {number} (`{kind}`) {problem}")
        found.append(one)
    return found
