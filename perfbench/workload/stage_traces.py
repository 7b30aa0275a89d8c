"""What the trace stages of a scenario send, and when: read, checked and made before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from perfbench.errors import Finding, ScenarioError
from perfbench.load.traces import trace_part
from perfbench.prompts import RenderedPrompt, Renderer, hash_all, sha256_of
from perfbench.records import TraceUse
from perfbench.scenario.model import Scenario, Stage
from perfbench.scenario.output import Output
from perfbench.workload.sources import tokens_for
from perfbench.workload.trace_prompts import trace_prompts


@dataclass(frozen=True)
class StageTrace:
    """The requests of one trace stage in sending order; request k is sent at offset k."""

    offsets_ns: npt.NDArray[np.int64]
    """After the start of the warm-up, ascending."""
    prompts: tuple[RenderedPrompt, ...]
    outputs: tuple[Output, ...]
    use: TraceUse

    @property
    def sha256(self) -> str:
        """Over times, prompts and lengths of answers: equal hashes mean the same replay."""
        return sha256_of([self.offsets_ns.tolist(), hash_all(self.prompts), [output.model_dump() for output in self.outputs]])


def stage_traces(scenario: Scenario, *, say: Callable[[str], None]) -> dict[str, StageTrace]:
    """Stage -> what it replays, for every stage with a trace. Raises ScenarioError for a trace that cannot be replayed."""
    return {
        stage.name: _stage_trace(stage, f"load.stages[{number}]", scenario, say)
        for number, stage in enumerate(scenario.load.stages) if stage.trace is not None
    }  # fmt: skip


def _stage_trace(stage: Stage, key: str, scenario: Scenario, say: Callable[[str], None]) -> StageTrace:
    assert stage.trace is not None
    named = stage.trace.tokenizer
    part = trace_part(stage, key=key, context_tokens=_context_tokens(stage, key, scenario))
    say(f"prompts: {len(part.requests)} of the trace of stage {stage.name}")
    prompts, lengthened = trace_prompts(
        part, Renderer(scenario.prompt), lambda: tokens_for(named, scenario),
        chat=scenario.prompt.api == "chat", seed=scenario.load.seed, key=key,
    )  # fmt: skip
    return StageTrace(
        offsets_ns=part.offsets_ns,
        prompts=tuple(msgspec.structs.replace(prompt, prompt_id=f"{stage.name}.{prompt.prompt_id}") for prompt in prompts),
        outputs=tuple(Output(max_tokens=request.output_tokens) if _natural(stage) else Output(fixed=request.output_tokens) for request in part.requests),
        use=msgspec.structs.replace(part.use, lengthened_prompts=lengthened),
    )


def _natural(stage: Stage) -> bool:
    return stage.output.max_tokens is not None or stage.output.trace == "max_tokens"


def _context_tokens(stage: Stage, key: str, scenario: Scenario) -> int | None:
    """What the scenario says of the context, or None."""
    assert stage.trace is not None
    if stage.trace.context_tokens is not None or not scenario.kinds:
        return stage.trace.context_tokens
    given = scenario.serve.args.get("max-model-len")
    if given is None or (isinstance(given, int) and not isinstance(given, bool)):
        return given
    if isinstance(given, str) and given.isdecimal():
        return int(given)
    problem = f"`serve.args.max-model-len` is `{given}`, which is no plain number; say here how many tokens of context prompts and answers have to fit in"
    raise ScenarioError("scenario", [Finding(f"{key}.trace.context_tokens", problem)])
