"""What another person needs to repeat a run: the scenario as resolved, versions, hardware, revision, command and hashes."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import perfbench
from perfbench.errors import RunFolderError
from perfbench.hardware import describe_hardware, installed_versions
from perfbench.records import SCHEMA_VERSION, Manifest, ModelInfo, TraceUse, TrialPlan
from perfbench.scenario import Scenario


def describe_run(
    run_id: str,
    scenario: Scenario,
    *,
    scenario_file: Path | None,
    command: Sequence[str],
    models: Mapping[str, ModelInfo],
    trials: Sequence[TrialPlan],
    hashes: Mapping[str, str],
    traces: Mapping[str, TraceUse],
) -> Manifest:
    """The manifest of a run that is about to start. Keys never stand in a scenario, so none can come into it."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        run_id=run_id,
        scenario_name=scenario.name,
        scenario=scenario.model_dump(mode="json"),
        scenario_file=str(scenario_file.absolute()) if scenario_file else None,
        scenario_text=scenario_file.read_text(encoding="utf-8") if scenario_file else "",
        command=list(command),
        started_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        perfbench_version=perfbench.__version__,
        versions={"python": platform.python_version(), **installed_versions()},
        hardware=describe_hardware(),
        git=_git_state(Path(perfbench.__file__).parent),
        hashes=dict(hashes),
        models=dict(models),
        trials=list(trials),
        traces=dict(traces),
    )


def check_unchanged(manifest: Manifest, hashes: Mapping[str, str]) -> None:
    """Refuse to continue a run whose data is no longer what it was; raises RunFolderError naming what changed."""
    changed = [name for name, value in hashes.items() if manifest.hashes.get(name) != value]
    if changed:
        raise RunFolderError(
            f"{manifest.run_id} cannot be resumed: {', '.join(changed)} changed since it started; start a new run",
            hint="the finished part stays readable: perfbench report FOLDER",
        )


def _git_state(folder: Path) -> dict[str, str] | None:
    """Revision of the perfbench checkout and whether it has uncommitted changes; None when it is not one."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A package installed into somebody else's repository must not take that repository's revision for its own.
    if git("ls-files", "--error-unmatch", str(folder / "__init__.py")) is None:
        return None
    revision, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    if revision is None:
        return None
    return {"revision": revision, "state": "clean" if changes == "" else "uncommitted changes"}
