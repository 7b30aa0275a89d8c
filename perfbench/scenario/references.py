"""What a scenario points to: models, and files of rows."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from perfbench.scenario.data_files import check_rows
from perfbench.scenario.paths import absolute, looks_like_hub_id
from perfbench.scenario.strict import Strict, data_file, folder_of, is_stored


class ModelRef(Strict):
    """Where a model or adapter is: a local folder or a hub id. In YAML a plain string is either, whichever exists."""

    path: str | None = None
    """Local folder, relative to the scenario file, or `demo:base` / `demo:adapter`."""
    hub: str | None = None
    """Hugging Face id, `owner/name`."""
    revision: str | None = None
    """Branch, tag or commit; only with a hub id."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        return {"hub": value} if looks_like_hub_id(value, folder_of(info)) else {"path": value}

    @field_validator("path", mode="after")
    @classmethod
    def _existing(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else absolute(value, folder_of(info), must_exist=True)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("expected a folder, a hub id, or exactly one of `path` and `hub`")
        if self.revision is not None and self.hub is None:
            raise ValueError("`revision` needs a `hub` id: a local folder has no revisions")
        return self


class Data(Strict):
    """A file of rows: JSONL (one object a line), CSV with a header, or Parquet, told by its suffix. In YAML a plain string is its path."""

    path: Annotated[str, AfterValidator(data_file)]
    """Relative to the scenario file, or `demo:NAME`."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only the first so many rows."""
    columns: dict[str, str] = {}
    """Columns renamed before anything else reads a row: `{prompt: Question}` makes the file's `Question` the row's `prompt`."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("columns", mode="after")
    @classmethod
    def _in_the_file(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if value and "path" in info.data and not is_stored(info):
            present = check_rows(info.data["path"])
            for new, old in value.items():
                if old not in present:
                    found = ", ".join(sorted(present)) or "none"
                    raise ValueError(f"`{new}` is to be column `{old}`, which not every row of {info.data['path']} has; columns of every row: {found}")
        return value
