"""What a merge must not do: overwrite, leave halves behind, merge what does not belong together, work twice."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perfbench.errors import MissingPartError, ModelError
from perfbench.models import merge
from perfbench.models.merge import MERGE_RECORD, merge_adapter
from perfbench.models.part_folder import part_folder

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERFBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_folder_that_holds_anything_is_refused_and_left_alone(make_base: Make, make_adapter: Make, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("keep me")
    for target in (out, out / "notes.txt"):
        with pytest.raises(ModelError, match="nothing of yours is overwritten"):
            merge_adapter(make_base(name=f"b{target.name}"), make_adapter(name=f"a{target.name}"), "float32", out=target)
    assert (out / "notes.txt").read_text() == "keep me"


def test_what_does_not_fit_is_refused_before_torch_and_leaves_nothing(make_base: Make, make_adapter: Make, own_cache: Path) -> None:
    base = make_base({"model.layers.0.self_attn.q_proj.weight": ("BF16", [4, 4])})
    with pytest.raises(ModelError, match="does not fit"):
        merge_adapter(base, make_adapter(), "float32")
    assert list((own_cache / "merged").iterdir()) == []


def test_a_quantised_base_is_refused(make_base: Make, make_adapter: Make) -> None:
    with pytest.raises(ModelError, match="quantised from"):
        merge_adapter(make_base(quantization_config={"quant_method": "gptq"}), make_adapter(), "float32")


def test_one_of_two_tied_embeddings_is_refused(make_base: Make, make_adapter: Make) -> None:
    tensors = {
        "base_model.model.model.embed_tokens.lora_embedding_A": ("F32", [2, 16]), "base_model.model.model.embed_tokens.lora_embedding_B": ("F32", [8, 2])
    }  # fmt: skip
    with pytest.raises(ModelError, match="it would change both"):
        merge_adapter(make_base(), make_adapter(tensors, target_modules=["embed_tokens"]), "float32")


def test_too_little_memory_is_said_before_it_is_taken(make_base: Make, make_adapter: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge.psutil, "virtual_memory", type("Memory", (), {"available": 100}))
    with pytest.raises(ModelError, match="merge on a larger machine"):
        merge_adapter(make_base(), make_adapter(), "float32")


def test_a_missing_part_comes_with_its_command(make_base: Make, make_adapter: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise merge.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(merge.importlib.metadata, "version", missing)
    with pytest.raises(MissingPartError) as caught:
        merge_adapter(make_base(), make_adapter(), "float32")
    assert "pip install" in str(caught.value.hint)


def test_a_second_call_finds_the_first_without_torch(make_base: Make, make_adapter: Make, own_cache: Path) -> None:
    base, adapter = make_base(), make_adapter()
    kept = own_cache / "merged" / merge._key(base, adapter, "float32")[0]
    kept.mkdir(parents=True)
    (kept / MERGE_RECORD).write_text("{}")
    code = (
        "import sys; from pathlib import Path; from perfbench.models.merge import merge_adapter;"
        f"print(merge_adapter(Path({str(base)!r}), Path({str(adapter)!r}), 'float32'), 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(kept), "False"]


def test_the_key_names_everything_that_the_weights_depend_on(make_base: Make, make_adapter: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapter = make_base(), make_adapter()
    keys = {
        merge._key(base, adapter, "float32")[0],
        merge._key(base, adapter, "bfloat16")[0],
        merge._key(make_base(name="other", fill=b"\1"), adapter, "float32")[0],
        merge._key(base, make_adapter(name="scaled", lora_alpha=8), "float32")[0],
    }
    monkeypatch.setattr(merge.importlib.metadata, "version", lambda name: "0.0")
    keys.add(merge._key(base, adapter, "float32")[0])
    assert len(keys) == 5


def test_a_block_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="crash"), part_folder(tmp_path / "models" / "one") as part:
        (part / "half").write_text("half")
        raise RuntimeError("crash")
    assert list((tmp_path / "models").iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    dead, alive = tmp_path / f".one.{process.pid}.part", tmp_path / f".two.{os.getppid()}.part"
    dead.mkdir()
    alive.mkdir()
    with part_folder(tmp_path / "three") as part:
        (part / "whole").write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, "three"])


def test_where_another_process_was_faster_its_result_stands(tmp_path: Path) -> None:
    with part_folder(tmp_path / "one") as part:
        (part / "mine").write_text("mine")
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "theirs").write_text("theirs")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["theirs"]
