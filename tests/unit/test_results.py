"""The run folder: what is written comes back, and a writer that is killed loses only its torn last row."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.errors import RunFolderError
from perfbench.records import QualityRecord, Record, Sample
from perfbench.result_tables import write_records, write_samples
from perfbench.results import RunFolder
from perfbench.spool import Spool, read_spool


def a_record(**changes) -> Record:
    fields = {
        "request_id": "r1", "trial": "base.one.r0", "variant": "base", "worker": 0, "prompt_id": "p1", "scheduled_ns": 1, "sent_ns": 2,
        "first_token_ns": 3, "last_token_ns": 5, "end_ns": 6, "chunk_ns": [3, 5], "chunk_tokens": None, "prompt_tokens": 7, "output_tokens": 2,
        "cached_tokens": None, "status": "ok", "stamp": "kernel",
    }  # fmt: skip
    return Record(**{**fields, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "demo")


def test_records_come_back_with_none_kept_apart_from_zero(folder):
    records = [a_record(), a_record(request_id="r2", sent_ns=None, first_token_ns=None, chunk_ns=[], output_tokens=0, status="failed", error="connect")]
    write_records(folder.records_path("base.one.r0", 0), records)
    rows = folder.records().collect().to_dicts()
    assert [Record(**row) for row in rows] == records


def test_interrupted_records_are_kept_and_left_out(folder):
    spool = folder.spool_path("base.one.r0", 0)
    spool.touch()
    write_records(folder.interrupted_path(spool), [a_record(request_id="cut")])
    second = folder.interrupted_path(spool)
    write_records(second, [a_record(request_id="cut again")])
    write_records(folder.records_path("base.one.r0", 0), [a_record()])
    assert second.name == "base.one.r0.w0.interrupted-2.parquet"
    assert folder.records().collect()["request_id"].to_list() == ["r1"]
    assert sorted(folder.records(interrupted=True).collect()["request_id"]) == ["cut", "cut again"]


def test_an_empty_folder_has_an_empty_frame_with_all_columns(folder):
    frame = folder.records().collect()
    assert frame.height == 0
    assert "chunk_ns" in frame.columns


def test_samples_and_quality_come_back(folder):
    samples = [Sample(t_ns=1, source="host", name="host_rss_bytes", value=5.0, unit="bytes", labels={"server": "base"})]
    write_samples(folder.telemetry_path("s"), samples)
    assert folder.samples().collect().to_dicts()[0]["labels"] == '{"server":"base"}'
    record = QualityRecord(
        sample_id="1", variant="base+lora", prompt="[]", prompt_sha256="x", expected="a", output=None, error="timeout",
        scores={"exact_match": 0.0}, passed=False, label="no answer",
    )  # fmt: skip
    folder.write_quality("base+lora", [record])
    assert folder.quality("base+lora") == [record]
    assert folder.quality("adapter") == []


def test_the_journal_keeps_order_and_forgets_a_torn_line(folder):
    folder.append_journal("server_ready", "base", {"ready_s": 1.5})
    folder.append_journal("trial_finished", "base.one.r0", {"requests_ok": 1})
    folder.append_journal("trial_finished", "base.one.r0", {"requests_ok": 2})
    with (folder.path / "journal.jsonl").open("ab") as file:
        file.write(b'{"event": "trial_fin')
    assert [entry.event for entry in folder.journal()] == ["server_ready", "trial_finished", "trial_finished"]
    assert folder.finished("trial_finished") == {"base.one.r0": {"requests_ok": 2}}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="is no run"):
        RunFolder.open(tmp_path)


def test_a_manifest_changed_by_hand_is_one_sentence(folder):
    (folder.path / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"manifest\.json cannot be read"):
        RunFolder.open(folder.path).manifest()


def test_a_journal_changed_by_hand_is_one_sentence(folder):
    (folder.path / "journal.jsonl").write_text("garbage\n")
    with pytest.raises(RunFolderError, match=r"journal\.jsonl cannot be read"):
        folder.journal()


def test_a_file_that_was_cut_off_is_named(folder):
    path = folder.records_path("base.one.r0", 0)
    write_records(path, [a_record()])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunFolderError, match=r"base\.one\.r0\.w0\.parquet is no whole Parquet file"):
        folder.records()
    folder.write_quality("base", [])
    (folder.path / "quality" / "base.parquet").write_bytes(b"")
    with pytest.raises(RunFolderError, match=r"quality/base\.parquet is no whole"):
        folder.quality("base")


@given(st.lists(st.integers(0, 3), max_size=6), st.integers(0, 40))
def test_a_torn_spool_yields_all_whole_rows(tmp_path_factory, sizes, torn):
    path = tmp_path_factory.mktemp("spool") / "x.spool"
    rows = [a_record(request_id="r" * size, chunk_ns=list(range(size))) for size in sizes]
    spool = Spool[Record](path)
    for row in rows:
        spool.append(row)
    spool.close()
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[: max(0, whole - torn)])
    read = read_spool(path, Record)
    assert read == rows[: len(read)]
    assert len(read) >= len(rows) - (torn > 0) * len(rows)
    if torn == 0:
        assert read == rows


def test_a_killed_writer_loses_no_appended_row(tmp_path):
    path = tmp_path / "x.spool"
    code = f"""
import os, pathlib
from perfbench.records import Sample
from perfbench.spool import Spool
spool = Spool(pathlib.Path({str(path)!r}))
for i in range(100):
    spool.append(Sample(t_ns=i, source="host", name="n", value=1.0, unit="u"))
print("written", flush=True)
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [row.t_ns for row in read_spool(path, Sample)] == list(range(100))
