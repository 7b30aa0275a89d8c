"""Made prompts have exactly the tokens that were asked for, with every tokenizer; what they share, they share token by token."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfbench.errors import ScenarioError
from perfbench.prompts import Renderer
from perfbench.scenario.model import Prompt
from perfbench.scenario.workload import Synthetic
from perfbench.workload.exact import TooFewTokensError, exact_text
from perfbench.workload.synthetic import make_texts, rendered
from perfbench.workload.tokens import LocalTokens
from perfbench.workload.words import WORDS

PROMPTS = [Prompt(), Prompt(system="Be brief.\n", user="Q: {{ prompt }}\nA:"), Prompt(api="completions"), Prompt(user="{{ prompt | upper }}")]


def make(tokens: LocalTokens, prompt: Prompt, turns: int = 1, seed: int = 0, **synthetic: object) -> list[list[str]]:
    return make_texts(Synthetic.model_validate(synthetic), Renderer(prompt), tokens, turns=turns, seed=[seed, 1, 0, 0], key="load.synthetic")


@pytest.mark.parametrize("prompt", PROMPTS, ids=["chat", "system", "completions", "upper"])
def test_every_prompt_has_exactly_its_tokens(tokens: LocalTokens, prompt: Prompt) -> None:
    renderer = Renderer(prompt)
    texts = make(tokens, prompt, input_tokens={"uniform": (60, 90)}, prompts=40)
    lengths = [len(tokens.ids(one)) for one in rendered(texts, renderer)]
    assert lengths == [len(tokens.ids(renderer.prompt("", {"prompt": turns[0]}, ""))) for turns in texts]
    assert min(lengths) >= 60 and max(lengths) <= 90 and len(set(lengths)) > 15
    fixed = make(tokens, prompt, input_tokens=333, prompts=5)
    assert {len(tokens.ids(one)) for one in rendered(fixed, renderer)} == {333}
    assert len({turns[0] for turns in fixed}) == 5


@given(wanted=st.integers(1, 400), seed=st.integers(0, 2**32))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_any_count_is_met_or_is_below_the_least(tokens: LocalTokens, wanted: int, seed: int) -> None:
    renderer = Renderer(Prompt())

    def count(text: str) -> int:
        return len(tokens.ids(renderer.prompt("", {"prompt": text}, "")))

    try:
        text = exact_text(wanted, count, np.random.default_rng(seed))
    except TooFewTokensError as error:
        assert error.least == count("") > wanted
    else:
        assert count(text) == wanted


def test_the_same_seed_gives_the_same_texts_and_another_seed_others(tokens: LocalTokens) -> None:
    first, again, other = (make(tokens, Prompt(), seed=seed, input_tokens=80, prompts=6) for seed in (1, 1, 2))
    assert first == again
    assert not {turns[0] for turns in first} & {turns[0] for turns in other}
    assert make(tokens, Prompt(), seed=1, input_tokens=80, prompts=9)[:6] == first


def test_texts_are_ordinary_words(tokens: LocalTokens) -> None:
    words = [word for turns in make(tokens, Prompt(), input_tokens=200, prompts=5) for word in turns[0].split()]
    assert sum(word in WORDS for word in words) > 0.9 * len(words)


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_group_shares_its_tokens_and_nobody_else_does(tokens: LocalTokens, api: str) -> None:
    prompt = Prompt(api=api)
    shared = {"share": 0.5, "tokens": 48, "groups": 3}
    texts = make(tokens, prompt, input_tokens=128, prompts=36, shared_prefix=shared)
    ids = [tokens.ids(one) for one in rendered(texts, Renderer(prompt))]
    assert {len(one) for one in ids} == {128}
    empty = tokens.ids(Renderer(prompt).prompt("", {"prompt": ""}, ""))
    alike: dict[tuple[int, int], int] = {}
    for one, other in combinations(range(36), 2):
        alike[one, other] = next(place for place in range(128) if ids[one][place] != ids[other][place])
    groups = {one: {other for pair, length in alike.items() if length >= 48 and one in pair for other in pair} for one in range(36)}
    sizes = sorted(len(members) for members in groups.values() if members)
    assert sizes == [6] * 18  # half of 36, in three groups alike
    inside = [length for length in alike.values() if length >= 48]
    outside = [length for length in alike.values() if length < 48]
    assert min(inside) >= 48 and max(outside) < len(empty) + 12


def test_later_turns_are_as_long_as_prompts_by_themselves(tokens: LocalTokens) -> None:
    texts = make(tokens, Prompt(), turns=3, input_tokens=70, prompts=4)
    assert [len(turns) for turns in texts] == [3] * 4
    renderer = Renderer(Prompt())
    assert {len(tokens.ids(renderer.prompt("", {"prompt": turn}, ""))) for turns in texts for turn in turns} == {70}
    conversation = rendered(texts, renderer)[2]
    assert (conversation.prompt_id, conversation.messages, conversation.turns) == ("s2", [{"role": "user", "content": texts[2][0]}], texts[2][1:])


@pytest.mark.parametrize(
    ("synthetic", "key", "says"),
    [
        ({"input_tokens": 1}, "load.synthetic.input_tokens", "a length of 1 tokens was drawn, and the template alone has"),
        ({"input_tokens": 60, "shared_prefix": {"share": 1, "tokens": 58}}, "load.synthetic.input_tokens", "the template and the shared prefix alone have"),
    ],
)
def test_lengths_that_cannot_be_are_refused(tokens: LocalTokens, synthetic: dict, key: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        make(tokens, Prompt(system="a b c d e f g h"), prompts=3, **synthetic)
    (finding,) = caught.value.findings
    assert finding.key == key
    assert says in finding.problem


def test_the_template_is_rendered_as_transformers_renders_it(model_folder: Path, tokens: LocalTokens) -> None:
    """The reference, where it is installed: apply_chat_template of the same folder."""
    transformers = pytest.importorskip("transformers")
    reference = transformers.PreTrainedTokenizerFast.from_pretrained(str(model_folder))
    renderer = Renderer(Prompt(system="S <b>&amp;\n", user="{{ prompt }}"))
    for text in ("one", "", " two words ", "“ü” 🙂\n\n- x"):
        prompt = renderer.prompt("", {"prompt": text}, "")
        expected = reference.apply_chat_template(prompt.messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert tokens.ids(prompt) == expected
