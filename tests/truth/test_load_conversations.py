"""Turns against the truth server: what each one carries, when it is sent, and when a conversation is over."""

from __future__ import annotations

from typing import Any

import pytest

from tests.truth.conftest import Drive, Driven, request_body, text_of

TURNS = ["und dann?", "“why”", "🙂 last"]


def by_turn(driven: Driven) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for record in driven.records:
        found.setdefault(record.prompt_id, []).append(record)
    return found


@pytest.mark.parametrize("offsets_s", [None, [0.0]])
def test_each_turn_carries_all_answers_that_were_served_before_it(drive: Drive, offsets_s: list[float] | None) -> None:
    body = request_body(ttft_ms=5, gap_ms=1, tokens=4, log_body=1)
    driven = drive([body], offsets_s=offsets_s, asked={"turns": TURNS}, duration_s=0.4, keep_text=False)
    expected = list(body["messages"])
    first = min(driven.records, key=lambda record: record.scheduled_ns)
    for turn in range(1, 5):
        request_id = first.request_id if turn == 1 else f"{first.request_id}.{turn}"
        asked = driven.answers[request_id].body
        assert asked is not None
        assert asked["messages"] == expected
        assert {name: value for name, value in asked.items() if name != "messages"} == {name: value for name, value in body.items() if name != "messages"}
        record = next(record for record in driven.records if record.request_id == request_id)
        assert (record.prompt_id, record.status, record.output_tokens, record.output_text) == (f"p0#{turn}", "ok", 4, None)
        if turn < 4:
            expected = [*expected, {"role": "assistant", "content": text_of(4)}, {"role": "user", "content": TURNS[turn - 1]}]


@pytest.mark.parametrize("offsets_s", [None, [0.0, 0.2]])
def test_a_turn_is_due_its_think_time_after_the_answer_before_it(drive: Drive, offsets_s: list[float] | None) -> None:
    bodies = [request_body(ttft_ms=10, gap_ms=2, tokens=4)]
    driven = drive(bodies, offsets_s=offsets_s, asked={"turns": TURNS[:2], "think_time_s": 0.06}, duration_s=0.8, concurrency=2 if offsets_s is None else None)
    turns = {record.request_id: record for record in driven.records}
    followed = 0
    for request_id, record in turns.items():
        first, _, turn = request_id.rpartition(".")
        before = turns.get(request_id.removesuffix(f".{turn}") if turn == "2" else f"{first}.2") if turn in ("2", "3") else None
        if before is not None:
            followed += 1
            assert record.scheduled_ns == before.end_ns + 60_000_000
            assert 0 <= record.sent_ns - record.scheduled_ns < 20_000_000
    assert followed >= 4


def test_open_loop_conversations_start_with_the_arrivals_and_overlap(drive: Drive) -> None:
    offsets = [0.0, 0.01, 0.02, 0.3]
    driven = drive([request_body(ttft_ms=50, gap_ms=1, tokens=2)], offsets_s=offsets, asked={"turns": TURNS}, duration_s=0.7)
    found = by_turn(driven)
    assert [record.scheduled_ns - driven.outcome.started_ns for record in found["p0#1"]] == [round(offset * 1e9) for offset in offsets]
    assert {name: len(records) for name, records in found.items()} == {"p0#1": 4, "p0#2": 4, "p0#3": 4, "p0#4": 4}
    assert {record.status for record in driven.records} == {"ok"}


@pytest.mark.parametrize("fault", ["http500", "error_event", "close"])
@pytest.mark.parametrize("offsets_s", [None, [0.0]])
def test_a_failed_turn_ends_its_conversation(drive: Drive, fault: str, offsets_s: list[float] | None) -> None:
    driven = drive([request_body(ttft_ms=5, gap_ms=5, tokens=6, fault=fault, at=2)], offsets_s=offsets_s, asked={"turns": TURNS}, duration_s=0.15)
    assert driven.records
    assert {(record.prompt_id, record.status) for record in driven.records} == {("p0#1", "failed")}


def test_a_turn_that_is_due_after_the_window_is_not_sent(drive: Drive) -> None:
    driven = drive([request_body(ttft_ms=5, gap_ms=1, tokens=2)], offsets_s=[0.0], asked={"turns": TURNS, "think_time_s": 5.0}, duration_s=0.2)
    assert [record.prompt_id for record in driven.records] == ["p0#1"]


def test_turns_that_the_limit_holds_back_leave_records(drive: Drive) -> None:
    """One place: the second conversation's slow answer takes it while the first one's next turn waits, to the end of the window."""
    bodies = [request_body(ttft_ms=5, gap_ms=1, tokens=2), request_body(ttft_ms=900, gap_ms=1, tokens=2)]
    driven = drive(bodies, offsets_s=[0.0, 0.05], asked={"turns": TURNS[:1], "think_time_s": 0.1}, duration_s=0.4, max_in_flight=1)
    found = by_turn(driven)
    (held,) = found["p0#2"]
    assert (held.status, held.error, held.sent_ns) == ("failed", "cancelled", None)
    assert driven.outcome.held_back == 1


def test_single_prompts_and_adapters_keep_their_names(drive: Drive) -> None:
    driven = drive([request_body(ttft_ms=1, gap_ms=0, tokens=1)], asked={"adapter": "legal"}, duration_s=0.05)
    assert {(record.prompt_id, record.adapter) for record in driven.records} == {("p0", "legal")}


def test_structured_outputs_reach_the_server_as_they_are(drive: Drive) -> None:
    from perfbench.prompts import RenderedPrompt
    from perfbench.prompts import request_body as made
    from perfbench.scenario.model import Decoding, Output

    sent = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object", "properties": {"ä": {"type": "integer"}}}}}
    prompt = RenderedPrompt(prompt_id="p", messages=[{"role": "user", "content": "x"}], text=None, sha256="")
    decoding = Decoding.model_validate({"response_format": sent})
    body = made(prompt, model="m", decoding=decoding, output=Output(max_tokens=2), stream=True, extra={"truth": {"log_body": 1, "ttft_ms": 1}})
    driven = drive([body], offsets_s=[0.0])
    assert driven.answers[driven.records[0].request_id].body["response_format"] == sent
