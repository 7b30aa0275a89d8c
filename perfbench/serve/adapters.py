"""Load and unload adapters of a running vLLM, where it allows that: VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment (`serve.env`).

The adapter's folder is read by the server, so it has to lie on the server's machine. vLLM does not drop prefix-cache blocks that an unloaded adapter
of the same path has made; a changed adapter belongs into a new folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perfbench.errors import ServerError
from perfbench.serve.control import ControlError, post_json

_TIMEOUT_S = 120.0


def load_adapter(url: str, name: str, folder: Path, *, key: str | None = None) -> None:
    """Have the server load the adapter in `folder` and serve it as `name`; raises ServerError where it does not."""
    _ask(f"{url}/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)}, f"load the adapter `{name}` from {folder}", key)


def unload_adapter(url: str, name: str, *, key: str | None = None) -> None:
    """Have the server forget the adapter `name`; raises ServerError where it does not."""
    _ask(f"{url}/v1/unload_lora_adapter", {"lora_name": name}, f"unload the adapter `{name}`", key)


def _ask(url: str, body: dict[str, Any], what: str, key: str | None) -> None:
    try:
        answer = post_json(url, body, key=key, timeout_s=_TIMEOUT_S)
    except ControlError as error:
        raise ServerError(f"{url} did not {what}: {error.reason}") from None
    if answer.status in (404, 405) and "lora" not in answer.message().lower():
        hint = "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 (`serve.env`) and LoRA enabled"
        raise ServerError(f"{url} does not exist: this server does not load or unload adapters while it runs", hint=hint)
    if answer.status != 200:
        raise ServerError(f"the server did not {what}: {answer.message()}")
