"""GPUs by their makers' figures: memory, bandwidth, matrix throughput by type, each with its source (gpus.yaml), and a user's own in the same form.

`find_gpu` takes what people write (`h100`, `H100-80GB`, `A100 PCIe`); `gpu_of_device` takes what the driver calls a device, so that a run knows its
card. An unknown name is an InputError with the nearest one.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, RootModel, ValidationError

from perfbench.errors import Finding, InputError, ScenarioError
from perfbench.scenario.read import findings_of, parse_mapping
from perfbench.scenario.strict import Name, Positive, Strict

ComputeType = Literal["fp16", "bf16", "fp8", "int8"]

_GIGA, _TERA = 1e9, 1e12


class Gpu(Strict):
    """One device, by its data sheet."""

    aliases: tuple[str, ...] = ()
    """Other names that people use; case and punctuation do not matter."""
    nvml: tuple[str, ...] = ()
    """Names that the driver gives it."""
    memory_gb: Positive
    """10^9 bytes."""
    bandwidth_gb_s: Positive
    """10^9 bytes a second."""
    tflops: Annotated[dict[ComputeType, Positive], Field(min_length=1)]
    """Dense matrix throughput by type, 10^12 operations a second. A type that is left out is not computed in."""
    source: Annotated[str, Field(min_length=1)]
    """What was read for the figures, and whether it is the maker's or a third party's; names what is not checked."""
    as_of: date
    """When the source was read."""

    @property
    def memory_bytes(self) -> int:
        return round(self.memory_gb * _GIGA)

    @property
    def bytes_per_s(self) -> float:
        return self.bandwidth_gb_s * _GIGA

    def operations_per_s(self, kind: ComputeType) -> float | None:
        """None for a type that its matrix units do not compute in."""
        found = self.tflops.get(kind)
        return None if found is None else found * _TERA


class _GpuFile(RootModel[dict[Name, Gpu]]):
    """NAME: its figures."""


Gpus = Mapping[str, Gpu]
"""By name, in the order of the file."""


@cache
def known_gpus() -> Gpus:
    """The table that comes with perfbench."""
    with resources.as_file(resources.files("perfbench.plan") / "gpus.yaml") as path:
        return read_gpus(path)


def read_gpus(path: str | Path) -> Gpus:
    """A file of GPUs in the form of gpus.yaml. Raises ScenarioError with every finding at once."""
    file = str(path)
    example = "expected, say, `mine: {memory_gb: 48, bandwidth_gb_s: 864, tflops: {bf16: 181}, source: data sheet, as_of: 2026-11-25}`"
    raw = parse_mapping(file, what="one GPU a key", written_by=example)
    if not raw:
        raise ScenarioError(file, [Finding("", f"the file names no GPU; {example}")])
    try:
        return _GpuFile.model_validate_json(json.dumps(raw, default=str)).root
    except ValidationError as error:
        raise ScenarioError(file, findings_of(error, raw, Gpu)) from None


def find_gpu(name: str, gpus: Gpus) -> tuple[str, Gpu]:
    """The GPU that a name or alias means, by its own name. Raises InputError with the nearest name for one that is not there."""
    names = {_plain(word): key for key, gpu in gpus.items() for word in (*gpu.aliases, key)}
    # Every GPU's own name comes before another's alias.
    names |= {_plain(key): key for key in gpus}
    key = names.get(_plain(name))
    if key is not None:
        return key, gpus[key]
    close = difflib.get_close_matches(_plain(name), names, n=1, cutoff=0.5)
    meant = f"did you mean `{names[close[0]]}`?" if close else f"expected one of {', '.join(gpus)}"
    raise InputError(f"--gpu: `{name}` is not known; {meant}", hint="perfbench estimate --list-gpus shows the table, --gpu-file adds to it")


def gpu_of_device(device: str | None, gpus: Gpus) -> tuple[str, Gpu] | None:
    """The GPU that a driver's device name stands for; None for one that is in no row."""
    if device is None:
        return None
    return next(((key, gpu) for key, gpu in gpus.items() if _plain(device) in {_plain(name) for name in gpu.nvml}), None)


def gpus_of_run(devices: Sequence[Mapping[str, object]], gpus: Gpus) -> tuple[str, Gpu] | None:
    """The one kind of GPU that a run's machine has (manifest.hardware); None where there is none, several kinds, or one that is not known."""
    found = {device.get("name") for device in devices}
    name = found.pop() if len(found) == 1 else None
    return gpu_of_device(name if isinstance(name, str) else None, gpus)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
