"""Whether a text states what it has to: facts and key points, each a wording or several wordings of the same thing.

A wording is stated when its words stand in the text in the same order and next to each other, or nearly so: rapidfuzz's `partial_ratio` of the normalised
texts (SQuAD's normalisation) reaches 90, and every number in the wording stands in the text as a word of its own. That forgives endings and a changed
letter, never a changed number. A negation is not understood: `coverage` supports a judgement, it does not replace reading.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from perfbench.quality.qa import normalise

NEARLY = 90.0
_NUMBER = re.compile(r"\d")

Fact: TypeAlias = list[str]
"""Wordings of one fact; any of them will do."""


def facts(value: object) -> list[Fact]:
    """A column's value as facts: a list whose items are a text, or a list of wordings; ValueError for anything else (in CSV: its JSON text)."""
    import json

    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("expected a list of texts") from None
    if not isinstance(value, list) or not value:
        raise ValueError("expected a list of texts, each a fact, or a list of wordings of one")
    found = [[item] if isinstance(item, str) else item for item in value]
    if any(not isinstance(fact, list) or not fact or any(not isinstance(one, str) or not normalise(one) for one in fact) for fact in found):
        raise ValueError("expected texts, or lists of texts, none of them empty")
    return found


def stated(text: str, wordings: Sequence[str]) -> bool:
    """Whether a text states a fact in one of its wordings."""
    from rapidfuzz import fuzz

    said = normalise(text)
    words = set(said.split())
    for wording in wordings:
        wanted = normalise(wording)
        if any(word not in words for word in wanted.split() if _NUMBER.search(word)):
            continue
        if f" {wanted} " in f" {said} " or (len(wanted) >= 8 and len(said) >= len(wanted) and fuzz.partial_ratio(wanted, said) >= NEARLY):
            return True
    return False


def missing(text: str, wanted: Sequence[Fact]) -> list[str]:
    """The facts that a text does not state, each by its first wording."""
    return [fact[0] for fact in wanted if not stated(text, fact)]
