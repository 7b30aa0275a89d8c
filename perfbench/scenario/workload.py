"""The words of a scenario's workload: where prompts come from, how long they are, which parts they share, and how conversations go on."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from perfbench.scenario.references import Data, ModelRef
from perfbench.scenario.strict import Name, NotNegative, Positive, Strict

Tokens = Annotated[int, Field(ge=1)]


class NormalLength(Strict):
    """A normal distribution, truncated to [min, max]."""

    mean: Positive
    """Of the distribution before it is truncated."""
    stddev: Positive
    """Of the distribution before it is truncated."""
    min: Tokens = 1
    """The shortest length."""
    max: Tokens | None = None
    """The longest length; without it there is no limit."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        _check_limits(self.min, self.max)
        return self


class LognormalLength(Strict):
    """A lognormal distribution, truncated to [min, max]: many short, few long, as real prompts and answers are."""

    median: Positive | None = None
    """Of the distribution before it is truncated; this or `mean`."""
    mean: Positive | None = None
    """Of the distribution before it is truncated; this or `median`."""
    sigma: Positive
    """Standard deviation of the logarithm."""
    min: Tokens = 1
    """The shortest length."""
    max: Tokens | None = None
    """The longest length; without it there is no limit."""

    @model_validator(mode="after")
    def _one_centre(self) -> Self:
        if (self.median is None) == (self.mean is None):
            raise ValueError("expected exactly one of `median` and `mean`")
        _check_limits(self.min, self.max)
        return self


def _check_limits(least: int, most: int | None) -> None:
    if most is not None and most < least:
        raise ValueError(f"`max` {most} is below `min` {least}")


class EmpiricalLength(Strict):
    """Lengths that were seen: each is drawn as often as another, with replacement."""

    values: Annotated[tuple[Tokens, ...], Field(min_length=1, strict=False)] | None = None
    """The lengths themselves; this, or `data` and `column`."""
    data: Data | None = None
    """A file of rows, one length in each."""
    column: str | None = None
    """The column of `data` that holds it."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.values is None) == (self.data is None) or (self.data is None) != (self.column is None):
            raise ValueError("expected either `values`, or `data` with `column`")
        return self


class Length(Strict):
    """A distribution of lengths in tokens: exactly one of these. In YAML a plain number is a fixed length."""

    fixed: Tokens | None = None
    """Always so many."""
    uniform: Annotated[tuple[Tokens, Tokens], Field(strict=False)] | None = None
    """[lowest, highest], every whole number alike."""
    normal: NormalLength | None = None
    """Truncated normal."""
    lognormal: LognormalLength | None = None
    """Truncated lognormal."""
    empirical: EmpiricalLength | None = None
    """Drawn from lengths that were seen."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        # What has gone through here is Python's, no longer JSON's: a strict tuple would refuse a list, so those below are not strict.
        return {"fixed": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in Length.model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("expected a number of tokens, or exactly one of uniform, normal, lognormal and empirical")
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            raise ValueError(f"`uniform` goes from {self.uniform[0]} down to {self.uniform[1]}; give the lower length first")
        return self


class SharedPrefix(Strict):
    """Requests that begin alike, as behind one long system prompt or document."""

    share: Annotated[float, Field(gt=0, le=1)]
    """Of the prompts, this part begins with a shared text; the others share nothing."""
    tokens: Tokens
    """Length of the shared text, within `input_tokens`."""
    groups: Annotated[int, Field(ge=1)] = 1
    """So many different shared texts, each for its part of the sharing prompts."""


class Synthetic(Strict):
    """Made prompts: ordinary words, with exactly as many tokens as asked for, counted as the server counts, chat template included."""

    input_tokens: Length
    """Of a prompt. Every turn of a conversation is as long as a prompt by itself."""
    prompts: Annotated[int, Field(ge=1)] = 1000
    """So many different ones. A trial that sends more begins again, and meets its own prompts in the prefix cache."""
    shared_prefix: SharedPrefix | None = None
    """Without it no two prompts begin alike."""
    tokenizer: ModelRef | None = None
    """Folder or hub id with the tokenizer; default: the base model's, and for endpoints alone the first endpoint's POST /tokenize (vLLM)."""


class Conversation(Strict):
    """Prompts of several turns: turn n carries the answers that were served to turns 1 to n - 1. A failed turn ends its conversation."""

    turns: Annotated[int, Field(ge=1)] | str
    """With `data`, the column that holds a row's user texts (a list), or its chat messages (user messages are taken); with `synthetic`, a number."""
    think_time_s: NotNegative = 0.0
    """From the end of an answer to the next turn."""


class PromptSource(Strict):
    """One source of prompts."""

    data: Data | None = None
    """Rows that prompts are made of, sent in a seeded order."""
    synthetic: Synthetic | None = None
    """Made prompts of exact length instead."""
    conversation: Conversation | None = None
    """Turns instead of single prompts."""


class MixturePart(PromptSource):
    """One part of a mixture."""

    weight: Positive
    """How often the part is drawn, relative to the others' weights."""


class AdapterSpread(Strict):
    """How requests of the variant `adapter` are spread over `models.adapter` and `models.adapters`, in the order of the file."""

    spread: Literal["uniform", "zipf", "weighted"]
    """uniform: each alike. zipf: the k-th with a share that falls as 1 / k^exponent. weighted: by `weights`."""
    exponent: Positive | None = None
    """zipf only."""
    weights: dict[Name, Positive] | None = None
    """weighted only: one for each adapter by its name; `models.adapter` is named `adapter`."""


class ResponseFormat(Strict):
    """Structured outputs: what the server holds an answer to, passed on as it is (OpenAI's `response_format`)."""

    type: Literal["json_object", "json_schema"]
    """json_object: any JSON object. json_schema: what the schema allows."""
    json_schema: dict[str, Any] | None = None
    """json_schema only: `{name: ..., schema: {...}}`."""

    @model_validator(mode="after")
    def _schema_with_its_type(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("`json_schema` belongs to `type: json_schema`, which needs it: {name: ..., schema: {...}}")
        if self.json_schema is not None:
            _check_schema(self.json_schema)
        return self

    def as_sent(self) -> dict[str, Any]:
        """The field of a request's body."""
        return {"type": self.type} if self.json_schema is None else {"type": self.type, "json_schema": self.json_schema}


def _check_schema(value: dict[str, Any]) -> None:
    import jsonschema

    if not isinstance(value.get("name"), str) or not isinstance(value.get("schema"), dict):
        raise ValueError("`json_schema` needs a `name` and a `schema`, as in {name: answer, schema: {type: object}}")
    try:
        jsonschema.validators.validator_for(value["schema"]).check_schema(value["schema"])
    except jsonschema.SchemaError as error:
        raise ValueError(f"`json_schema.schema` is no JSON Schema: {error.message}") from None
