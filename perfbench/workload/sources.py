"""The load's prompts, from data, synthetic text or a mixture of both; all of them before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from perfbench.prompts import RenderedPrompt, Renderer, row_ids
from perfbench.scenario.data_files import read_rows
from perfbench.scenario.model import Scenario
from perfbench.scenario.references import Data, ModelRef
from perfbench.scenario.workload import Conversation, PromptSource
from perfbench.workload.conversations import turns_of
from perfbench.workload.synthetic import make_texts, rendered
from perfbench.workload.tokens import LocalTokens, PromptTokens, ServerTokens

_PROMPTS = 1
"""Tells the seed of made prompts from those of stages, which are [seed, stage, repeat]."""


def load_prompts(scenario: Scenario, *, say: Callable[[str], None]) -> list[RenderedPrompt]:
    """Every prompt of the load. In a mixture ids begin with the part's number, so that they are unique.

    Raises ScenarioError for rows and lengths that cannot be used, ModelError or EndpointError where tokens cannot be counted.
    """
    load = scenario.load
    if load.mixture is None and load.data is None and load.synthetic is None:
        return []  # every stage replays a trace, which has prompts of its own
    if load.mixture is None:
        return _of_source(load, scenario, 0, "load", say)
    found = []
    for part, source in enumerate(load.mixture):
        prompts = _of_source(source, scenario, part, f"load.mixture[{part}]", say)
        found += [msgspec.structs.replace(prompt, prompt_id=f"{part}.{prompt.prompt_id}", part=part) for prompt in prompts]
    return found


def _of_source(source: PromptSource, scenario: Scenario, part: int, key: str, say: Callable[[str], None]) -> list[RenderedPrompt]:
    renderer = Renderer(scenario.prompt)
    if source.data is not None:
        found = _of_data(source.data, source.conversation, renderer, key)
    else:
        assert source.synthetic is not None  # validation has seen to it
        say(f"prompts: {source.synthetic.prompts} of exact length")
        turns = source.conversation.turns if source.conversation is not None else 1
        texts = make_texts(
            source.synthetic, renderer, tokens_for(source.synthetic.tokenizer, scenario), turns=int(turns),
            seed=[scenario.load.seed, _PROMPTS, part, 0], key=f"{key}.synthetic",
        )  # fmt: skip
        found = rendered(texts, renderer)
    if source.conversation is None:
        return found
    return [msgspec.structs.replace(prompt, think_time_s=source.conversation.think_time_s) for prompt in found]


def _of_data(data: Data, conversation: Conversation | None, renderer: Renderer, key: str) -> list[RenderedPrompt]:
    rows = read_rows(data.path, data.limit, data.columns)
    found = []
    for number, (prompt_id, row) in enumerate(zip(row_ids(rows, data.path, key=f"{key}.data"), rows, strict=True)):
        where = f"row {number} of {data.path}"
        if conversation is None:
            found.append(renderer.prompt(prompt_id, row, where))
        else:
            turns, system = turns_of(row, str(conversation.turns), where=where, key=key)
            found.append(renderer.conversation(prompt_id, row, turns, system, where))
    return found


def tokens_for(named: ModelRef | None, scenario: Scenario) -> PromptTokens:
    """What counts this scenario's tokens: the named tokenizer, the model that we serve, or else the endpoint itself."""
    from perfbench.models.resolve import resolve_model

    template = scenario.serve.args.get("chat-template")
    if named is not None:
        return LocalTokens(Path(named.path) if named.path is not None else resolve_model(named), template)
    served = scenario.models.base or scenario.models.merged
    if scenario.kinds and served is not None:
        return LocalTokens(resolve_model(served), template)
    endpoint = next(iter(scenario.endpoints.values()))
    return ServerTokens(endpoint.url, endpoint.model, endpoint.api_key_env)
