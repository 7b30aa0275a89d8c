"""How long answers are: a word of stages and of searches."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perfbench.scenario.strict import Strict
from perfbench.scenario.workload import Length


class Output(Strict):
    """How long answers are: exactly one of these."""

    fixed: Annotated[int, Field(ge=1)] | None = None
    """Exactly so many tokens (`ignore_eos`): speed compared at equal length."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Natural: the model ends when it wants to, at most after so many tokens."""
    distribution: Length | None = None
    """Each prompt has an exact length of its own (`ignore_eos`), drawn once with the load's seed: the same for every variant and repeat."""

    trace: Literal["fixed", "max_tokens"] | None = None
    """Trace stages: each answer as long as its row says, exactly (`fixed`) or at most (`max_tokens`)."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(given is not None for given in (self.fixed, self.max_tokens, self.distribution, self.trace)) != 1:
            raise ValueError(
                "expected exactly one of `fixed` (tokens), `max_tokens` (natural length up to it), `distribution` (a length for each prompt) and "
                "`trace` (the lengths of a trace)"
            )
        return self
