"""Run folders with hand-set times, written through perfbench.results. Trials begin at T0: warm-up 2 s, window 10 s, drain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perfbench.records import SCHEMA_VERSION, Manifest, ModelInfo, QualityRecord, Record, Sample, ServerInfo, TrialOutcome, TrialPlan
from perfbench.result_tables import write_records, write_samples
from perfbench.results import RunFolder

T0_NS = 1_000_000_000_000
WARMUP_S, WINDOW_S = 2.0, 10.0


def at(seconds: float) -> int:
    """Nanoseconds of a moment so many seconds after the start of a trial."""
    return T0_NS + round(seconds * 1e9)


def make_record(trial: str, sent_s: float, **given: Any) -> Record:
    """A request sent (and scheduled) `sent_s` after the start; answered with `n` tokens, one a chunk, unless told otherwise."""
    variant = trial.split(".", maxsplit=1)[0]
    ttft, tpot, n = given.pop("ttft", 0.5), given.pop("tpot", 0.25), given.pop("n", 5)
    scheduled_s = given.pop("scheduled_s", sent_s)
    chunks = [at(sent_s + ttft + tpot * index) for index in range(n)]
    failed = given.get("status") == "failed"
    values: dict[str, Any] = {
        "request_id": f"{trial}-{sent_s}-{given.get('prompt_id', 'p')}",
        "trial": trial,
        "variant": variant,
        "worker": 0,
        "prompt_id": "p",
        "scheduled_ns": at(scheduled_s),
        "sent_ns": at(sent_s),
        "first_token_ns": None if failed else chunks[0],
        "last_token_ns": None if failed else chunks[-1],
        "end_ns": at(sent_s + 0.1) if failed else chunks[-1],
        "chunk_ns": [] if failed else chunks,
        "chunk_tokens": None,
        "prompt_tokens": None if failed else 20,
        "output_tokens": None if failed else n,
        "cached_tokens": None,
        "status": "ok",
        "finish_reason": None if failed else "stop",
        "stamp": "kernel",
    }
    return Record(**{**values, **given})


def make_outcome(trial: str, **given: Any) -> TrialOutcome:
    values: dict[str, Any] = {
        "trial": trial,
        "started_ns": at(0),
        "measure_from_ns": at(WARMUP_S),
        "measure_until_ns": at(WARMUP_S + WINDOW_S),
        "ended_ns": at(20),
        "requests_ok": 0,
        "requests_failed": 0,
    }
    return TrialOutcome(**{**values, **given})


def scenario_of(**given: Any) -> dict[str, Any]:
    """A resolved scenario with one closed stage, `one`; data files are named and need not exist."""
    stage = {"name": "one", "arrival": "closed", "concurrency": 1, "warmup_s": WARMUP_S, "duration_s": WINDOW_S, "drain_s": 8.0, "output": {"max_tokens": 64}}
    values: dict[str, Any] = {
        "name": "test",
        "variants": ["base", "base+lora", "adapter", "merged"],
        "endpoints": {},
        "serve": {"args": {}, "env": {}},
        "prompt": {"system": None, "user": "{{ prompt }}", "api": "chat"},
        "load": {"data": {"path": "/nowhere/prompts.jsonl", "limit": None}, "stages": [stage]},
        "slo": {},
        "quality": None,
        "cost": None,
    }
    return {**values, **given}


QUALITY = {
    "data": {"path": "/nowhere/held-out.jsonl", "limit": None},
    "task": {"task": "classification", "expected": "label", "labels": ["yes", "no"]},
    "metric": None,
    "margin": 0.1,
    "minimum": None,
}


class RunMaker:
    """Writes a run folder, part by part."""

    def __init__(self, parent: Path) -> None:
        self.folder = RunFolder.create(parent, "test")

    def manifest(self, trials: Sequence[str], *, models: Mapping[str, ModelInfo] | None = None, hardware: Any = None, **scenario: Any) -> None:
        resolved = scenario_of(**scenario)
        arrivals = {stage["name"]: stage["arrival"] for stage in resolved["load"]["stages"]}
        plans = []
        for trial in trials:
            variant, stage, repeat = trial.rsplit(".", 2)
            plans.append(TrialPlan(trial=trial, variant=variant, stage=stage, repeat=int(repeat[1:]), arrival=arrivals[stage]))
        self.folder.write_manifest(
            Manifest(
                schema_version=SCHEMA_VERSION, run_id=self.folder.path.name, scenario_name="test", scenario=resolved, scenario_file=None, scenario_text="",
                command=[], started_utc="", perfbench_version="0", versions={}, hardware=hardware or {}, git=None, hashes={}, models=dict(models or {}),
                trials=plans,
            )
        )  # fmt: skip

    def trial(self, trial: str, records: Sequence[Record], **outcome: Any) -> None:
        write_records(self.folder.records_path(trial, 0), records)
        self.folder.append_journal("trial_finished", trial, make_outcome(trial, **outcome))

    def server(self, name: str, variants: list[str], **given: Any) -> None:
        info = ServerInfo(**{"name": name, "variants": variants, "url": "http://127.0.0.1:1", "argv": [], "env": {}, **given})
        self.folder.append_journal("server_ready", name, info)

    def samples(self, samples: Sequence[Sample], session: str = "s1") -> None:
        write_samples(self.folder.telemetry_path(session), samples)

    def quality(self, variant: str, passed: Sequence[bool]) -> None:
        rows = [
            QualityRecord(
                sample_id=f"q{index}", variant=variant, prompt="[]", prompt_sha256=f"{index:064x}", expected="yes", output="yes" if one else "no",
                passed=one, label="correct answer" if one else "wrong answer", scores={"accuracy": float(one)},
            )
            for index, one in enumerate(passed)
        ]  # fmt: skip
        self.folder.write_quality(variant, rows)
        self.folder.append_journal("quality_finished", variant)


def make_sample(t_s: float, source: str, name: str, value: float, **labels: str) -> Sample:
    return Sample(t_ns=at(t_s), source=source, name=name, value=value, unit="", labels=labels)


@pytest.fixture
def run(tmp_path: Path) -> RunMaker:
    """An empty run folder to be filled."""
    return RunMaker(tmp_path)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[str], RunMaker]:
    """Empty run folders by name, for tests that need several."""

    def make(name: str) -> RunMaker:
        (tmp_path / name).mkdir()
        return RunMaker(tmp_path / name)

    return make


@pytest.fixture
def record() -> Callable[..., Record]:
    return make_record


@pytest.fixture
def outcome() -> Callable[..., TrialOutcome]:
    return make_outcome


@pytest.fixture
def sample() -> Callable[..., Sample]:
    return make_sample


@pytest.fixture
def quality_block() -> dict[str, Any]:
    return msgspec.convert(QUALITY, dict[str, Any])
