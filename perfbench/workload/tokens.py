"""How many tokens a server makes of a prompt, chat template included: counted here from the model's own files, or asked of the server.

`LocalTokens` reads `tokenizer.json` with the tokenizers library (neither torch nor transformers is loaded) and renders the model's chat template
as transformers does. `ServerTokens` asks a running vLLM (POST /tokenize), for an endpoint whose tokenizer is not on this machine. A completion
gets the tokenizer's special tokens; a chat gets those that its template writes, and no others: both as vLLM does it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from perfbench.errors import EndpointError, ModelError
from perfbench.prompts import RenderedPrompt
from perfbench.serve.control import ControlError, post_json

_TIMEOUT_S = 60.0
_GIVE_TOKENIZER = "give the model's tokenizer, a folder with tokenizer.json or a hub id: `tokenizer` in a scenario, --tokenizer of perfbench load"


class PromptTokens(Protocol):
    """What knows the tokens of a prompt."""

    def ids(self, prompt: RenderedPrompt) -> list[int]:
        """The token ids that the model reads."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks an assistant's words for training; what stands inside is rendered as it is."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class LocalTokens:
    """Tokens by the files in a model's folder. Raises ModelError where the tokenizer, or for chat its template, is not there.

    `template` is what the server's own --chat-template says: a file, or the template itself.
    """

    def __init__(self, folder: Path, template: object = None) -> None:
        from tokenizers import Tokenizer

        self._folder = folder
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                f"{folder} has no tokenizer.json, which exact token counts need; save the tokenizer with transformers (`save_pretrained`), or use `load.data`"
            )
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 (the library raises a bare Exception)
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}; download or save it again") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._config = _json_file(folder / "tokenizer_config.json")
        self._given_template = None if template is None else str(template)
        self._template: jinja2.Template | None = None

    def ids(self, prompt: RenderedPrompt) -> list[int]:
        """The token ids of a prompt, a chat with its generation prompt."""
        chat = prompt.messages is not None
        text = self._rendered(prompt) if chat else prompt.text
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=not chat).ids
        return ids

    def _rendered(self, prompt: RenderedPrompt) -> str:
        if self._template is None:
            self._template = _environment().from_string(self._template_text())
        tokens = {name: _token_text(value) for name, value in self._config.items() if name.endswith("_token")}
        try:
            return self._template.render(messages=prompt.messages, tools=None, documents=None, add_generation_prompt=True, **tokens)
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template of {self._folder} cannot be filled with the scenario's prompt: {error}") from None

    def _template_text(self) -> str:
        if self._given_template is not None:
            given = Path(self._given_template)
            return given.read_text(encoding="utf-8") if "{" not in self._given_template and given.is_file() else self._given_template
        path = self._folder / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        found = self._config.get("chat_template")
        if isinstance(found, list):  # several, by name
            found = next((entry.get("template") for entry in found if entry.get("name") == "default"), None)
        if not isinstance(found, str):
            raise ModelError(f"{self._folder} has no chat template (chat_template.jinja); say `prompt.api: completions`, or add the template")
        return found


class ServerTokens:
    """Tokens by a running vLLM, which is the authority. Raises EndpointError where it does not answer."""

    def __init__(self, url: str, model: str, api_key_env: str | None) -> None:
        self._url = f"{url.rstrip('/')}/tokenize"
        self._model = model
        self._key = os.environ.get(api_key_env, "").strip() or None if api_key_env else None

    def ids(self, prompt: RenderedPrompt) -> list[int]:
        """The token ids of a prompt, a chat with its generation prompt."""
        asked: dict[str, Any] = {"prompt": prompt.text} if prompt.messages is None else {"messages": prompt.messages, "add_generation_prompt": True}
        try:
            answer = post_json(self._url, {"model": self._model, **asked}, key=self._key, timeout_s=_TIMEOUT_S)
        except ControlError as error:
            raise EndpointError(f"{self._url} did not count tokens: {error.reason}; {_GIVE_TOKENIZER}") from None
        body = answer.json()
        if answer.status != 200 or not isinstance(body, dict) or not isinstance(body.get("tokens"), list):
            raise EndpointError(
                f"{self._url} did not count tokens: HTTP {answer.status}, {answer.message()}; {_GIVE_TOKENIZER}"
            )
        return [int(token) for token in body["tokens"]]


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Not Jinja's own filter, which escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _token_text(value: object) -> object:
    return value.get("content") if isinstance(value, Mapping) else value


def _json_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        raise ModelError(f"{path} is no JSON; download or save it again") from None
    return found if isinstance(found, dict) else {}
