"""What is read from configs and headers, against files written byte by byte."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perfbench.errors import ModelError
from perfbench.models.headers import read_header
from perfbench.models.inspect import inspect_adapter, inspect_model

from .conftest import adapter_tensors, base_tensors, write_safetensors

Make = Callable[..., Path]
PARAMETERS = 16 * 8 + 2 * (8 * 8 + 4 * 8)


def test_a_model_is_read_from_its_headers(make_base: Make) -> None:
    info = inspect_model(make_base(), "v1")
    assert (info.architecture, info.dtype, info.parameters, info.weight_bytes) == ("LlamaForCausalLM", "bfloat16", PARAMETERS, 2 * PARAMETERS)
    assert (info.revision, info.lora_rank) == ("v1", None)


def test_tied_embeddings_count_once_even_where_both_are_stored(make_base: Make) -> None:
    tensors = base_tensors() | {"lm_head.weight": ("BF16", [16, 8])}
    assert inspect_model(make_base(tensors)).parameters == PARAMETERS
    assert inspect_model(make_base(tensors, name="untied", tie_word_embeddings=False)).parameters == PARAMETERS + 16 * 8


def test_the_type_is_that_of_most_bytes(make_base: Make) -> None:
    assert inspect_model(make_base(base_tensors() | {"model.norm.weight": ("F32", [8])})).dtype == "bfloat16"


def test_shards_are_counted_together_and_a_missing_one_is_named(make_base: Make) -> None:
    folder = make_base()
    (folder / "model.safetensors").unlink()
    tensors = base_tensors()
    names = sorted(tensors)
    files = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(files.values()):
        write_safetensors(folder / file, {name: tensors[name] for name in names if files[name] == file})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert inspect_model(folder).parameters == PARAMETERS
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="model-00002-of-00002"):
        inspect_model(folder)


def test_pickled_and_packed_weights_have_no_known_parameters(make_base: Make) -> None:
    folder = make_base()
    (folder / "model.safetensors").replace(folder / "pytorch_model.bin")
    info = inspect_model(folder)
    assert (info.parameters, info.weight_bytes, info.dtype) == (None, None, "bfloat16")
    assert info.sha256
    packed = inspect_model(make_base({"q.qweight": ("I32", [4, 4])}, name="packed", quantization_config={"quant_method": "awq"}))
    assert (packed.parameters, packed.weight_bytes) == (None, 64)


def test_an_adapter_is_read(make_adapter: Make) -> None:
    info = inspect_adapter(make_adapter())
    assert (info.lora_rank, info.lora_alpha, info.lora_target_modules, info.base_name, info.dtype) == (2, 4.0, ["q_proj", "v_proj"], "someone/base", "float32")
    assert info.parameters == 2 * (2 * 8 + 8 * 2 + 2 * 8 + 4 * 2)


def test_the_rank_is_the_largest_that_a_server_must_hold(make_adapter: Make) -> None:
    assert inspect_adapter(make_adapter(rank_pattern={"v_proj": 16, "q_proj": 4})).lora_rank == 16


def test_the_identity_sees_a_change_behind_equal_headers_and_equal_first_tensors(make_base: Make) -> None:
    """A fine-tune with frozen embeddings: same names, sizes, header and first tensor."""
    one, two = make_base(name="one"), make_base(name="two")
    assert inspect_model(one).sha256 == inspect_model(two).sha256
    data = bytearray((two / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (two / "model.safetensors").write_bytes(bytes(data))
    assert inspect_model(one).sha256 != inspect_model(two).sha256


def test_the_identity_sees_into_files_too_large_to_read_whole(make_base: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfbench.models.inspect._SMALL_FILE_BYTES", 1)
    folder = make_base()
    before = inspect_model(folder).sha256
    tensors, start = read_header(folder / "model.safetensors")
    last = max(tensors.values(), key=lambda tensor: tensor.data_offsets)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[start + sum(last.data_offsets) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    assert inspect_model(folder).sha256 != before


def test_the_identity_sees_another_chat_template(make_base: Make) -> None:
    folder = make_base()
    before = inspect_model(folder).sha256
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert inspect_model(folder).sha256 != before


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\1", struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 9) + b'{"a": 1}',
        struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc", struct.pack("<Q", 2) + b"[]",
    ],
)
def test_a_broken_weight_file_is_named(make_base: Make, content: bytes) -> None:
    folder = make_base()
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        inspect_model(folder)


def test_a_weight_file_that_is_cut_off_is_named(make_base: Make) -> None:
    folder = make_base()
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1])
    with pytest.raises(ModelError, match="cut off"):
        inspect_model(folder)


@pytest.mark.parametrize("content", [b"not json", b"[1]", b"\xff"])
def test_a_broken_config_is_named(make_base: Make, content: bytes) -> None:
    folder = make_base()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        inspect_model(folder)


def test_the_commit_of_a_hub_snapshot_is_the_revision(make_base: Make) -> None:
    folder = make_base()
    snapshot = folder.parent / "models--someone--base" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    folder.replace(snapshot)
    assert inspect_model(snapshot, "main").revision == "a" * 40


def test_no_torch_is_needed(make_base: Make, make_adapter: Make) -> None:
    base, adapter = make_base(), make_adapter(adapter_tensors())
    code = (
        "import sys; from pathlib import Path; from perfbench.models.inspect import inspect_model, inspect_adapter;"
        "from perfbench.models.fit import check_adapter_fits;"
        f"inspect_model(Path({str(base)!r})); inspect_adapter(Path({str(adapter)!r})); check_adapter_fits(Path({str(base)!r}), Path({str(adapter)!r}));"
        "print([name for name in ('torch', 'transformers', 'peft', 'safetensors', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
