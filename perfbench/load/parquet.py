"""What the parent of a load process does for it with Parquet: its schedule before a trial, its records after it.

pyarrow and Polars take 90 MB; a load process that had them would hold more memory than all that it drives. The parent has them already. So a schedule goes
to the load process as plain int64, and what comes back is its spool, from which the records are made here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
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
    """Decode the spool of a driven trial, write its records as Parquet in the order of their schedule, and remove it; returns the outcome with its counts.

    Raises LoadError when they cannot be written; the spool is then still there.
    """
    from perfbench.results import write_records

    spool = Path(spec.spool_path)
    records = sorted(recover_spool(spool), key=_by_schedule)
    try:
        write_records(Path(spec.records_path), records)
    except OSError as error:
        raise LoadError(
            f"the records of trial {spec.trial} cannot be written to {spec.records_path}: {error}; make room there, or mend its folder",
            hint=f"they are still in {spool}; `perfbench run --resume` recovers them",
        ) from None
    spool.unlink()
    ok = sum(record.status == "ok" for record in records)
    return msgspec.structs.replace(outcome, requests_ok=ok, requests_failed=len(records) - ok)


def _by_schedule(record: Record) -> tuple[int, str]:
    return record.scheduled_ns, record.request_id
