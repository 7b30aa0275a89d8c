"""Sentence templates of Home Assistant: parse one, and draw sentences from it together with the slots they fill.

The syntax (hassil's): `word`, `[optional]`, `(one|other)`, `(in;any;order)`, `<rule>` and `{list}` or `{list:slot}`; `\\` takes
the next character as it is. A template is parsed once into a small tree; drawing walks the tree with a seeded generator, so
that one seed always gives the same sentences. hassil itself lists every sentence of a template (millions for the longer ones)
and does not say which slot a word came from; both are the wrong way round for drawing training data.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SlotValue = str | int | float
DrawSlot = Callable[[str, random.Random], tuple[str, SlotValue]]
"""List name -> a spoken text and the value that it stands for."""

_CLOSERS = {"(": ")", "[": "]", "{": "}", "<": ">"}


class TemplateError(ValueError):
    """A template that cannot be parsed or names a rule that does not exist."""


@dataclass(frozen=True)
class Text:
    """Words as they are spoken."""

    text: str


@dataclass(frozen=True)
class Sequence:
    """Parts one after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """Exactly one of the parts; an `[optional]` has the empty text as one of them."""

    options: tuple[Node, ...]


@dataclass(frozen=True)
class Permutation:
    """All parts, in any order, with spaces between them."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Slot:
    """A value from a list, kept under a slot's name."""

    list_name: str
    slot_name: str


@dataclass(frozen=True)
class Rule:
    """Another template, by name."""

    name: str


Node = Text | Sequence | Choice | Permutation | Slot | Rule


def parse_template(template: str) -> Node:
    """The tree of a template. Raises TemplateError where a bracket is not closed, closed twice, or empty of a name."""
    node, end = _parse_group(template, 0, "")
    if end != len(template):
        raise TemplateError(f"`{template}`: `{template[end]}` at {end} closes nothing")
    return node


def _parse_group(template: str, at: int, closer: str) -> tuple[Node, int]:
    """Parts up to `closer` ('' means the end of the template), and where they end."""
    branches: list[list[Node]] = [[]]
    separator = ""
    start = at
    while at < len(template) and template[at] != closer:
        character = template[at]
        if character in ")]}>":
            break
        if character in "|;":
            if separator not in ("", character):
                raise TemplateError(f"`{template}`: `|` and `;` in one group")
            separator = character
            branches.append([])
            at += 1
        elif character in _CLOSERS:
            node, at = _parse_bracket(template, at)
            branches[-1].append(node)
        else:
            text, at = _parse_text(template, at)
            branches[-1].append(Text(text))
    if closer and (at >= len(template) or template[at] != closer):
        raise TemplateError(f"`{template}`: the group that starts at {start} has no `{closer}`")
    parts = tuple(branch[0] if len(branch) == 1 else Sequence(tuple(branch)) for branch in branches)
    if separator == ";":
        return Permutation(parts), at
    return (Choice(parts) if separator == "|" else parts[0]), at


def _parse_bracket(template: str, at: int) -> tuple[Node, int]:
    opener = template[at]
    if opener in "([":
        inner, end = _parse_group(template, at + 1, _CLOSERS[opener])
        return (inner if opener == "(" else _optional(inner)), end + 1
    end = template.find(_CLOSERS[opener], at)
    name = template[at + 1 : end].strip() if end > 0 else ""
    if not name:
        raise TemplateError(f"`{template}`: expected a name and `{_CLOSERS[opener]}` after `{opener}` at {at}")
    if opener == "<":
        return Rule(name), end + 1
    list_name, _, slot_name = name.partition(":")
    return Slot(list_name, slot_name or list_name), end + 1


def _optional(inner: Node) -> Choice:
    """Said in half of the sentences, whatever the number of ways to say it."""
    return Choice((inner, Text("")))


def _parse_text(template: str, at: int) -> tuple[str, int]:
    taken = ""
    while at < len(template) and template[at] not in "()[]{}<>|;":
        if template[at] == "\\" and at + 1 < len(template):
            at += 1
        taken += template[at]
        at += 1
    return taken, at


def draw(node: Node, rules: Mapping[str, Node], draw_slot: DrawSlot, generator: random.Random) -> tuple[str, dict[str, SlotValue]]:
    """One sentence of a template, with single spaces, and the slots it fills. Raises TemplateError for an unknown rule."""
    slots: dict[str, SlotValue] = {}
    text = _draw(node, rules, draw_slot, generator, slots)
    return re.sub(r"\s+", " ", text).strip(), slots


def _draw(node: Node, rules: Mapping[str, Node], draw_slot: DrawSlot, generator: random.Random, slots: dict[str, SlotValue]) -> str:
    if isinstance(node, Text):
        return node.text
    if isinstance(node, Slot):
        spoken, slots[node.slot_name] = draw_slot(node.list_name, generator)
        return spoken
    if isinstance(node, Rule):
        if node.name not in rules:
            raise TemplateError(f"there is no rule `<{node.name}>`")
        return _draw(rules[node.name], rules, draw_slot, generator, slots)
    if isinstance(node, Choice):
        return _draw(generator.choice(node.options), rules, draw_slot, generator, slots)
    parts = list(node.parts)
    if isinstance(node, Permutation):
        generator.shuffle(parts)
    drawn = [_draw(part, rules, draw_slot, generator, slots) for part in parts]
    return (" " if isinstance(node, Permutation) else "").join(drawn)


def slot_names(node: Node, rules: Mapping[str, Node]) -> set[str]:
    """Every slot that a sentence of the template may fill."""
    if isinstance(node, Slot):
        return {node.slot_name}
    if isinstance(node, Rule):
        return slot_names(rules[node.name], rules)
    children = node.options if isinstance(node, Choice) else node.parts if isinstance(node, (Sequence, Permutation)) else ()
    return {name for child in children for name in slot_names(child, rules)}
