"""The part of a trace that a stage replays: scaled, cut, clipped, counted, and refused where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.errors import ScenarioError
from perfbench.load.traces import TracePart, clip, trace_part
from perfbench.scenario.model import Stage
from tests.unit.load.test_trace_rows import real


@pytest.fixture
def part(tmp_path: Path):
    def make(rows: list[dict[str, Any]], *, context: int | None = None, output: dict[str, Any] | None = None, **changes: Any) -> TracePart:
        path = tmp_path / "trace.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        stage = {"name": "t", "arrival": "trace", "warmup_s": 0.0, "duration_s": 10.0, "output": output or {"trace": "fixed"}}
        stage |= {key: changes.pop(key) for key in ("warmup_s", "duration_s") if key in changes}
        return trace_part(Stage.model_validate({**stage, "trace": {"path": str(path), **changes}}), key="load.stages[0]", context_tokens=context)

    return make


def rows(count: int, every_s: float = 1.0, **more: Any) -> list[dict[str, Any]]:
    return [{"offset_s": k * every_s, "input_tokens": 100 + k, "output_tokens": 10 + k, **more} for k in range(count)]


def mooncake(count: int, blocks: list[list[int]]) -> list[dict[str, Any]]:
    return [{"timestamp": k * 1000, "input_length": 700, "output_length": 5, "hash_ids": blocks[k % len(blocks)]} for k in range(count)]


def ids(made: TracePart) -> list[str]:
    return [request.prompt_id for request in made.requests]


def test_the_part_begins_at_from_and_ends_with_the_stage(part):
    made = part(rows(60), from_s=20.0, warmup_s=2.0, duration_s=10.0)
    assert made.offsets_ns.tolist() == [k * 1_000_000_000 for k in range(12)]
    assert ids(made) == [f"line-{k}" for k in range(21, 33)]


def test_time_scale_multiplies_the_time_between_requests(part):
    assert part(rows(60), time_scale=0.5).offsets_ns.tolist() == [k * 500_000_000 for k in range(20)]
    assert part(rows(60), time_scale=2.5, from_s=1.0).offsets_ns.tolist() == [k * 2_500_000_000 for k in range(4)]


def test_until_and_limit_end_the_part(part):
    assert ids(part(rows(60), from_s=3.0, until_s=12.5)) == [f"line-{k}" for k in range(4, 14)]
    assert ids(part(rows(60), limit=10)) == [f"line-{k}" for k in range(1, 11)]


def test_length_scale_multiplies_prompt_answer_and_block(part):
    made = part(rows(11), length_scale=0.25)
    assert [(request.input_tokens, request.output_tokens) for request in made.requests[:3]] == [(25, 2), (25, 3), (26, 3)]
    assert made.block_tokens == 128
    assert [request.output_tokens for request in part(rows(11), length_scale=1e-6).requests] == [1] * 10


def test_rows_that_ask_for_no_token_are_left_out_and_counted(part):
    made = part([*rows(5), {"offset_s": 5, "input_tokens": 5, "output_tokens": 0}, {"offset_s": 6, "input_tokens": 0, "output_tokens": 5}, *[
        {"offset_s": k, "input_tokens": 1, "output_tokens": 1} for k in (7, 8, 9)]])  # fmt: skip
    assert (made.use.requests, made.use.left_out) == (8, 2)
    assert [int(offset // 10**9) for offset in made.offsets_ns] == [0, 1, 2, 3, 4, 7, 8, 9]


def test_what_was_clipped_is_counted(part):
    made = part(rows(11), context=112)
    assert [(request.input_tokens, request.output_tokens) for request in made.requests[:3]] == [(100, 10), (101, 11), (100, 12)]
    assert (made.use.clipped_prompts, made.use.clipped_answers, made.use.context_tokens) == (8, 0, 112)
    assert part(rows(11)).use.clipped_prompts == 0
    long_answers = part([{**row, "output_tokens": 500} for row in rows(11)], context=220)
    assert [(request.input_tokens, request.output_tokens) for request in long_answers.requests[:2]] == [(100, 120), (101, 119)]
    assert long_answers.use.clipped_answers == 10


@given(prompt=st.integers(1, 10**6), answer=st.integers(1, 10**6), context=st.integers(2, 10**5))
def test_clipped_lengths_fit_are_never_longer_and_cut_the_longer_one(prompt, answer, context):
    asked, given_ = clip(prompt, answer, context)
    assert asked is not None
    assert 1 <= asked <= prompt
    assert 1 <= given_ <= answer
    assert asked + given_ == min(prompt + answer, context)
    if asked < prompt:
        assert asked >= context // 2
    if given_ < answer:
        assert given_ >= context // 2
    assert clip(prompt, answer, None) == (prompt, answer)


def test_output_of_the_stage_replaces_the_traces(part):
    assert {request.output_tokens for request in part(rows(11), output={"fixed": 7}).requests} == {7}
    without = [{"offset_s": k, "prompt": f"say {k}"} for k in range(11)]
    assert {request.output_tokens for request in part(without, output={"max_tokens": 9}).requests} == {9}
    with pytest.raises(ScenarioError, match="line 1 says nothing of its answer"):
        part(without)


def test_a_traces_own_prompt_is_neither_scaled_nor_clipped(part):
    made = part([{"offset_s": k, "prompt": "a b c", "input_tokens": 5000, "output_tokens": 50} for k in range(11)], context=40, length_scale=0.5)
    assert {(request.prompt, request.input_tokens, request.output_tokens) for request in made.requests} == {("a b c", None, 25)}
    assert made.use.clipped_prompts == 0


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        ({"from_s": 100.0}, "trace", "no request of the trace comes after 100 s"),
        ({"from_s": 4.2, "until_s": 4.8}, "trace", "after 4.2 s and before 4.8 s"),
        ({"limit": 4}, "duration_s", "comes 3.0 s after the stage begins, 7.0 s before it ends"),
        ({"until_s": 5.0}, "duration_s", "comes 4.0 s after the stage begins, 6.0 s before it ends"),
        ({"from_s": 15.0}, "duration_s", "comes 4.0 s after the stage begins"),
        ({"time_scale": 0.1}, "duration_s", "comes 1.9 s after the stage begins"),
    ],
)
def test_a_part_that_cannot_be_replayed_is_one_sentence(part, changes, key, says):
    with pytest.raises(ScenarioError) as caught:
        part(rows(20), **changes)
    (finding,) = caught.value.findings
    assert finding.key == f"load.stages[0].{key}"
    assert says in finding.problem


def test_a_silence_no_longer_than_others_of_the_trace_is_no_end(part):
    assert part([{"offset_s": offset, "input_tokens": 1, "output_tokens": 1} for offset in (0, 4, 5, 7)]).use.requests == 4


def test_a_broken_row_is_a_finding_about_the_path(part):
    with pytest.raises(ScenarioError) as caught:
        part([*rows(3), {"offset_s": 1, "input_tokens": 1}])
    assert str(caught.value.findings[0]) == "load.stages[0].trace.path: line 4: time goes back by 1 s; sort the file by its time"
    assert caught.value.exit_code == 2


def test_rows_after_the_stage_are_not_read(part):
    assert part([*rows(12), {"no": "trace"}]).use.requests == 10


@pytest.mark.parametrize(("blocks", "shares"), [([[1, 2]], True), ([[k, 99] for k in range(20)], False)])
def test_equal_first_blocks_share_a_prefix(part, blocks, shares):
    made = part(mooncake(12, blocks))
    assert made.use.shares_prefixes is shares
    assert made.use.format == "mooncake"
    assert made.requests[0].blocks == tuple(blocks[0])


def test_the_published_traces_are_cut_scaled_and_clipped():
    for name, context in (("AzureLLMInferenceTrace_conv.csv", 2048), ("mooncake_synthetic_trace.jsonl", 4096)):
        values = {"name": "t", "arrival": "trace", "warmup_s": 5.0, "duration_s": 60.0, "output": {"trace": "fixed"}}
        stage = Stage.model_validate({**values, "trace": {"path": real(name), "from_s": 300.0, "time_scale": 0.5}})
        made = trace_part(stage, key="load.stages[0]", context_tokens=context)
        assert made.use.requests == len(made.offsets_ns) > 200
        assert made.offsets_ns[-1] < 65 * 10**9
        assert all((request.input_tokens or 0) + request.output_tokens <= context for request in made.requests)
        assert 0 < made.use.clipped_prompts < made.use.requests
