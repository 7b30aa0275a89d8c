"""What every block of a scenario is made of: a strict and frozen model, the types of single values, and paths.

An unknown key or a wrong type is an error, and nothing changes after validation. Paths become absolute while a file is read: `read` passes the
file's folder as validation context.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo

from perfbench.scenario.data_files import check_rows
from perfbench.scenario.paths import absolute

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
URL = r"^(https?://[^\s]+|unix:///[^\s]+)$"
"""Of a server that already runs, up to, not including, `/v1`."""
IN_WORDS = {
    NAME: "a name of at most 64 letters, digits, `_`, `.` and `-`, a letter or digit first",
    URL: "an address, as in http://127.0.0.1:8000 or unix:///run/vllm.sock",
}
"""What a pattern asks for, for people."""
Scalar = bool | int | float | str


class Strict(BaseModel):
    """Unknown keys are errors: a typo would otherwise silently measure something else. Validated once, then frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=(), use_attribute_docstrings=True)


def folder_of(info: ValidationInfo) -> str | None:
    """The scenario file's folder, or None for a scenario made in Python (its paths are relative to the current folder)."""
    return info.context["folder"] if info.context else None


STORED = {"folder": None, "stored": True}
"""Validation context of a scenario that a finished run has kept: its paths are taken as they stand, whether the files still exist or not."""


def is_stored(info: ValidationInfo) -> bool:
    """Whether a finished run's scenario is read, so that no file is looked at."""
    return bool(info.context and info.context.get("stored"))


def data_file(value: str, info: ValidationInfo) -> str:
    """The absolute path of a file of rows, checked whole."""
    if is_stored(info):
        return value
    path = absolute(value, folder_of(info))
    check_rows(path)
    return path


def plain_file(value: str, info: ValidationInfo) -> str:
    """The absolute path of a file that exists."""
    if is_stored(info):
        return value
    return absolute(value, folder_of(info), must_exist=True)
