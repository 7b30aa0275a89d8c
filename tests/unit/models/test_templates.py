"""The template language: what is drawn is what the template allows, and the slots are those that were spoken."""

import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.models.templates import TemplateError, draw, parse_template, slot_names

WORDS = st.sampled_from(["turn", "on", "the", "light", "up", "of", "%", "°"])


def every_sentence(template: str, rules: dict[str, str] | None = None, draws: int = 400) -> set[str]:
    parsed = {name: parse_template(body) for name, body in (rules or {}).items()}
    node = parse_template(template)
    return {draw(node, parsed, lambda name, _: (f"<{name}>", name), random.Random(seed))[0] for seed in range(draws)}


@pytest.mark.parametrize(
    ("template", "sentences"),
    [
        ("turn on", {"turn on"}),
        ("turn (on|off)", {"turn on", "turn off"}),
        ("turn on [now]", {"turn on", "turn on now"}),
        ("[the|my] timer", {"timer", "the timer", "my timer"}),
        ("window[s]", {"window", "windows"}),
        ("5( |-)hour", {"5 hour", "5-hour"}),
        ("5[([ ]%)| percent]", {"5", "5%", "5 %", "5 percent"}),
        ("all [[of ](the|my)] timers", {"all timers", "all the timers", "all my timers", "all of the timers", "all of my timers"}),
        ("(to {p};in {a})", {"to <p> in <a>", "in <a> to <p>"}),
        ("skip (off;[now]) please", {"skip off please", "skip off now please", "skip now off please"}),
        (r"say \(hi\)", {"say (hi)"}),
    ],
)
def test_draws_exactly_the_sentences_of_a_template(template: str, sentences: set[str]) -> None:
    assert every_sentence(template) == sentences


def test_rules_are_filled_in_and_may_use_rules() -> None:
    assert every_sentence("<set> it", {"set": "(make|<turn>)", "turn": "turn [on]"}) == {"make it", "turn it", "turn on it"}


def test_a_slot_is_kept_under_its_own_name() -> None:
    template = parse_template("for {timer_hours:hours}( |-)hour[s]")
    text, slots = draw(template, {}, lambda name, _: ("3", 3) if name == "timer_hours" else ("", ""), random.Random(1))
    assert re.fullmatch(r"for 3[ -]hours?", text)
    assert slots == {"hours": 3}


def test_only_spoken_slots_are_returned() -> None:
    node = parse_template("go [to {area}]")
    seen = set()
    for seed in range(50):
        text, slots = draw(node, {}, lambda name, _: ("den", "den"), random.Random(seed))
        assert slots == ({"area": "den"} if "den" in text else {})
        seen.add(text)
    assert seen == {"go", "go to den"}


@pytest.mark.parametrize("template", ["(on|off", "[on", "on)", "on]", "{area", "{}", "<>", "(a|b;c)", "a>"])
def test_a_broken_template_is_refused(template: str) -> None:
    with pytest.raises(TemplateError):
        parse_template(template)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(TemplateError, match="<nowhere>"):
        draw(parse_template("go <nowhere>"), {}, lambda name, _: ("", ""), random.Random(0))


def test_slot_names_looks_into_rules_and_options() -> None:
    assert slot_names(parse_template("[a {x}] (<r>|{y:z})"), {"r": parse_template("{w}")}) == {"x", "z", "w"}


trees = st.recursive(
    WORDS.map(lambda word: (word, {word})),
    lambda inner: st.one_of(
        inner.map(lambda one: (f"[{one[0]}]", one[1] | {""})),
        st.lists(inner, min_size=2, max_size=3).map(lambda many: ("(" + "|".join(text for text, _ in many) + ")", set().union(*(said for _, said in many)))),
        st.lists(inner, min_size=2, max_size=2).map(
            lambda many: (f"({many[0][0]}) ({many[1][0]})", {f"{left} {right}" for left, right in itertools.product(many[0][1], many[1][1])})
        ),
        st.lists(inner, min_size=2, max_size=2).map(
            lambda many: (
                f"({many[0][0]};{many[1][0]})",
                {f"{left} {right}" for pair in (many, many[::-1]) for left, right in itertools.product(pair[0][1], pair[1][1])},
            )
        ),
    ),
    max_leaves=6,
)


@given(trees, st.integers(0, 2**32))
def test_what_is_drawn_is_in_the_template_s_language(tree: tuple[str, set[str]], seed: int) -> None:
    template, sentences = tree
    text, slots = draw(parse_template(template), {}, lambda name, _: ("", ""), random.Random(seed))
    assert text in {" ".join(sentence.split()) for sentence in sentences}
    assert slots == {}


@given(st.text(alphabet="ab|;()[]{}<>\\ ", max_size=24))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        node = parse_template(text)
    except TemplateError:
        return
    try:
        drawn, _ = draw(node, {}, lambda name, _: (name, name), random.Random(0))
    except TemplateError:
        return
    assert drawn == " ".join(drawn.split())
