"""The demo's data: held-out means held out, and an answer says what its command says."""

import json
import random
from collections import Counter

import jsonschema
import pytest

from perfbench.models.commands import (
    HELDOUT_ROWS,
    INTENTS,
    LOAD_ROWS,
    SEED,
    TRAIN_ROWS,
    DataSet,
    Language,
    Template,
    answer_schema,
    data_sha256,
    draw_command,
    load_language,
    make_data,
    normalised,
    split_templates,
)
from perfbench.models.demo import ADAPTER_SOURCE
from perfbench.models.templates import slot_names

pytest.importorskip("home_assistant_intents")


@pytest.fixture(scope="module")
def language() -> Language:
    return load_language()


@pytest.fixture(scope="module")
def data(language: Language) -> DataSet:
    return make_data(language)


def test_there_is_as_much_as_promised(data: DataSet) -> None:
    assert (len(data.train), len(data.heldout), len(data.load)) == (TRAIN_ROWS, HELDOUT_ROWS, LOAD_ROWS)
    everything = [*data.train, *data.heldout, *data.load]
    assert len({row.id for row in everything}) == len(everything)


def test_no_template_and_no_sentence_is_on_both_sides(data: DataSet) -> None:
    rest = [*data.heldout, *data.load]
    assert not {row.template for row in data.train} & {row.template for row in rest}
    assert not {normalised(row.command) for row in data.train} & {normalised(row.command) for row in rest}
    everything = [normalised(row.command) for row in (*data.train, *rest)]
    assert len(set(everything)) == len(everything)


def test_every_intent_is_held_out_and_none_outweighs(data: DataSet) -> None:
    counts = Counter(row.intent for row in data.heldout)
    assert set(counts) == set(INTENTS)
    assert max(counts.values()) <= 3 * min(counts.values())


@pytest.mark.parametrize("seed", [SEED, 1, 2])
def test_a_held_out_template_has_a_sibling_in_training_with_the_same_slots(language: Language, seed: int) -> None:
    train, heldout = split_templates(language, seed)

    def forms(templates: tuple[Template, ...]) -> set[object]:
        return {(template.intent, frozenset(slot_names(template.node, language.rules)), frozenset(template.fixed.items())) for template in templates}

    assert {template.intent for template in heldout} == set(INTENTS)
    assert forms(heldout) <= forms(train)
    assert len(train) + len(heldout) == len(language.templates)


def test_the_same_seed_gives_the_same_data_and_another_does_not(language: Language, data: DataSet) -> None:
    assert make_data(language) == data
    assert make_data(language, SEED + 1) != data


def test_what_an_answer_says_was_spoken(data: DataSet, language: Language) -> None:
    """Free words and numbers of the answer stand in the command; values of closed lists may be spoken in other words."""
    closed = {"intent", "domain", "device_class", "color", "brightness", "temperature", "minutes", "seconds"}
    for row in (*data.train, *data.heldout, *data.load):
        assert row.expected["intent"] == row.intent
        for key, value in row.expected.items():
            if key not in closed:
                assert str(value).lower() in row.command.lower(), row


def test_every_answer_meets_the_schema_and_a_wrong_one_does_not(data: DataSet) -> None:
    schema = answer_schema(data)
    validator = jsonschema.Draft202012Validator(schema)
    for row in (*data.train, *data.heldout):
        validator.validate(json.loads(row.answer()))
    assert not validator.is_valid({"intent": "HassFly"})
    assert not validator.is_valid({"intent": "HassTurnOn", "colour": "red"})
    assert not validator.is_valid({"area": "kitchen"})


def test_a_fixed_slot_is_in_every_answer(language: Language) -> None:
    template = next(template for template in language.templates if template.fixed == {"domain": "light"} and template.intent == "HassTurnOff")
    _, expected = draw_command(language, template, random.Random(0))
    assert expected["domain"] == "light"


def test_the_kept_adapter_was_trained_on_this_data(data: DataSet) -> None:
    recipe = json.loads((ADAPTER_SOURCE / "RECIPE.json").read_text())
    assert recipe["data_sha256"] == data_sha256(data)
    assert recipe["heldout_exact_match"]["adapter"] - recipe["heldout_exact_match"]["base"] > 0.5
