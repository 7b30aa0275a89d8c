"""The words of a scenario's spot-check: held-out data, what an answer is, and the margin that decides."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from perfbench.scenario.references import Data
from perfbench.scenario.strict import Strict, plain_file


class Classification(Strict):
    """The answer is one label."""

    task: Literal["classification"]
    expected: str
    """Column that holds the right label."""
    labels: tuple[str, ...] | None = None
    """All labels; default: those that occur in the data. An answer that is none of them is `unparsed`, a class of its own."""


class Extraction(Strict):
    """The answer is a JSON object."""

    task: Literal["extraction"]
    expected: str
    """Column that holds the right object (or its JSON text)."""
    json_schema: Annotated[str, AfterValidator(plain_file)] | None = None
    """File with the JSON Schema that answers must meet."""


QualityTask = Annotated[Classification | Extraction, Field(discriminator="task")]


class Quality(Strict):
    """The spot-check: held-out samples, the same for every variant, decided against `base` by a margin fixed beforehand."""

    data: Data
    """Held-out rows."""
    task: QualityTask
    """What an answer is."""
    metric: str | None = None
    """The metric that decides; default: `accuracy` for classification, `exact_match` for extraction."""
    margin: Annotated[float, Field(gt=0, lt=1)]
    """How much worse than base the metric may be."""
    minimum: Annotated[float, Field(ge=0, le=1)] | None = None
    """A variant whose metric lies below this fails, whatever base does."""
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
