"""What the parent of a load process does for it with Parquet: its schedule before a trial, its records after it.

pyarrow and Polars take 90 MB; a load process that had them would hold more memory than all that it drives. The parent has them already. So a schedule goes
to the load process as plain int64, and what comes back is its spool, from which the records are made here.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from perfbench.errors import LoadError
from perfbench.load.decode import recover_spool
from perfbench.load.trial import TrialSpec
from perfbench.records import Record, TrialOutcome


@contextmanager
def plain_schedule(spec: TrialSpec) -> Iterator[TrialSpec]:
    """The trial with its schedule as plain int64 in native order (`load.drive` reads it), beside the spool and only while the trial runs."""
    if spec.schedule_path is None:
        yield spec
        return
    import pyarrow.parquet as pq

    offsets_ns = array("q", pq.read_table(spec.schedule_path, columns=["offset_ns"])["offset_ns"].to_pylist())
    path = Path(spec.spool_path).with_suffix(".offsets")
    try:
        path.write_bytes(offsets_ns.tobytes())
        yield msgspec.structs.replace(spec, schedule_path=str(path))
    finally:
        path.unlink(missing_ok=True)


def save_records(spec: TrialSpec, outcome: TrialOutcome) -> TrialOutcome:
    """Decode the spools of a driven trial, write their records as Parquet in the order of their schedule, and remove them; returns the outcome with its
    counts. Times of a worker with another clock are brought to the master's.

    Raises LoadError when they cannot be written; the spool is then still there.
    """
    if not outcome.workers:
        records = _save(spec, 0, 0)
        return msgspec.structs.replace(outcome, requests_ok=_ok(records), requests_failed=len(records) - _ok(records))
    ok, failed, workers = 0, 0, []
    for worker in outcome.workers:
        records = _save(spec, worker.worker, worker.clock_offset_ns)
        ok, failed = ok + _ok(records), failed + len(records) - _ok(records)
        workers.append(msgspec.structs.replace(worker, requests=len(records), send_lag_p99_s=_send_lag_p99_s(records, outcome)))
    return msgspec.structs.replace(outcome, requests_ok=ok, requests_failed=failed, workers=workers)


def _save(spec: TrialSpec, worker: int, ahead_ns: int) -> list[Record]:
    from perfbench.result_tables import write_records

    files = spec.files_of(worker)
    spool = Path(files.spool_path)
    records = sorted((on_other_clock(record, ahead_ns) for record in recover_spool(spool)), key=_by_schedule)
    try:
        write_records(Path(files.records_path), records)
    except OSError as error:
        raise LoadError(
            f"the records of trial {spec.trial} cannot be written to {files.records_path}: {error}; make room there, or mend its folder",
            hint=f"they are still in {spool}; `perfbench run --resume` recovers them",
        ) from None
    spool.unlink()
    return records


def on_other_clock(record: Record, ahead_ns: int) -> Record:
    """The record as a clock would have taken it that the record's own is `ahead_ns` ahead of."""
    if ahead_ns == 0:
        return record
    times = {name: getattr(record, name) for name in ("scheduled_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns")}
    moved = {name: None if t_ns is None else t_ns - ahead_ns for name, t_ns in times.items()}
    return msgspec.structs.replace(record, chunk_ns=[t_ns - ahead_ns for t_ns in record.chunk_ns], **moved)


def _ok(records: Sequence[Record]) -> int:
    return sum(record.status == "ok" for record in records)


def _send_lag_p99_s(records: Sequence[Record], outcome: TrialOutcome) -> float | None:
    """Nearest rank over the requests scheduled in the window; None where none of them was sent."""
    measured = (record for record in records if outcome.measure_from_ns <= record.scheduled_ns < outcome.measure_until_ns)
    lags_ns = sorted(record.sent_ns - record.scheduled_ns for record in measured if record.sent_ns is not None)
    return lags_ns[math.ceil(len(lags_ns) * 0.99) - 1] / 1e9 if lags_ns else None


def _by_schedule(record: Record) -> tuple[int, str]:
    return record.scheduled_ns, record.request_id
