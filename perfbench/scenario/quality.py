"""The words of a scenario's spot-check: held-out data, what an answer is, and the margins that decide."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from perfbench.scenario.references import Data
from perfbench.scenario.strict import Strict, plain_file

Share = Annotated[float, Field(ge=0, le=1)]
Margin = Annotated[float, Field(gt=0, lt=1)]
Column = Annotated[str, Field(min_length=1)]


class Classification(Strict):
    """The answer is one label."""

    task: Literal["classification"]
    expected: Column
    """Column that holds the right label."""
    labels: tuple[str, ...] | None = None
    """All labels; default: those that occur in the data. An answer that is none of them is `unparsed`, a class of its own."""


class Extraction(Strict):
    """The answer is a JSON object."""

    task: Literal["extraction"]
    expected: Column
    """Column that holds the right object (or its JSON text)."""
    json_schema: Annotated[str, AfterValidator(plain_file)] | None = None
    """File with the JSON Schema that answers must meet."""


class QuestionAnswering(Strict):
    """The answer is a short text, known beforehand."""

    task: Literal["qa"]
    expected: Column
    """Column that holds the right answer, or a list of equally right ones."""


QualityTask = Annotated[Classification | Extraction | QuestionAnswering, Field(discriminator="task")]

TASKS: tuple[str, ...] = tuple(get_args(kind.model_fields["task"].annotation)[0] for kind in get_args(get_args(QualityTask)[0]))
"""The words that `task` may be."""


class Quality(Strict):
    """The spot-check: held-out samples, the same for every variant, decided against `base` by a margin fixed beforehand."""

    data: Data
    """Held-out rows."""
    task: QualityTask
    """What an answer is."""
    metric: str | None = None
    """The metric that decides; default: the first of the task's in docs/quality.md."""
    margin: Margin
    """How much worse than base the metric may be."""
    minimum: Share | None = None
    """A variant whose metric lies below this fails, whatever base does."""
    slices: tuple[Column, ...] = ()
    """Columns that cut the samples into slices; each value of each column is reported with its own difference from base."""
    groups: Column | None = None
    """Column that says which samples belong together (turns of a conversation, fields of a document); intervals then count groups, not samples."""
    must_refuse: Column | None = None
    """Column that is true for samples that a model has to refuse. They need no expected answer, and are right when refused."""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    """An answer is cut off after so many."""
    concurrency: Annotated[int, Field(ge=1)] = 16
    """Questions asked at a time; nothing is timed here."""
    train_data: Data | None = None
    """What the fine-tune was trained on, to find held-out samples that it has seen."""
    train_column: str | None = None
    """Column of `train_data` with the text to compare; default: the rendered prompt."""
    reference_prompts: Annotated[int, Field(ge=0)] = 4
    """Before load, so many served answers are scored by transformers with the same weights; 0 skips the check."""
