"""The demo's task: a spoken home command becomes one flat JSON object with the intent and its slots.

    turn the bedroom lights to 40 percent  ->  {"intent":"HassLightSet","area":"bedroom","domain":"light","brightness":40}

The sentence templates are those of the package home-assistant-intents; names, rooms, numbers and messages are ours. Training
and held-out sentences are drawn from different templates, and no sentence is in both. One seed gives one data set, and its hash
stands beside the adapter that was trained on it.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import msgspec

from perfbench.errors import MissingPartError
from perfbench.models.templates import Node, SlotValue, draw, parse_template, slot_names
from perfbench.prompts import sha256_of

SYSTEM_PROMPT = 'Turn the home command into JSON, like {"intent":"HassTurnOn","area":"den","domain":"light"}'
USER_PROMPT = "{{ command }}"

INTENTS = (
    "HassCancelTimer", "HassClimateGetTemperature", "HassClimateSetTemperature", "HassFanSetSpeed", "HassLightSet", "HassMediaNext", "HassMediaPause",
    "HassMediaPrevious", "HassSetPosition", "HassSetVolume", "HassStartTimer", "HassTimerStatus", "HassTurnOff", "HassTurnOn",
)  # fmt: skip
"""Intents with at least five templates, so that some can be held out. Left out are HassGetState, whose answer depends on the home's
devices more than on the words, and HassIncreaseTimer, HassDecreaseTimer and HassSetVolumeRelative, whose many templates differ only in
which numbers they name."""

SEED = 20261124
TRAIN_ROWS = 2880
HELDOUT_ROWS = 300
LOAD_ROWS = 1000
_HELDOUT_SHARE = 0.25

_AREAS = (
    "kitchen", "living room", "bedroom", "bathroom", "office", "hallway", "garage", "dining room", "nursery", "guest room", "laundry room", "study",
    "attic", "basement", "pantry", "sun room", "library", "playroom", "master bedroom", "conservatory",
)  # fmt: skip
_NAMES: Mapping[str, tuple[str, ...]] = {
    "light": ("desk lamp", "bedside lamp", "floor lamp", "reading light", "chandelier", "string lights", "night light", "porch light"),
    "switch": ("coffee maker", "kettle", "christmas tree", "dehumidifier", "aquarium pump", "toaster"),
    "fan": ("ceiling fan", "desk fan", "tower fan", "exhaust fan", "window fan"),
    "media_player": ("tv", "soundbar", "record player", "radio", "kitchen speaker", "projector"),
    "input_boolean": ("guest mode", "vacation mode", "quiet hours"),
    "climate": ("thermostat", "air conditioner", "heat pump", "radiator"),
    "cover": ("garage door", "front gate", "patio awning", "roller blind", "skylight shade"),
    "valve": ("water valve", "sprinkler valve", "radiator valve"),
    "lock": ("front door", "back door", "cellar door", "shed door"),
}
"""Device names by Home Assistant's domains. A template for another domain (scene, script, button) is left out: only the home's own
registry can tell `movie night` the scene from `movie night` the script."""
_WORDS: Mapping[str, tuple[str, ...]] = {
    "area": _AREAS,
    "floor": ("ground", "first", "second", "third", "top", "upper", "lower"),
    "timer_name": ("pizza", "egg", "laundry", "tea", "pasta", "homework", "nap", "bread", "workout", "rice"),
    "timer_command": ("turn off the lights", "open the garage door", "pause the music", "lock the front door", "turn on the heating", "close the blinds"),
}
_NUMBERS: Mapping[str, range] = {
    "temperature": range(15, 28), "color_temperature": range(2000, 6600, 100), "timer_hours": range(1, 13), "timer_minutes": range(1, 60),
    "timer_seconds": range(5, 60), "brightness": range(1, 101), "fan_speed": range(1, 101), "position": range(1, 101), "volume": range(1, 101),
}  # fmt: skip
"""Narrower than the package's ranges where nobody would say the rest."""
_SLOT_ORDER = ("intent", "name", "area", "floor", "domain", "device_class")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One command with its answer; `expected` is the object, `template` where the sentence came from."""

    id: str
    command: str
    expected: dict[str, SlotValue]
    intent: str
    template: str

    def answer(self) -> str:
        """The answer's text: compact JSON."""
        return msgspec.json.encode(self.expected).decode()


@dataclass(frozen=True)
class Template:
    """One sentence template with what the package says about it."""

    intent: str
    sentence: str
    node: Node
    fixed: Mapping[str, SlotValue]
    """Slots that every sentence of it has, unspoken."""
    domains: tuple[str, ...]
    """Domains that `{name}` may be of."""


@dataclass(frozen=True)
class Language:
    """Templates, rules and word lists, parsed."""

    templates: tuple[Template, ...]
    rules: Mapping[str, Node]
    lists: Mapping[str, tuple[tuple[Node, SlotValue], ...]]


@dataclass(frozen=True)
class DataSet:
    """Rows to train on, to judge by, and to drive load with. The last two come from templates that training never saw."""

    train: tuple[Row, ...]
    heldout: tuple[Row, ...]
    load: tuple[Row, ...]


def load_language() -> Language:
    """Read the English templates of home-assistant-intents. Raises MissingPartError where it is not installed."""
    try:
        text = resources.files("home_assistant_intents").joinpath("data", "en.json").read_text(encoding="utf-8")
    except ModuleNotFoundError:
        raise MissingPartError("the demo's task needs the package home-assistant-intents", hint="pip install 'perfbench[demo]'") from None
    return read_language(msgspec.json.decode(text))


def read_language(data: Mapping[str, Any]) -> Language:
    """Templates of INTENTS whose slots we have values for, out of the package's JSON."""
    rules = {name: parse_template(body) for name, body in data["expansion_rules"].items()}
    lists = {
        name: tuple((parse_template(str(value["in"])), value["out"]) for value in body["values"]) for name, body in data["lists"].items() if "values" in body
    }
    templates: dict[tuple[str, str], Template] = {}
    for intent in INTENTS:
        for block in data["intents"][intent]["data"]:
            domains = _domains(block)
            for sentence in block["sentences"]:
                template = Template(intent, sentence, parse_template(sentence), block.get("slots") or {}, domains)
                if _usable(template, rules):
                    _add(templates, template)
    return Language(tuple(templates.values()), rules, lists)


def _domains(block: Mapping[str, Any]) -> tuple[str, ...]:
    domains = (block.get("requires_context") or {}).get("domain", ())
    return tuple(domain for domain in ([domains] if isinstance(domains, str) else domains) if domain in _NAMES)


def _usable(template: Template, rules: Mapping[str, Node]) -> bool:
    named = "name" in slot_names(template.node, rules)
    if named and template.intent not in _TIMERS and not template.domains:
        return False
    # `{name} <light>`: "desk lamp" would be the device `desk` followed by a word for light; other templates call it `desk lamp`.
    # A bare `{name}` says nothing of what to do with it.
    return "{name} <light>" not in template.sentence and template.sentence != "[<the>] {name}"


_TIMERS = frozenset(intent for intent in INTENTS if intent.endswith(("Timer", "TimerStatus")))


def _add(templates: dict[tuple[str, str], Template], template: Template) -> None:
    """One sentence may stand in several blocks, for several domains: that is one template with all of them."""
    key = (template.intent, template.sentence)
    known = templates.get(key)
    if known is None:
        templates[key] = template
    elif dict(known.fixed) == dict(template.fixed):
        templates[key] = Template(template.intent, template.sentence, template.node, template.fixed, tuple(dict.fromkeys(known.domains + template.domains)))


def split_templates(language: Language, seed: int = SEED) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
    """Training and held-out templates: of each intent, about a quarter is held out; equal sentences of two intents stay on one side.

    What is held out is a wording, not a meaning: of the templates that fill the same slots, at least one stays in training. Else the
    adapter would be asked for answers of a form that nothing ever showed it.
    """
    generator = random.Random(seed)
    heldout: set[str] = set()
    for intent in INTENTS:
        templates = [template for template in language.templates if template.intent == intent]
        wanted = max(1, round(len(templates) * _HELDOUT_SHARE))
        left = Counter(_form(template, language) for template in templates)
        generator.shuffle(templates)
        for template in templates:
            form = _form(template, language)
            if wanted and left[form] > 1:
                left[form] -= 1
                wanted -= 1
                heldout.add(template.sentence)
    train = tuple(template for template in language.templates if template.sentence not in heldout)
    return train, tuple(template for template in language.templates if template.sentence in heldout)


def _form(template: Template, language: Language) -> tuple[object, ...]:
    """Which slots an answer has, and which of them are the same in all."""
    return tuple(sorted(slot_names(template.node, language.rules))), tuple(sorted(template.fixed.items()))


def make_data(language: Language, seed: int = SEED) -> DataSet:
    """Draw the data set: intents in turn, templates of an intent in turn, no sentence twice, none in both training and the rest."""
    train_templates, heldout_templates = split_templates(language, seed)
    taken: set[str] = set()
    train = _draw_rows(language, train_templates, TRAIN_ROWS, random.Random(seed + 1), taken)
    rest = _draw_rows(language, heldout_templates, HELDOUT_ROWS + LOAD_ROWS, random.Random(seed + 2), taken)
    return DataSet(_numbered(train, "train"), _numbered(rest[:HELDOUT_ROWS], "heldout"), _numbered(rest[HELDOUT_ROWS:], "load"))


def _numbered(rows: list[Row], name: str) -> tuple[Row, ...]:
    return tuple(msgspec.structs.replace(row, id=f"{name}-{number:04d}") for number, row in enumerate(rows))


def _draw_rows(language: Language, templates: tuple[Template, ...], count: int, generator: random.Random, taken: set[str]) -> list[Row]:
    """Rows without ids. `taken` holds every sentence drawn so far, normalised, and grows."""
    by_intent: dict[str, list[Template]] = defaultdict(list)
    for template in templates:
        by_intent[template.intent].append(template)
    rows: list[Row] = []
    turn, misses = 0, 0
    # An intent whose templates have few sentences runs dry; the others then fill its turns.
    while len(rows) < count and misses < 2000:
        pool = by_intent[INTENTS[turn % len(INTENTS)]]
        template = pool[(turn // len(INTENTS)) % len(pool)]
        turn += 1
        command, expected = draw_command(language, template, generator)
        key = normalised(command)
        if key in taken:
            misses += 1
            continue
        misses = 0
        taken.add(key)
        rows.append(Row(id="", command=command, expected=expected, intent=template.intent, template=template.sentence))
    return rows


def draw_command(language: Language, template: Template, generator: random.Random) -> tuple[str, dict[str, SlotValue]]:
    """One sentence of a template and the object it means."""

    def draw_slot(name: str, generator: random.Random) -> tuple[str, SlotValue]:
        if name == "name":
            word = generator.choice(_NAMES[generator.choice(template.domains)])
            return word, word
        if name in _NUMBERS:
            number = generator.choice(_NUMBERS[name])
            return str(number), number
        if name in _WORDS:
            word = generator.choice(_WORDS[name])
            return word, word
        spoken, value = generator.choice(language.lists[name])
        return draw(spoken, language.rules, draw_slot, generator)[0], value

    command, slots = draw(template.node, language.rules, draw_slot, generator)
    found: dict[str, SlotValue] = {"intent": template.intent, **template.fixed, **slots}
    order = [key for key in _SLOT_ORDER if key in found] + [key for key in found if key not in _SLOT_ORDER]
    return command, {key: found[key] for key in order}


def normalised(command: str) -> str:
    """What makes two commands the same: lower case, words and numbers only."""
    return " ".join(re.findall(r"[a-z0-9°%]+", command.lower()))


def answer_schema(data: DataSet) -> dict[str, Any]:
    """JSON Schema of an answer, from the answers there are: the intents, and each slot's type."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for row in (*data.train, *data.heldout, *data.load):
        for key, value in row.expected.items():
            kinds[key].add("string" if isinstance(value, str) else "number")
    properties: dict[str, Any] = {key: {"type": sorted(kinds[key])[0] if len(kinds[key]) == 1 else sorted(kinds[key])} for key in kinds if key != "intent"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["intent"], "additionalProperties": False,
        "properties": {"intent": {"enum": list(INTENTS)}, **properties},
    }  # fmt: skip


def data_sha256(data: DataSet) -> str:
    """Hash of training and held-out rows: RECIPE.json of an adapter that saw other data shows another."""
    return sha256_of([[row.id, row.command, row.expected] for row in (*data.train, *data.heldout)])
