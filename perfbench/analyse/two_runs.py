"""Two finished runs of the same scenario: what they have in common, and what must be equal for a difference to say anything.

Equal always: prompts, template, decoding, and the load (seed, and every stage that both have), because differences are taken prompt by prompt and
arrival by arrival. Equal unless allowed by name, because it is what a user changes on purpose: `models`, `serve` (vLLM's arguments and environment),
`versions` (packages, driver, kernel), `hardware`, `price`. An SLO may differ: goodput and prices of both runs are judged by the newer one's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfbench.analyse.answers import answers_of
from perfbench.analyse.experiment import Experiment, experiment_of
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.window import read_requests, server_starts, trial_outcomes
from perfbench.errors import InputError, NotComparableError
from perfbench.records import Manifest, QualityRecord, Summary, Unlike
from perfbench.results import RunFolder
from perfbench.scenario.gate import ALLOWABLE

_HASHES = {"prompts": ("load_prompts", "quality_prompts"), "template": ("template", "quality_template"), "decoding": ("decoding", "quality_decoding")}
_SAID_IN = {"template": "prompt", "decoding": "decoding"}
"""The block of the scenario whose values say what a hash does not."""
_LONGEST = 60
"""Characters of a value in a message."""
_FIXED = {
    "prompts": "ask both the same",
    "template": "ask both the same way",
    "decoding": "decode both the same way",
    "load": "drive both the same way; a stage under another name is left out",
}


@dataclass(frozen=True)
class FinishedRun:
    """A run with its summary and its requests, as two_runs and gate read it."""

    path: Path
    manifest: Manifest
    summary: Summary
    experiment: Experiment
    trials: dict[tuple[str, str, int], AnalysedTrial]
    """By variant, stage and repeat; void trials too."""
    quality: dict[str, list[QualityRecord]]

    def usable(self, variant: str, stage: str) -> dict[int, AnalysedTrial]:
        """By repeat; void trials enter no verdict."""
        return {repeat: trial for (name, at, repeat), trial in self.trials.items() if (name, at) == (variant, stage) and trial.usable}

    def of_variant(self, variant: str) -> list[AnalysedTrial]:
        return [trial for (name, _, _), trial in self.trials.items() if name == variant]


def finished_run(path: str | Path) -> FinishedRun:
    """Read a run. Raises RunFolderError for a folder that is none, and for a run that has not finished."""
    folder = RunFolder.open(path)
    manifest, summary = folder.manifest(), folder.summary()
    experiment = experiment_of(manifest)
    outcomes = trial_outcomes(folder)
    requests = read_requests(folder, outcomes)
    told = {(variant, trial.stage, trial.repeat): trial for variant, found in summary.variants.items() for trial in found.trials}
    keys = {plan.trial: (plan.variant, plan.stage, plan.repeat) for plan in manifest.trials}
    starts = server_starts(folder)
    trials = {
        keys[plan.trial]: AnalysedTrial(plan, outcomes[plan.trial], requests[plan.trial], told[keys[plan.trial]], starts.get(plan.trial))
        for plan in manifest.trials
        if plan.trial in outcomes and keys[plan.trial] in told
    }
    return FinishedRun(folder.path, manifest, summary, experiment, trials, answers_of(folder, experiment))


def check_comparable(baseline: FinishedRun, run: FinishedRun, allow: Collection[str]) -> list[Unlike]:
    """What differs and is allowed to. Raises NotComparableError naming everything else that differs, InputError for a kind that cannot be allowed."""
    for kind in allow:
        if kind in _FIXED:
            raise InputError(f"`{kind}` cannot be allowed to differ: {_FIXED[kind]}, or no difference says anything")
        if kind not in ALLOWABLE:
            raise InputError(f"`{kind}` is nothing that runs differ in; expected one of {', '.join(ALLOWABLE)}")
    if (baseline.manifest.run_id, len(baseline.manifest.rescored)) == (run.manifest.run_id, len(run.manifest.rescored)):
        raise NotComparableError(f"{baseline.path} and {run.path} are one run, {run.manifest.run_id}: it cannot have got worse than itself")
    found = list(unlike(baseline.manifest, run.manifest))
    refused = [one for one in found if one.kind not in allow]
    if refused:
        lines = "\n".join(f"  {one.kind}: {one.what}{'' if one.kind in _FIXED else f' (--allow {one.kind})'}" for one in refused)
        hint = "what you changed on purpose you may allow by name; prompts, template, decoding and load have to be equal"
        raise NotComparableError(f"{baseline.path} and {run.path} are not comparable:\n{lines}", hint=hint)
    if not common_variants(baseline, run):
        names = [", ".join(one.experiment.variants) for one in (baseline, run)]
        raise NotComparableError(f"{baseline.path} ({names[0]}) and {run.path} ({names[1]}) have no variant in common; compare runs of one scenario")
    return found


def common_variants(baseline: FinishedRun, run: FinishedRun) -> list[str]:
    """Variants that both runs measured, in the newer one's order."""
    return [variant for variant in run.experiment.variants if variant in baseline.experiment.variants]


def common_stages(baseline: FinishedRun, run: FinishedRun) -> list[str]:
    """Stages that both runs have, in the newer one's order; `unlike` has seen to it that they are equal."""
    return [stage for stage in run.experiment.stages if stage in baseline.experiment.stages]


def only_in_one(baseline: FinishedRun, run: FinishedRun) -> list[str]:
    """A sentence for each variant and stage that cannot be compared."""
    sides = (("the baseline", baseline.experiment, run.experiment), ("the run", run.experiment, baseline.experiment))
    return [
        f"{kind} {name} is only in {where}"
        for where, here, there in sides
        for kind, mine, others in (("variant", here.variants, there.variants), ("stage", here.stages, there.stages))
        for name in mine
        if name not in others
    ]


def unlike(baseline: Manifest, run: Manifest) -> Iterator[Unlike]:
    """Everything in which two runs differ and that a comparison has to know of."""
    for kind, names in _HASHES.items():
        traces = sorted(name for name in {*baseline.hashes, *run.hashes} if name.startswith("trace.")) if kind == "prompts" else []
        for name in (*names, *traces):
            old, new, label = baseline.hashes.get(name), run.hashes.get(name), name.replace("_", " ")
            if old != new and (old is None or new is None):
                yield Unlike(kind=kind, what=f"{label}: only one of the runs has them")
            elif old != new:
                how = ", ".join(_changed(*(_flat(one.scenario.get(_SAID_IN.get(kind, ""))) for one in (baseline, run))))
                verb = "differ" if label.endswith("s") else "differs"
                yield Unlike(kind=kind, what=f"{label} {verb} ({how or f'sha256 {old[:12]}, {new[:12]}'})")  # type: ignore[index]  # neither is None
    for kind, what in (
        *(("load", what) for what in _load(baseline.scenario, run.scenario)),
        *(("models", what) for what in _changed(*_of_both(_models(baseline), _models(run)))),
        *(("serve", what) for what in _changed(_flat(baseline.scenario.get("serve")), _flat(run.scenario.get("serve")))),
        *_variations(baseline.scenario.get("variations") or {}, run.scenario.get("variations") or {}),
        *(("versions", what) for what in _changed(_versions(baseline), _versions(run))),
        *(("hardware", what) for what in _changed(_hardware(baseline.hardware), _hardware(run.hardware))),
        *(("price", what) for what in _changed(_flat(baseline.scenario.get("cost")), _flat(run.scenario.get("cost")))),
    ):
        yield Unlike(kind=kind, what=what)


def _of_both(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What only one of them has belongs to a variant that only one of them has."""
    return {name: value for name, value in old.items() if name in new}, {name: value for name, value in new.items() if name in old}


def _variations(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of variations by the same name: arguments as those of `serve`; what each is made of and how many adapters are asked for, as the load."""
    for name in (name for name in new if name in old):
        before, after = (_flat(side[name].get("args")) for side in (old, new))
        yield from (("serve", f"{name}: args.{what}") for what in _changed(before, after))
        keys = ("of", "adapters_in_use")
        yield from (("load", f"{name}: {what}") for what in _changed(*({key: side[name].get(key) for key in keys} for side in (old, new))))


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            yield f"{name} {_told(old.get(name))} -> {_told(new.get(name))}"


def _told(value: Any) -> str:
    if value is None:
        return "(none)"
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _load(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What decides when which prompt is sent to which adapter. How many repeats there are may differ: those that both have are paired."""
    loads = [scenario.get("load") or {} for scenario in (old, new)]
    keys = ("seed", "adapters", "request_timeout_s")
    yield from _changed({key: loads[0].get(key) for key in keys}, {key: loads[1].get(key) for key in keys})
    served = [sorted((scenario.get("models") or {}).get("adapters") or {}) or None for scenario in (old, new)]
    yield from _changed({"models.adapters": served[0]}, {"models.adapters": served[1]})
    weights = [[part.get("weight") for part in load.get("mixture") or []] for load in loads]
    yield from _changed({"mixture": weights[0] or None}, {"mixture": weights[1] or None})
    stages = [{stage["name"]: stage for stage in load.get("stages") or []} for load in loads]
    common = [name for name in stages[1] if name in stages[0]]
    if not common:
        yield f"no stage in common ({', '.join(stages[0])}; {', '.join(stages[1])})"
    for name in common:
        before, after = ({**_flat(stages[side][name]), "trace.path": None} for side in (0, 1))
        yield from (f"stage {name}: {what}" for what in _changed(before, after))


def _models(manifest: Manifest) -> dict[str, str | None]:
    """Weights by name; a model without a hash by its path. Endpoints by the name they serve."""
    endpoints = manifest.scenario.get("endpoints") or {}
    served = {f"endpoint {name}": str(endpoint.get("model")) for name, endpoint in endpoints.items()}
    return {**{name: (model.sha256 or model.path)[:16] for name, model in manifest.models.items()}, **served}


def _versions(manifest: Manifest) -> dict[str, Any]:
    hardware = manifest.hardware
    return {**manifest.versions, **{name: hardware.get(name) for name in ("os", "kernel", "gpu_driver", "cuda")}}


def _hardware(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how fast a machine is. Total memory in GiB: kernels keep a few MB more or less for themselves."""
    cpu = hardware.get("cpu")
    told = {f"cpu {name}": cpu.get(name) for name in ("model", "cores", "threads", "threads_usable")} if isinstance(cpu, Mapping) else {"cpu": cpu}
    memory = hardware.get("memory_bytes")
    gpus: Sequence[Mapping[str, Any]] = hardware.get("gpus") or []
    return {
        **told,
        "memory GiB": round(memory / 2**30) if isinstance(memory, (int, float)) else None,
        **_flat({"limit": hardware.get("limits")}),
        "gpus": ", ".join(f"{gpu.get('name')} ({gpu.get('power_limit_w')} W)" for gpu in gpus) or None,
    }


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted names; anything else under its own."""
    if isinstance(value, Mapping):
        return {name: item for key, inner in value.items() for name, item in _flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()}
    return {} if value is None else {prefix: value}
