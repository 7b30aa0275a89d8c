"""The whole: what a run is called valid for, and every piece that may be missing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perfbench.analyse.summarise import summarise
from perfbench.errors import RunFolderError
from perfbench.records import ReferenceCheck, Summary


def _trial(run: Any, record: Any, trial: str, **outcome: Any) -> None:
    run.trial(trial, [record(trial, 2.0 + k * 0.2, prompt_id=str(k)) for k in range(40)], **outcome)


def test_a_whole_run(run: Any, record: Any, sample: Any, quality_block: Any) -> None:
    variants = ["base", "base+lora", "adapter", "merged"]
    trials = [f"{variant}.one.r{repeat}" for repeat in range(2) for variant in variants]
    run.manifest(trials, quality=quality_block, cost={"server_hour_usd": 36.0}, slo={"ttft_s": {"p95": 1.0}})
    for server, hosted in (("base", ["base"]), ("lora", ["base+lora", "adapter"]), ("merged", ["merged"])):
        run.server(server, hosted, kv_cache_tokens=64)
    run.samples([sample(3.0, "host", "host_rss_bytes", 5e9, server=server) for server in ("base", "lora", "merged")])
    for variant in variants:
        run.quality(variant, [k < (20 if variant.startswith("base") else 50) for k in range(60)])
    for trial in trials:
        _trial(run, record, trial)
    summary = summarise(run.folder)
    assert summary.valid and list(summary.variants) == variants
    assert [(trial.stage, trial.repeat) for trial in summary.variants["adapter"].trials] == [("one", 0), ("one", 1)]
    for variant in summary.variants.values():
        assert variant.memory.host_rss_bytes_peak == 5_000_000_000 and variant.cost.usd_per_request is not None and variant.quality is not None
    assert summary.variants["base+lora"].memory.shared_with == ["adapter"]
    assert [summary.variants[name].quality.verdict for name in ("base", "adapter")] == ["reference", "pass"]  # type: ignore[union-attr]
    assert summary.slo == {"ttft_s": {"percentile": 95, "limit_s": 1.0}}
    assert len({(one.left, one.right) for one in summary.comparisons}) == 5
    run.folder.write_summary(summary)
    assert run.folder.summary() == summary


def test_the_same_folder_reads_the_same_twice(run: Any, record: Any) -> None:
    run.manifest(["adapter.one.r0", "merged.one.r0"], variants=["adapter", "merged"])
    for trial in ("adapter.one.r0", "merged.one.r0"):
        _trial(run, record, trial)
    assert msgspec.json.encode(summarise(run.folder)) == msgspec.json.encode(summarise(run.folder))


def test_a_run_in_which_nothing_has_finished(run: Any) -> None:
    run.manifest(["adapter.one.r0"], variants=["adapter"])
    summary = summarise(run.folder)
    assert not summary.valid and summary.comparisons == []
    assert summary.variants["adapter"].trials == [] and summary.variants["adapter"].quality is None
    assert summary.variants["adapter"].memory.host_rss_bytes_peak is None
    assert summary.recommendation.serve is None


def test_a_trial_that_has_not_finished_makes_the_run_invalid(run: Any, record: Any) -> None:
    """Its records are there, the journal does not name it."""
    from perfbench.result_tables import write_records

    run.manifest(["adapter.one.r0", "adapter.one.r1"], variants=["adapter"])
    _trial(run, record, "adapter.one.r0")
    write_records(run.folder.records_path("adapter.one.r1", 0), [record("adapter.one.r1", 3.0)])
    summary = summarise(run.folder)
    assert not summary.valid and len(summary.variants["adapter"].trials) == 1


def test_void_trials_and_nonsense_make_the_run_invalid(run: Any, record: Any) -> None:
    run.manifest(["adapter.one.r0"], variants=["adapter"])
    _trial(run, record, "adapter.one.r0")
    assert summarise(run.folder).valid
    run.folder.append_journal("reference_check", "adapter", ReferenceCheck(variant="adapter", verdict="fail", reason="nonsense"))
    assert not summarise(run.folder).valid
    run.folder.append_journal("reference_check", "adapter", ReferenceCheck(variant="adapter", verdict="pass", reason="checked again"))
    assert summarise(run.folder).valid
    _trial(run, record, "adapter.one.r0", client_cpu_s=9.9)
    assert not summarise(run.folder).valid


def test_an_endpoint_alone(run: Any, record: Any) -> None:
    run.manifest(["mine.one.r0"], variants=[], endpoints={"mine": {"url": "http://x", "model": "m"}})
    _trial(run, record, "mine.one.r0")
    summary = summarise(run.folder)
    assert summary.valid and summary.variants["mine"].trials[0].requests.ok == 40


def test_several_workers_of_one_trial_are_one_trial(run: Any, record: Any) -> None:
    from perfbench.result_tables import write_records

    run.manifest(["adapter.one.r0"], variants=["adapter"])
    _trial(run, record, "adapter.one.r0")
    write_records(run.folder.records_path("adapter.one.r0", 1), [record("adapter.one.r0", 3.05, prompt_id="x", worker=1)])
    assert summarise(run.folder).variants["adapter"].trials[0].requests.ok == 41


def test_a_resolved_scenario_is_read_without_its_files(run: Any, quality_block: Any) -> None:
    """Manifests travel; /nowhere/held-out.jsonl does not exist here, and the analysis must not care."""
    run.manifest(["adapter.one.r0"], variants=["adapter"], quality=quality_block)
    assert isinstance(summarise(run.folder), Summary)


def test_a_trial_whose_records_are_gone_is_refused_not_analysed_as_unanswered(run: Any, record: Any) -> None:
    run.manifest(["adapter.one.r0"])
    run.trial("adapter.one.r0", [record("adapter.one.r0", 3.0)], requests_ok=1)
    summarise(run.folder)
    run.folder.records_path("adapter.one.r0", 0).unlink()
    with pytest.raises(RunFolderError, match=r"lacks the records of trial adapter\.one\.r0"):
        summarise(run.folder)


def test_a_manifest_whose_scenario_was_changed_by_hand_is_one_sentence(run: Any) -> None:
    run.manifest([])
    manifest = run.folder.manifest()
    for load in ({}, {"stages": [{"name": "one", "arrival": "now and then"}]}):
        run.folder.write_manifest(msgspec.structs.replace(manifest, scenario={**manifest.scenario, "load": load}))
        with pytest.raises(RunFolderError, match=r"holds a scenario that cannot be read: .*(stages|arrival)"):
            summarise(run.folder)
