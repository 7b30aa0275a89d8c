"""A model's sizes without its weights: from a folder, a config.json or the Hub's local cache. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perfbench.errors import ModelError
from perfbench.models.inspect import read_shape

if TYPE_CHECKING:
    from perfbench.records import ModelShape
    from perfbench.scenario.references import ModelRef


def shape_of_model(ref: ModelRef) -> ModelShape:
    """The sizes of a scenario's model. Raises ModelError for a Hub id whose config is not in the local cache, or a config that says too little."""
    return read_shape(config_folder(ref))


def shape_of_path(path: Path) -> ModelShape:
    """The sizes of the model in a folder, or of a config.json by itself."""
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and path.name != "config.json":
        raise ModelError(f"{path} is no folder and no config.json; expected one of both")
    return read_shape(folder)


def config_folder(ref: ModelRef, config: str = "config.json") -> Path:
    """The folder in which a model's or an adapter's config lies on this machine."""
    if ref.path is not None:
        return Path(ref.path)
    assert ref.hub is not None
    missing = f"{ref.hub} is not in the local cache, and an estimate downloads nothing; give --model with a folder or a config.json"
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        raise ModelError(missing) from None
    found = try_to_load_from_cache(ref.hub, config, revision=ref.revision)
    if not isinstance(found, str):
        raise ModelError(missing)
    return Path(found).parent
