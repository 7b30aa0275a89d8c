import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from answering_server import AnsweringServer, chat

from perfbench.errors import EndpointError
from perfbench.quality.ask import Target
from perfbench.quality.decide import decide
from perfbench.quality.fairness import check_same_asked, not_comparable
from perfbench.quality.spot_check import prepare, spot_check
from perfbench.records import QualityRecord
from perfbench.results import RunFolder
from perfbench.scenario.model import Decoding, Prompt
from perfbench.scenario.quality import Quality

COMMANDS = {"lamp on": {"intent": "on", "what": "lamp"}, "lamp off": {"intent": "off", "what": "lamp"}, "heat on": {"intent": "on", "what": "heat"}}
PROMPT = Prompt(system="JSON only", user="{{ text }}")


@pytest.fixture
def quality(tmp_path: Path) -> Quality:
    path = tmp_path / "eval.jsonl"
    path.write_text("".join(json.dumps({"id": f"s{n}", "text": text, "want": want}) + "\n" for n, (text, want) in enumerate(COMMANDS.items())))
    return Quality.model_validate({"data": {"path": str(path)}, "task": {"task": "extraction", "expected": "want"}, "margin": 0.1, "concurrency": 2})


def test_two_variants_from_server_to_verdict_and_disk(quality: Quality, tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> Any:
        text = body["messages"][1]["content"]
        if body["model"] == "base":
            return chat(f"Sure! ```json\n{json.dumps(COMMANDS[text])}\n```") if text != "heat on" else (500, b"no")
        return chat(json.dumps(COMMANDS[text]))

    held_out = prepare(quality, PROMPT, Decoding())
    with AnsweringServer(reply) as server:
        found = {
            variant: spot_check(held_out, quality, Decoding(), Target(url=server.url, model=variant), variant=variant, contaminated={"s1"})
            for variant in ("base", "adapter")
        }
        assert {json.dumps(body["messages"][0]) for body in server.bodies} == {'{"role": "system", "content": "JSON only"}'}
    assert check_same_asked(found) == []
    base, adapter = found["base"], found["adapter"]
    assert [record.sample_id for record in base] == ["s0", "s1", "s2"]
    assert [record.label for record in base] == ["wrong format", "wrong format", "no answer"]
    assert base[2].error == "http: status 500: no"
    assert base[0].scores["field_accuracy"] == 1.0
    assert [record.contaminated for record in adapter] == [False, True, False]
    assert all(record.passed for record in adapter)
    summary = decide(base, adapter, quality)
    assert summary.improvements == 3
    assert summary.metrics["exact_match"].value == 1.0
    assert summary.without_contaminated is not None

    folder = RunFolder.create(tmp_path, "test")
    folder.write_quality("adapter", adapter)
    assert folder.quality("adapter") == adapter


def test_a_server_that_answers_nothing_is_one_error(quality: Quality) -> None:
    with AnsweringServer(lambda body: (404, b'{"error": {"message": "no such model"}}')) as server, pytest.raises(EndpointError, match="all 3 requests"):
        spot_check(prepare(quality, PROMPT, Decoding()), quality, Decoding(), Target(url=server.url, model="x"), variant="x")


def test_unknown_contamination_stays_unknown(quality: Quality) -> None:
    held_out = prepare(quality, PROMPT, Decoding())
    with AnsweringServer(lambda body: chat("{}")) as server:
        records: list[QualityRecord] = spot_check(held_out, quality, Decoding(), Target(url=server.url, model="x"), variant="x")
    assert {record.contaminated for record in records} == {None}
    assert {record.label for record in records} == {"incomplete answer"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"template_sha256": "x"}, "they were asked with another prompt template"),
        ({"decoding_sha256": "x"}, "they were asked with other decoding settings"),
        ({"seed": 7}, "they were asked with another seed"),
        ({"prompt_sha256": "x"}, "1 samples had another prompt or expected answer, the first is `s0`"),
    ],
)
def test_what_was_asked_otherwise_is_not_comparable_and_said(change: dict[str, Any], told: str) -> None:
    record = QualityRecord(sample_id="s0", variant="base", prompt="p", prompt_sha256="p", expected="x", output="x", passed=True, label="correct answer")
    assert not_comparable([record], [record]) is None
    assert not_comparable([record], [msgspec.structs.replace(record, **change)]) == told
