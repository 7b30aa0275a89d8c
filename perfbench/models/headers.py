"""What a weight file says about itself: tensor names, shapes and types, read from safetensors headers without torch.

A safetensors file starts with the length of its header (8 bytes, little-endian), then the header as JSON: name -> {dtype, shape,
data_offsets}, plus `__metadata__`; the tensors' bytes follow. Only the header is read. Format: the safetensors README.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import msgspec

from perfbench.errors import ModelError

_LONGEST_HEADER = 100_000_000
"""The format's own limit, in bytes."""


class Tensor(msgspec.Struct, frozen=True):
    """One tensor of a file: its type by safetensors' name (`BF16`), its shape, and where its bytes lie after the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.data_offsets[1] - self.data_offsets[0]


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def read_header(path: Path) -> tuple[dict[str, Tensor], int]:
    """Tensors of a safetensors file by name, and the offset at which their bytes start. Raises ModelError for a file that is none or is cut off."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise ModelError(f"{path} is no safetensors file or is cut off ({size} bytes); download or save it again")
        body = file.read(length)
    try:
        entries = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        tensors = {name: msgspec.json.decode(entry, type=Tensor) for name, entry in entries.items() if name != "__metadata__"}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} has a header that is no safetensors header ({error}); download or save it again") from None
    expected = 8 + length + max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    if size < expected:
        raise ModelError(f"{path} is cut off: {size} bytes where its header tells of {expected}; download or save it again")
    return tensors, 8 + length


def safetensors_files(folder: Path, stem: str = "model") -> list[Path]:
    """The safetensors files of a model (`stem` model) or adapter (adapter_model): the index's shards, the single file, else every one there is.

    [] where the weights are in another form. Raises ModelError where the index names a file that is missing.
    """
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values()))
        except msgspec.DecodeError as error:
            raise ModelError(f"{index} is no index of safetensors files ({error}); download or save the model again") from None
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ModelError(f"{folder} lacks {missing[0]}, which {index.name} names ({len(missing)} of {len(names)} missing); download the model again")
        return [folder / name for name in names]
    single = folder / f"{stem}.safetensors"
    if single.is_file():
        return [single]
    return sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("adapter_")) if stem == "model" else []


def other_weight_files(folder: Path) -> list[Path]:
    """Weights in forms that are not looked into: pickles and GGUF."""
    return sorted(file for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for file in folder.glob(pattern) if file.name != "training_args.bin")


def read_tensors(files: list[Path]) -> dict[str, Tensor]:
    """All tensors of a model's files by name."""
    return {name: tensor for file in files for name, tensor in read_header(file)[0].items()}
