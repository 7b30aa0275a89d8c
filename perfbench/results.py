"""The run folder (DESIGN 7): the only file that knows where things lie. `result_tables` holds the form of its tables.

    manifest.json  prompts.jsonl  journal.jsonl  summary.json  report.html  report.md  [plan.json  plan.md]
    schedules/<stage>.r<repeat>.parquet     arrival times, the same for every variant
    requests/<trial>.w<worker>.parquet      records; `.interrupted-<k>` for trials that a crash cut off
    telemetry/<session>.parquet  quality/<variant>.parquet  fidelity/<variant>.parquet  server/<server>.log
    quality/judged/<variant>.parquet  quality/human.jsonl  quality/blind/<sheet>.json  quality/scored-<k>/ (before it was scored again)

While a process still writes, its rows are in a spool beside the final file (`*.spool`, spool.py), so that a killed process loses only
what it had not yet received. The spool becomes Parquet when the stage ends, or in `recover()` after a crash. What the journal does not
name as finished did not finish.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import polars as pl
import pyarrow as pa

from perfbench.errors import RunFolderError
from perfbench.records import (
    BenchmarkResult,
    BlindKey,
    ForeignResult,
    HumanLabel,
    JournalEntry,
    JudgeRecord,
    Manifest,
    Plan,
    QualityRecord,
    Sample,
    Summary,
    TokenAnswer,
    TrialPlan,
)  # fmt: skip
from perfbench.result_tables import (
    JUDGED_SCHEMA,
    RECORD_SCHEMA,
    SAMPLE_SCHEMA,
    TOKEN_SCHEMA,
    read_quality,
    read_rows,
    scan,
    write_quality,
    write_rows,
    write_samples,
    write_table,
)
from perfbench.spool import read_spool

Row = TypeVar("Row", bound=msgspec.Struct)

_CHANGED = "it was written by another version, or changed by hand"
_INTERRUPTED = re.compile(r"\.interrupted-\d+\.parquet$")


class RunFolder:
    """One run on disk. `create` makes one, `open` finds one; everything else reads or writes its files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, parent: Path, scenario_name: str) -> RunFolder:
        """Make `<scenario>-<UTC>-<id>` under `parent`."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = parent / f"{scenario_name}-{stamp}-{secrets.token_hex(2)}"
        for part in ("schedules", "requests", "telemetry", "quality/judged", "server"):
            (path / part).mkdir(parents=True)
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """A folder that holds a manifest; raises RunFolderError for anything else."""
        folder = Path(path)
        if not (folder / "manifest.json").is_file():
            raise RunFolderError(f"{folder} is no run: expected a folder with manifest.json", hint="runs lie under results/")
        return cls(folder.absolute())

    # -- what is written once

    def write_manifest(self, manifest: Manifest) -> None:
        self._write_json("manifest.json", manifest)

    def manifest(self) -> Manifest:
        return self._read_json("manifest.json", Manifest)

    def write_summary(self, summary: Summary) -> None:
        self._write_json("summary.json", summary)

    def summary(self) -> Summary:
        if not (self.path / "summary.json").is_file():
            raise RunFolderError(f"{self.path} has no summary.json: the run has not finished", hint="perfbench run --resume finishes it")
        return self._read_json("summary.json", Summary)

    def write_plan(self, plan: Plan) -> None:
        self._write_json("plan.json", plan)

    def plan(self) -> Plan | None:
        """The newest plan; None where none was made."""
        return self._read_json("plan.json", Plan) if (self.path / "plan.json").is_file() else None

    def write_prompts(self, rows: Sequence[msgspec.Struct]) -> Path:
        """The load's prompts as sent, one a line, before anything is driven."""
        path = self.path / "prompts.jsonl"
        self._write_bytes(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        return path

    def write_text(self, name: str, text: str) -> Path:
        """A report at the top of the folder."""
        path = self.path / name
        self._write_bytes(path, text.encode())
        return path

    # -- the journal

    def append_journal(self, event: Any, key: str = "", data: msgspec.Struct | dict[str, Any] | None = None) -> None:
        """Say that something has finished. On disk when this returns."""
        body = msgspec.to_builtins(data) if data is not None else {}
        entry = JournalEntry(event=event, t_ns=time.monotonic_ns(), utc=datetime.now(UTC).isoformat(timespec="milliseconds"), key=key, data=body)
        file = os.open(self.path / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, msgspec.json.encode(entry) + b"\n")
            os.fsync(file)
        finally:
            os.close(file)

    def journal(self) -> list[JournalEntry]:
        """All whole lines, oldest first."""
        path = self.path / "journal.jsonl"
        if not path.is_file():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]
        decoder = msgspec.json.Decoder(JournalEntry)
        try:
            return [decoder.decode(line) for line in lines if line]
        except msgspec.DecodeError as error:
            raise RunFolderError(f"{path} cannot be read: {error}", hint=_CHANGED) from None

    def finished(self, event: str) -> dict[str, dict[str, Any]]:
        """key -> data of every journal entry of one event; the newest wins."""
        return {entry.key: entry.data for entry in self.journal() if entry.event == event}

    def probes(self) -> list[TrialPlan]:
        """Probes of searches, in the order in which they were planned."""
        return [msgspec.convert(data, TrialPlan) for data in self.finished("probe_planned").values()]

    # -- requests

    def schedule_path(self, stage: str, repeat: int) -> Path:
        return self.path / "schedules" / f"{stage}.r{repeat}.parquet"

    def write_schedule(self, stage: str, repeat: int, offsets_ns: Sequence[int]) -> Path:
        """Arrival times of an open-loop stage, ns after its start, the same for every variant."""
        path = self.schedule_path(stage, repeat)
        write_table(path, pa.table({"offset_ns": pa.array(offsets_ns, pa.int64())}))
        return path

    @contextmanager
    def bodies_of(self, trial: str, bodies: Iterable[msgspec.Struct]) -> Iterator[Path]:
        """The requests of a trial as JSONL, only while it runs: they follow from prompts.jsonl and the manifest."""
        path = self.path / "requests" / f"{trial}.bodies.jsonl"
        try:
            with path.open("wb") as file:
                file.writelines(msgspec.json.encode(body) + b"\n" for body in bodies)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def spool_path(self, trial: str, worker: int) -> Path:
        """Where a load worker spools raw exchanges while a trial runs (their form is load's own)."""
        return self.path / "requests" / f"{trial}.w{worker}.spool"

    def records_path(self, trial: str, worker: int) -> Path:
        return self.path / "requests" / f"{trial}.w{worker}.parquet"

    def interrupted_path(self, path: Path) -> Path:
        """Where the records of a trial that was cut off go (`path`: its spool or records): kept, and left out of every number."""
        stem = path.name.removesuffix(".spool").removesuffix(".parquet")
        attempts = sum(1 for file in path.parent.iterdir() if file.name.startswith(f"{stem}.interrupted-"))
        return path.with_name(f"{stem}.interrupted-{attempts + 1}.parquet")

    def records_of_trials_not_in(self, finished: Collection[str]) -> list[Path]:
        """Records of trials that the journal does not name as finished: the run died between the last request and the journal's line."""
        files = [file for file in (self.path / "requests").glob("*.parquet") if not _INTERRUPTED.search(file.name)]
        return sorted(file for file in files if re.sub(r"\.w\d+\.parquet$", "", file.name) not in finished)

    def left_spools(self) -> list[Path]:
        """Spools of trials that were cut off."""
        return sorted((self.path / "requests").glob("*.spool"))

    def records(self, *, interrupted: bool = False) -> pl.LazyFrame:
        """All records, one row a request (DESIGN 7.1), of finished trials, or of the ones that were cut off."""
        files = sorted((self.path / "requests").glob("*.parquet"))
        chosen = [file for file in files if bool(_INTERRUPTED.search(file.name)) == interrupted]
        return scan(chosen, RECORD_SCHEMA)

    def records_of(self, trial: str) -> pl.LazyFrame:
        """Records of one finished trial: its own files alone are looked at."""
        files = sorted(path for path in (self.path / "requests").glob("*.parquet") if re.fullmatch(re.escape(trial) + r"\.w\d+\.parquet", path.name))
        return scan(files, RECORD_SCHEMA)

    # -- telemetry

    def telemetry_path(self, session: str) -> Path:
        return self.path / "telemetry" / f"{session}.parquet"

    def telemetry_spool(self, session: str) -> Path:
        return self.path / "telemetry" / f"{session}.spool"

    def recover_telemetry(self) -> None:
        """Turn spools that a killed sampler left behind into Parquet."""
        for spool in (self.path / "telemetry").glob("*.spool"):
            write_samples(spool.with_suffix(".parquet"), read_spool(spool, Sample))
            spool.unlink()

    def samples(self) -> pl.LazyFrame:
        """All telemetry: t_ns, source, name, value, unit, labels (JSON text)."""
        return scan(sorted((self.path / "telemetry").glob("*.parquet")), SAMPLE_SCHEMA)

    # -- quality and servers

    def write_quality(self, variant: str, records: Sequence[QualityRecord]) -> None:
        write_quality(self.path / "quality" / f"{variant}.parquet", records)

    def quality(self, variant: str) -> list[QualityRecord]:
        return read_quality(self.path / "quality" / f"{variant}.parquet")

    def write_token_answers(self, variant: str, answers: Sequence[TokenAnswer]) -> None:
        """Greedy answers token by token, for merge fidelity."""
        (self.path / "fidelity").mkdir(exist_ok=True)
        write_rows(self.path / "fidelity" / f"{variant}.parquet", answers, TOKEN_SCHEMA)

    def token_answers(self, variant: str) -> list[TokenAnswer]:
        return read_rows(self.path / "fidelity" / f"{variant}.parquet", TokenAnswer)

    def add_foreign(self, results: Sequence[ForeignResult]) -> None:
        """Keep what other tools measured; a file that is imported again replaces what it gave before."""
        given = {one.file for one in results}
        kept = [one for one in self.foreign() if one.file not in given]
        self._write_bytes(self.path / "foreign.json", msgspec.json.format(msgspec.json.encode([*kept, *results]), indent=1))

    def foreign(self) -> list[ForeignResult]:
        """What other tools measured, as imported; empty where nothing was."""
        path = self.path / "foreign.json"
        return msgspec.json.decode(path.read_bytes(), type=list[ForeignResult]) if path.is_file() else []

    def write_benchmark(self, result: BenchmarkResult) -> None:
        (self.path / "benchmarks").mkdir(exist_ok=True)
        self._write_json(f"benchmarks/{result.task}.{result.variant}.json", result)

    def benchmarks(self) -> list[BenchmarkResult]:
        """What public benchmarks have been run, by task and variant; the newest of each."""
        return [self._read_json(f"benchmarks/{file.name}", BenchmarkResult) for file in sorted((self.path / "benchmarks").glob("*.json"))]

    def write_under_load(self, variant: str, records: Sequence[QualityRecord]) -> None:
        (self.path / "quality" / "under_load").mkdir(exist_ok=True)
        self.write_quality(f"under_load/{variant}", records)

    def under_load(self, variant: str) -> list[QualityRecord]:
        """Answers of load stages and idle answers to the same prompts, scored; empty where that was not asked for."""
        return self.quality(f"under_load/{variant}")

    def write_judged(self, variant: str, verdicts: Sequence[JudgeRecord]) -> None:
        write_rows(self.path / "quality" / "judged" / f"{variant}.parquet", verdicts, JUDGED_SCHEMA)

    def judged(self, variant: str) -> list[JudgeRecord]:
        """The judge's verdicts on a variant; empty where it has not been judged."""
        return read_rows(self.path / "quality" / "judged" / f"{variant}.parquet", JudgeRecord)

    def write_human_labels(self, labels: Sequence[HumanLabel]) -> None:
        self._write_bytes(self.path / "quality" / "human.jsonl", b"".join(msgspec.json.encode(label) + b"\n" for label in labels))

    def human_labels(self) -> list[HumanLabel]:
        """What people have said of the run's answers; empty where nobody has."""
        path = self.path / "quality" / "human.jsonl"
        decoder = msgspec.json.Decoder(HumanLabel)
        return [decoder.decode(line) for line in path.read_bytes().splitlines() if line.strip()] if path.is_file() else []

    def keep_scores(self) -> str:
        """Copy manifest, summary, scores and verdicts into a folder of their own before they change; returns its name in the run folder."""
        quality = self.path / "quality"
        kept = quality / f"scored-{len(list(quality.glob('scored-*'))) + 1}"
        part = kept.with_name(f".{kept.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        for folder in ("", "under_load", "judged"):
            (part / folder).mkdir(parents=True, exist_ok=True)
            for file in (quality / folder).glob("*.parquet"):
                shutil.copyfile(file, part / folder / file.name)
        for name in ("manifest.json", "summary.json"):
            shutil.copyfile(self.path / name, part / name)
        part.replace(kept)
        return str(kept.relative_to(self.path))

    def checked_variants(self) -> list[str]:
        """The variants of the manifest's order whose answers have been checked."""
        return [name for name in dict.fromkeys(plan.variant for plan in self.manifest().trials) if (self.path / "quality" / f"{name}.parquet").is_file()]

    def write_blind_key(self, key: BlindKey) -> None:
        (self.path / "quality" / "blind").mkdir(exist_ok=True)
        self._write_json(f"quality/blind/{key.sheet}.json", key)

    def blind_keys(self) -> dict[str, BlindKey]:
        """The keys of all exported sheets by the sheet's name."""
        files = sorted((self.path / "quality" / "blind").glob("*.json"))
        return {file.stem: self._read_json(f"quality/blind/{file.name}", BlindKey) for file in files}

    def server_log(self, server: str) -> Path:
        return self.path / "server" / f"{server}.log"

    # -- plumbing

    def _write_json(self, name: str, value: msgspec.Struct) -> None:
        self._write_bytes(self.path / name, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")

    def _read_json(self, name: str, kind: type[Row]) -> Row:
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except msgspec.DecodeError as error:
            raise RunFolderError(f"{self.path / name} cannot be read: {error}", hint=_CHANGED) from None

    @staticmethod
    def _write_bytes(path: Path, data: bytes) -> None:
        part = path.with_suffix(path.suffix + ".part")
        part.write_bytes(data)
        part.replace(path)


def find_runs(parent: Path) -> Iterator[Path]:
    """Run folders under `parent`, newest first."""
    yield from sorted((path.parent for path in parent.glob("*/manifest.json")), key=lambda path: path.stat().st_mtime, reverse=True)
