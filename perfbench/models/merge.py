"""Merge a LoRA adapter into its base with PEFT, once: what was merged before is found again by what went into it.

Method: both are loaded in float32 (every float16 or bfloat16 weight is exact in it), PEFT adds scale * B @ A to each weight, and the
sum is rounded once, to the stated type. Merging in the stored type instead rounds the difference too, which for bfloat16 loses most of
a small one. What comes out is a folder that any server loads: weights, config, the base's tokenizer, chat template and generation
config, and perfbench_merge.json that says what was merged and how.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import time
from pathlib import Path

import msgspec
import psutil

from perfbench.errors import MissingPartError, ModelError
from perfbench.models.fit import check_adapter_fits
from perfbench.models.inspect import inspect_adapter, inspect_model, read_config
from perfbench.models.part_folder import part_folder
from perfbench.records import ModelInfo
from perfbench.scenario.paths import cache_folder

MERGE_RECORD = "perfbench_merge.json"
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
_ROUNDING = "added in float32, rounded once to `dtype`"


class MergeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What perfbench_merge.json says."""

    base: ModelInfo
    adapter: ModelInfo
    dtype: str
    rounding: str
    tokenizer_from: str
    """Always the base: every variant is asked in the same words."""
    versions: dict[str, str]
    merge_s: float


def merge_adapter(base: Path, adapter: Path, dtype: str, *, trust_remote_code: bool = False, out: Path | None = None) -> Path:
    """The folder of `base` with `adapter` merged in, in `dtype` (float32, bfloat16, float16).

    Without `out` it lies in cache_folder()/merged/<key>, and a second call with the same base, adapter, type and PEFT finds it there.
    With `out` it is written there; a folder that holds anything is refused. Raises ModelError where they do not belong together or
    cannot be merged, MissingPartError without torch, transformers and peft. A crash leaves no half model behind.
    """
    if out is not None:
        _check_out(out)
    key, versions = _key(base, adapter, dtype)
    cached = cache_folder() / "merged" / key
    target = out or cached
    if out is None and (cached / MERGE_RECORD).is_file():
        return cached
    with part_folder(target) as part:
        if (cached / MERGE_RECORD).is_file():
            shutil.copytree(cached, part, dirs_exist_ok=True)
        else:
            check_adapter_fits(base, adapter)
            _check_mergeable(base, adapter)
            _merge_into(part, base, adapter, dtype, versions, trust_remote_code=trust_remote_code)
    return target


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists and is not an empty folder; give a new folder: nothing of yours is overwritten")


def _key(base: Path, adapter: Path, dtype: str) -> tuple[str, dict[str, str]]:
    """Name of the cache folder: everything that the merged weights depend on. No torch is imported for it."""
    versions: dict[str, str] = {}
    for part in ("peft", "transformers", "torch", "safetensors"):
        try:
            versions[part] = importlib.metadata.version(part)
        except importlib.metadata.PackageNotFoundError:
            raise MissingPartError(f"merging an adapter needs {part}, which is not installed", hint="pip install 'perfbench[cpu]' (or [gpu])") from None
    parts = (inspect_model(base).sha256, inspect_adapter(adapter).sha256, dtype, versions["peft"])
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32], versions


def _check_mergeable(base: Path, adapter: Path) -> None:
    """Raise ModelError for what PEFT would merge wrongly, or not at all, and for what does not fit into memory."""
    config = read_config(base, "config.json")
    if "quantization_config" in config:
        raise ModelError(f"{base} is quantised; merge into the model that it was quantised from, then quantise the result")
    targets = inspect_adapter(adapter).lora_target_modules or []
    tied = [name for name in ("embed_tokens", "lm_head") if name in targets]
    if config.get("tie_word_embeddings") and len(tied) == 1:
        raise ModelError(
            f"{adapter} changes {tied[0]} of a base that ties embed_tokens and lm_head: merged, it would change both; serve it as `adapter`, or untie the base"
        )
    parameters = inspect_model(base).parameters
    if parameters is not None and parameters * 4 * 1.1 > psutil.virtual_memory().available:
        need, free = parameters * 4 * 1.1 / 1e9, psutil.virtual_memory().available / 1e9
        raise ModelError(f"merging {base} in float32 needs {need:.0f} GB of memory, and {free:.0f} GB are free; merge on a larger machine, set `models.merged`")


def _merge_into(part: Path, base: Path, adapter: Path, dtype: str, versions: dict[str, str], *, trust_remote_code: bool) -> None:
    started = time.monotonic()
    try:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise MissingPartError(f"merging an adapter needs torch, transformers and peft: {error}", hint="pip install 'perfbench[cpu]' (or [gpu])") from None
    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=trust_remote_code, local_files_only=True)
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except (ValueError, OSError, RuntimeError, TypeError, KeyError) as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise ModelError(f"{adapter} cannot be merged into {base}: {reason}") from None
    merged = merged.to(getattr(torch, dtype))
    broken = [name for name, weight in merged.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise ModelError(f"merged in {dtype}, {broken[0]} holds values that are not finite; check the adapter, or merge in bfloat16 or float32")
    merged.save_pretrained(part)
    _copy_small_files(base, part)
    record = MergeRecord(
        base=inspect_model(base), adapter=inspect_adapter(adapter), dtype=dtype, rounding=_ROUNDING, tokenizer_from="base", versions=versions,
        merge_s=round(time.monotonic() - started, 3),
    )  # fmt: skip
    (part / MERGE_RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def _copy_small_files(base: Path, part: Path) -> None:
    """Tokenizer, chat template, generation config and the model's own code, byte for byte; weights and config are the merged ones."""
    for file in base.iterdir():
        own = file.name == "config.json" or file.name.endswith((*_WEIGHT_SUFFIXES, ".index.json")) or file.name == MERGE_RECORD
        if file.is_file() and not own and not file.name.startswith("."):
            shutil.copyfile(file, part / file.name)


def read_merge_record(folder: Path) -> MergeRecord | None:
    """What a folder was merged from; None for one that perfbench did not merge."""
    path = folder / MERGE_RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=MergeRecord) if path.is_file() else None
    except msgspec.DecodeError as error:
        raise ModelError(f"{path} cannot be read ({error}); remove {folder} to merge again") from None

