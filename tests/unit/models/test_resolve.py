"""A reference becomes a folder, or one sentence. The Hub cannot be reached from here: that is one of the cases."""

from collections.abc import Callable
from pathlib import Path

import pytest

from perfbench.errors import ModelError
from perfbench.models.resolve import resolve_model
from perfbench.scenario.references import ModelRef

Make = Callable[..., Path]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, and no way out of this machine."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_local_model_and_adapter_are_found(make_base: Make, make_adapter: Make) -> None:
    for folder in (make_base(), make_adapter()):
        assert resolve_model(ModelRef(path=str(folder))) == folder


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, make_base: Make) -> None:
    with pytest.raises(ModelError, match=r"no config\.json and no adapter_config\.json"):
        resolve_model(ModelRef(path=str(tmp_path)))
    folder = make_base()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        resolve_model(ModelRef(path=str(folder)))
    with pytest.raises(ModelError, match="is no folder"):
        resolve_model(ModelRef(path=str(folder / "config.json")))


def test_an_id_in_the_cache_needs_no_network(hub_cache: Path, make_base: Make) -> None:
    commit = "c" * 40
    repository = hub_cache / "models--someone--base"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    make_base().replace(repository / "snapshots" / commit)
    assert resolve_model(ModelRef(hub="someone/base")) == repository / "snapshots" / commit
    assert resolve_model(ModelRef(hub="someone/base", revision=commit)) == repository / "snapshots" / commit


@pytest.mark.parametrize("revision", [None, "v2"])
def test_an_id_that_is_neither_cached_nor_reachable_ends_in_one_sentence(hub_cache: Path, revision: str | None) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_model(ModelRef(hub="someone/nowhere", revision=revision))
    assert "someone/nowhere" in caught.value.message
    assert (revision or "nowhere") in caught.value.message
    assert "go online once, or give a local folder" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_cached_snapshot_without_weights_is_not_taken(hub_cache: Path, make_base: Make) -> None:
    """What a tool that only wanted the tokenizer leaves behind."""
    commit = "d" * 40
    repository = hub_cache / "models--someone--partial"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    folder = make_base()
    (folder / "model.safetensors").unlink()
    folder.replace(repository / "snapshots" / commit)
    with pytest.raises(ModelError, match="someone/partial"):
        resolve_model(ModelRef(hub="someone/partial"))
