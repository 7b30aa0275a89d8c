"""Constraints on an answer that a program can check: what each kind is, which arguments it takes, and whether a text keeps it.

A constraint stands in a data row as `{kind: words, at_most: 50}`. Those that count (constraint_counts) take at least one of
`at_least`, `at_most` and `exactly`. `problem` names what is wrong with a constraint before anything is asked.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from perfbench.quality.constraint_counts import (
    Bullets,
    CapitalWords,
    Characters,
    CheckedConstraint,
    Headings,
    Highlights,
    LetterTimes,
    Lines,
    NumberedItems,
    Numbers,
    Paragraphs,
    Placeholders,
    Sentences,
    Words,
    WordTimes,
    paragraphs_of,
    words_of,
)

_FENCE = re.compile(r"^```([\w+-]*)\s*\n.*?^```\s*$", re.MULTILINE | re.DOTALL)
_TABLE_RULE = re.compile(r"^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")


class Includes(CheckedConstraint, frozen=True, kw_only=True, tag="includes"):
    """All of these words or phrases occur, as whole words."""

    words: list[str]

    def holds(self, text: str) -> bool:
        return all(WordTimes(word=word, at_least=1).holds(text) for word in self.words)

    def problem(self) -> str | None:
        return None if self.words and all(words_of(word) for word in self.words) else "`words` is to hold words"


class Avoids(CheckedConstraint, frozen=True, kw_only=True, tag="avoids"):
    """None of these words or phrases occurs, as whole words."""

    words: list[str]

    def holds(self, text: str) -> bool:
        return not any(WordTimes(word=word, at_least=1).holds(text) for word in self.words)

    def problem(self) -> str | None:
        return None if self.words and all(words_of(word) for word in self.words) else "`words` is to hold words"


class AvoidsCharacters(CheckedConstraint, frozen=True, kw_only=True, tag="avoids_characters"):
    """None of these characters occurs: no commas, no exclamation marks, ..."""

    characters: str

    def holds(self, text: str) -> bool:
        return not set(self.characters) & set(text)

    def problem(self) -> str | None:
        return None if self.characters else "`characters` is empty"


class StartsWith(CheckedConstraint, frozen=True, kw_only=True, tag="starts_with"):
    """Begins with this text, white space aside; case matters."""

    text: str

    def holds(self, text: str) -> bool:
        return text.strip().startswith(self.text.strip())

    def problem(self) -> str | None:
        return None if self.text.strip() else "`text` is empty"


class EndsWith(CheckedConstraint, frozen=True, kw_only=True, tag="ends_with"):
    """Ends with this text, white space aside; case matters."""

    text: str

    def holds(self, text: str) -> bool:
        return text.strip().endswith(self.text.strip())

    def problem(self) -> str | None:
        return None if self.text.strip() else "`text` is empty"


class ParagraphStarts(CheckedConstraint, frozen=True, kw_only=True, tag="paragraph_starts"):
    """Paragraph number `paragraph` (from 1) begins with this word."""

    paragraph: int
    word: str

    def holds(self, text: str) -> bool:
        found = paragraphs_of(text)
        return self.paragraph <= len(found) and words_of(found[self.paragraph - 1])[:1] == words_of(self.word)[:1]

    def problem(self) -> str | None:
        return None if self.paragraph >= 1 and len(words_of(self.word)) == 1 else "`paragraph` counts from 1, and `word` is to be one word"


class Lowercase(CheckedConstraint, frozen=True, tag="lowercase"):
    """No capital letter, and some letter."""

    def holds(self, text: str) -> bool:
        return text.islower()


class Uppercase(CheckedConstraint, frozen=True, tag="uppercase"):
    """No small letter, and some letter."""

    def holds(self, text: str) -> bool:
        return text.isupper()


class OneOf(CheckedConstraint, frozen=True, kw_only=True, tag="one_of"):
    """The whole answer is one of these, case and end punctuation aside."""

    options: list[str]

    def holds(self, text: str) -> bool:
        return text.strip().rstrip(".!").casefold() in {option.strip().rstrip(".!").casefold() for option in self.options}

    def problem(self) -> str | None:
        return None if self.options else "`options` is empty"


class Json(CheckedConstraint, frozen=True, kw_only=True, tag="json"):
    """The whole answer is JSON; with `keys`, an object that has them all."""

    keys: list[str] = []

    def holds(self, text: str) -> bool:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return not self.keys or (isinstance(value, dict) and set(self.keys) <= value.keys())


class CodeBlock(CheckedConstraint, frozen=True, kw_only=True, tag="code_block"):
    """A fenced code block; with `language`, one that names it."""

    language: str | None = None

    def holds(self, text: str) -> bool:
        found = [language.casefold() for language in _FENCE.findall(text)]
        return bool(found) and (self.language is None or self.language.casefold() in found)


class Table(CheckedConstraint, frozen=True, kw_only=True, tag="table"):
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


class Quoted(CheckedConstraint, frozen=True, tag="quoted"):
    """The whole answer stands in double quotes."""

    def holds(self, text: str) -> bool:
        stripped = text.strip()
        return len(stripped) > 2 and (stripped[0], stripped[-1]) in (('"', '"'), ("\u201c", "\u201d"))


class Title(CheckedConstraint, frozen=True, tag="title"):
    """Has a title in double angle brackets, as in <<Spring>>."""

    def holds(self, text: str) -> bool:
        return re.search(r"<<[^<>\n]*[^\s<>][^<>\n]*>>", text) is not None


class Postscript(CheckedConstraint, frozen=True, kw_only=True, tag="postscript"):
    """Some line after the first begins with this mark, and text follows it."""

    marker: str = "P.S."

    def holds(self, text: str) -> bool:
        mark = self.marker.casefold()
        later = [line.strip().casefold() for line in text.strip().splitlines()[1:]]
        return any(line.startswith(mark) and len(line) > len(mark) for line in later)


class Sections(CheckedConstraint, frozen=True, kw_only=True, tag="sections"):
    """These titles occur as lines of their own, in this order; marks of headings, asterisks and an end colon are allowed around them."""

    titles: list[str]

    def holds(self, text: str) -> bool:
        lines = iter(line.strip().strip("#* ").rstrip(":").strip("#* ").casefold() for line in text.splitlines())
        return all(title.strip().rstrip(":").casefold() in lines for title in self.titles)

    def problem(self) -> str | None:
        return None if self.titles else "`titles` is empty"


class Separated(CheckedConstraint, frozen=True, kw_only=True, tag="separated"):
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


class Script(CheckedConstraint, frozen=True, kw_only=True, tag="script"):
    """Nine letters of ten are of this script."""

    script: Literal["latin", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "han", "hangul", "kana"]

    def holds(self, text: str) -> bool:
        prefixes = {"han": ("CJK",), "kana": ("HIRAGANA", "KATAKANA", "CJK")}.get(self.script, (self.script.upper(),))
        letters = [character for character in text if character.isalpha()]
        inside = sum(unicodedata.name(letter, "").startswith(prefixes) for letter in letters)
        return bool(letters) and inside >= 0.9 * len(letters)


class Ascii(CheckedConstraint, frozen=True, tag="ascii"):
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
            raise ValueError(f"constraint {number} (`{kind}`): {_in_words(str(error))}") from None
        problem = one.problem()
        if problem is not None:
            raise ValueError(f"constraint {number} (`{kind}`) {problem}")
        found.append(one)
    return found


def _in_words(problem: str) -> str:
    """msgspec's sentence about an argument, for who wrote the file: its types by their names in JSON, the argument's name in front."""
    said, _, place = problem.partition(" - at `$.")
    for name, word in _TYPES.items():
        said = said.replace(f"`{name}`", word)
    said = f"{said[0].lower()}{said[1:]}"
    return f"`{place.rstrip('`')}`: {said}" if place else said


_TYPES = {"int | null": "a whole number", "int": "a whole number", "str": "a text", "array": "a list", "object": "an object", "float": "a number",
          "bool": "true or false", "null": "null"}  # fmt: skip
