"""What differs between an answer and the text it is held against, word by word, for people to look at. Pure.

Two JSON objects are compared by their words whatever the order of keys; anything else by an Indel alignment of words (rapidfuzz).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from perfbench.records import QualityRecord

Kind = Literal["same", "only here", "missing"]
"""missing: stands in the other text alone, and is shown where it would have to be."""

_WORD = re.compile(r"\w+|\s+|[^\w\s]")
_MOST_WORDS = 2000
"""Longer texts are shown unmarked: an alignment is quadratic."""
_ALIKE = 0.3
"""Below this share of words in common nothing is gained by an alignment: all of the answer is marked."""


@dataclass(frozen=True)
class Piece:
    """A run of text of one kind."""

    text: str
    kind: Kind


_JUDGED_ALONE = {"rubric_score", "win_rate", "human_score"}


def held_against(record: QualityRecord) -> str:
    """The text that an answer's marks come from: of several right answers the one that is most like it.

    Nothing where the expected text is no answer: what a judge or a program looks for (chat, constraints), a refusal that is due.
    """
    judged_alone = set(record.scores) <= _JUDGED_ALONE if record.scores else record.label == "not judged"
    if record.must_refuse or judged_alone:
        return ""
    if not record.expected.startswith("["):
        return record.expected
    try:
        several: list[str] = json.loads(record.expected)
    except (ValueError, RecursionError):
        return record.expected
    if not isinstance(several, list) or not several or not all(isinstance(one, str) for one in several):
        return ""
    return max(several, key=lambda one: _alike(_WORD.findall(one)[:_MOST_WORDS], _WORD.findall(record.output or "")[:_MOST_WORDS]))


def pieces(answer: str, against: str) -> tuple[Piece, ...]:
    """The answer in pieces; those of kind `same` and `only here` together are the answer."""
    words, others = _WORD.findall(answer), _WORD.findall(against)
    if not against.strip() or len(words) > _MOST_WORDS or len(others) > _MOST_WORDS:
        return (Piece(answer, "same"),) if answer else ()
    if _is_object(answer) and _is_object(against):
        return _joined(_by_words(words, Counter(others)))
    from rapidfuzz.distance import Indel

    if _alike(others, words) < _ALIKE:
        return (Piece(answer, "only here"),) if answer else ()
    found: list[Piece] = []
    for step in Indel.opcodes(others, words):
        if step.tag == "equal":
            found.append(Piece("".join(words[step.dest_start : step.dest_end]), "same"))
        if step.tag in ("delete", "replace"):
            found.append(Piece("".join(others[step.src_start : step.src_end]), "missing"))
        if step.tag in ("insert", "replace"):
            found.append(Piece("".join(words[step.dest_start : step.dest_end]), "only here"))
    return _joined(found)


def _alike(left: list[str], right: list[str]) -> float:
    from rapidfuzz.distance import Indel

    return float(Indel.normalized_similarity(*([word for word in text if word.strip()] for text in (left, right))))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _by_words(words: list[str], left: Counter[str]) -> list[Piece]:
    found = []
    for word in words:
        known = not word.strip() or left[word] > 0
        left[word] -= 1
        found.append(Piece(word, "same" if known or not word[0].isalnum() else "only here"))
    return found


def _joined(found: list[Piece]) -> tuple[Piece, ...]:
    """Neighbours of one kind as one piece; what is nothing but white space is not worth a mark."""
    joined: list[Piece] = []
    for piece in found:
        kind: Kind = "same" if piece.kind == "only here" and not piece.text.strip() else piece.kind
        if kind == "missing" and not piece.text.strip():
            continue
        if joined and joined[-1].kind == kind:
            joined[-1] = Piece(joined[-1].text + piece.text, kind)
        else:
            joined.append(Piece(piece.text, kind))
    return tuple(joined)
