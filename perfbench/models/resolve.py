"""From a scenario's model reference to a folder on this machine: a local folder is checked, a Hub id is found in the cache or downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perfbench.errors import MissingPartError, ModelError
from perfbench.models.headers import other_weight_files, safetensors_files

if TYPE_CHECKING:
    from perfbench.scenario.references import ModelRef

_SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.py", "*.safetensors"]
"""Everything a server needs; leaves out other forms of the same weights (pickle, ONNX, GGUF) that many repositories carry beside it."""


def resolve_model(ref: ModelRef) -> Path:
    """The folder of a model or adapter. Raises ModelError for a folder that is none, and for an id that is neither cached nor reachable."""
    if ref.path is not None:
        return check_folder(Path(ref.path))
    assert ref.hub is not None
    return _from_hub(ref.hub, ref.revision)


def check_folder(path: Path) -> Path:
    """`path`, if it is a model's or an adapter's folder with weights in it; else ModelError."""
    if not path.is_dir():
        raise ModelError(f"{path} is no folder; expected a Hugging Face model or PEFT adapter folder, or a Hub id as owner/name")
    adapter = (path / "adapter_config.json").is_file()
    if not adapter and not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json and no adapter_config.json; expected a Hugging Face model or PEFT adapter folder")
    if not safetensors_files(path, "adapter_model" if adapter else "model") and not other_weight_files(path):
        raise ModelError(f"{path} has a config and no weights; download or save it again")
    return path.absolute()


def _from_hub(name: str, revision: str | None) -> Path:
    """The local cache first: a run repeated must not change because somebody pushed to `main`, and must work offline."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise MissingPartError(f"{name} is a Hub id, and huggingface_hub is not installed", hint="pip install huggingface_hub") from None
    try:
        return check_folder(Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=_SMALL_FILES)))
    except (LocalEntryNotFoundError, ModelError):
        pass  # not there, or without its weights
    except ValueError as error:
        raise ModelError(f"{name} is no Hub id ({error}); expected owner/name") from None
    folder = _download(name, revision)
    try:
        return check_folder(folder)
    except ModelError as error:
        at = f"{name} at revision {revision}" if revision else name
        raise ModelError(f"{at} is incomplete in the local cache; go online once, or give a local folder", hint=error.message) from None


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    at = f"{name} at revision {revision}" if revision else name
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_SMALL_FILES))
        if not safetensors_files(folder) and not safetensors_files(folder, "adapter_model"):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*_SMALL_FILES, "*.bin"]))
    except GatedRepoError:
        raise ModelError(f"{at} is gated on the Hub; accept its terms there and log in with `hf auth login`") from None
    except RevisionNotFoundError:
        raise ModelError(f"{name} has no revision `{revision}` on the Hub; correct `revision` to a branch, tag or commit of it") from None
    except RepositoryNotFoundError:
        raise ModelError(f"{at} does not exist on the Hub or is private; correct the id, or log in with `hf auth login`") from None
    except Exception as error:  # noqa: BLE001 (whatever the Hub's client and its HTTP library raise: it ends in the same sentence)
        reason = str(error).strip().split("\n", maxsplit=1)[0] or type(error).__name__
        raise ModelError(f"{at} is not in the local cache and cannot be downloaded; go online once, or give a local folder", hint=reason) from None
    return folder
