"""How long a scenario's prompts and answers will be, before anything runs: no prompt is made, no server is asked.

    prompts   synthetic: the drawn lengths themselves; data: rows counted with the model's own tokenizer, at most SAMPLE of them, evenly spread over the
              file; trace: the rows' lengths as the stage replays them
    answers   fixed, drawn or from the trace; `max_tokens` is how long an answer may get, and counts as that

Where stages differ, the one with the longest answers counts, since memory has to do for it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from perfbench.errors import InputError, PerfbenchError
from perfbench.load.traces import trace_part
from perfbench.models.cached import config_folder
from perfbench.prompts import Renderer
from perfbench.scenario.data_files import read_rows
from perfbench.scenario.model import Scenario, Stage
from perfbench.scenario.references import Data
from perfbench.scenario.workload import PromptSource
from perfbench.workload.lengths import draw_lengths
from perfbench.workload.tokens import LocalTokens

Item = TypeVar("Item")

SAMPLE = 500
"""Rows and requests that are counted; a mean needs no more."""


@dataclass(frozen=True)
class ExpectedLengths:
    """(prompt, answer) tokens of requests, and the sentence that says where they come from."""

    pairs: tuple[tuple[int, int], ...]
    source: str


def expected_lengths(scenario: Scenario) -> ExpectedLengths:
    """Lengths of the scenario's workload. Raises InputError where prompts cannot be counted on this machine, saying which flags do instead."""
    found = [_of_stage(scenario, number, stage) for number, stage in enumerate(scenario.load.stages)]
    return max(found, key=lambda lengths: sum(answer for _, answer in lengths.pairs) / len(lengths.pairs))


def _of_stage(scenario: Scenario, number: int, stage: Stage) -> ExpectedLengths:
    key = f"load.stages[{number}]"
    if stage.trace is not None:
        part = trace_part(stage, key=key, context_tokens=stage.trace.context_tokens)
        told = [(request.input_tokens, request.output_tokens) for request in part.requests if request.input_tokens is not None]
        if not told:
            raise _cannot("a trace that brings its own prompts says nothing of their length")
        pairs = [(prompt or 1, answer) for prompt, answer in _sample(told)]
        return ExpectedLengths(tuple(pairs), f"{len(pairs):,} requests of the trace of stage {stage.name}")
    prompts = _prompts(scenario)
    answers, said = _answers(stage, len(prompts), scenario.load.seed, key)
    return ExpectedLengths(tuple(zip(prompts, answers, strict=True)), f"{len(prompts):,} prompts of the load, answers of stage {stage.name}{said}")


def _answers(stage: Stage, count: int, seed: int, key: str) -> tuple[list[int], str]:
    output = stage.output
    if output.distribution is not None:
        return draw_lengths(output.distribution, count, [seed], key=f"{key}.output.distribution"), " as drawn"
    if output.fixed is not None:
        return [output.fixed] * count, ""
    assert output.max_tokens is not None  # a stage without a trace has one of the three
    return [output.max_tokens] * count, ", as long as they may get"


def _prompts(scenario: Scenario) -> list[int]:
    load = scenario.load
    if load.mixture is None:
        return _of_source(scenario, load, "load", SAMPLE)
    whole = sum(part.weight for part in load.mixture)
    parts = [
        _of_source(scenario, part, f"load.mixture[{number}]", max(1, round(SAMPLE * part.weight / whole))) for number, part in enumerate(load.mixture)
    ]  # fmt: skip
    return [length for part in parts for length in part]


def _of_source(scenario: Scenario, source: PromptSource, key: str, count: int) -> list[int]:
    if source.conversation is not None:
        raise _cannot("later turns of a conversation carry answers whose length is not known yet")
    if source.synthetic is not None:
        return draw_lengths(source.synthetic.input_tokens, count, [scenario.load.seed], key=f"{key}.synthetic.input_tokens")
    assert source.data is not None  # validation has seen to it
    return _counted(scenario, source.data, count)


def _counted(scenario: Scenario, data: Data, count: int) -> list[int]:
    served = scenario.models.base or scenario.models.merged
    if not scenario.kinds or served is None:
        raise _cannot("the prompts of an endpoint are counted by its own tokenizer, which is not asked")
    renderer = Renderer(scenario.prompt)
    rows = _sample(read_rows(data.path, data.limit, data.columns), count)
    try:
        # The folder may hold no weights, and nothing is downloaded: resolve_model asks for both.
        tokens = LocalTokens(config_folder(served, "tokenizer.json"), scenario.serve.args.get("chat-template"))
        return [len(tokens.ids(renderer.prompt(str(number), row, f"row {number} of {data.path}"))) for number, row in enumerate(rows)]
    except PerfbenchError as error:
        raise _cannot(f"the prompts cannot be counted: {error.message}") from None


def _sample(values: Sequence[Item], count: int = SAMPLE) -> list[Item]:
    if len(values) <= count:
        return list(values)
    return [values[int(place)] for place in np.linspace(0, len(values) - 1, count)]


def _cannot(reason: str) -> InputError:
    return InputError(f"the workload's lengths are not known: {reason}; give --input-tokens and --output-tokens")
