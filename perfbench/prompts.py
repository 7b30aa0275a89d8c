"""How a data row becomes a request: one rendering and one request body for workload and quality, for every variant.

A row is rendered with the scenario's Jinja templates (sandboxed: a template cannot reach Python) into messages or text, and hashed.
`request_body` adds the model's name and the decoding settings. Equal hashes mean that two variants were asked the same thing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.sandbox
import msgspec

from perfbench.errors import Finding, ScenarioError
from perfbench.scenario.data_files import read_rows
from perfbench.scenario.model import Decoding, Output, Prompt
from perfbench.scenario.references import Data


class RenderedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt as it is sent: `messages` for chat, `text` for completions."""

    prompt_id: str
    messages: list[dict[str, str]] | None
    text: str | None
    sha256: str

    def as_text(self) -> str:
        """For people and for records: the messages as JSON, or the text."""
        return self.text if self.text is not None else msgspec.json.encode(self.messages).decode()


def render_data(data: Data, prompt: Prompt, *, key: str) -> tuple[list[RenderedPrompt], list[dict[str, object]]]:
    """Render every row of a data file; `key` is the scenario key that the file stands under.

    The prompt's id is the row's `id` where there is one, else its number from 0. Returns prompts and rows, in the file's order.
    Raises ScenarioError for a template that cannot be parsed or names a column that a row lacks, and for an id used twice.
    """
    rows = read_rows(data.path, data.limit, data.columns)
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    templates = {part: _template(environment, part, source) for part, source in (("system", prompt.system), ("user", prompt.user)) if source is not None}
    rendered: list[RenderedPrompt] = []
    seen: set[str] = set()
    for number, row in enumerate(rows):
        prompt_id = str(row.get("id", number))
        if prompt_id in seen:
            raise ScenarioError(data.path, [Finding(key, f"row {number} has the id `{prompt_id}` of an earlier row; make ids unique")])
        seen.add(prompt_id)
        parts = {part: _render(template, row, data.path, number, part) for part, template in templates.items()}
        rendered.append(_rendered(prompt_id, parts, prompt))
    return rendered, rows


def _template(environment: jinja2.Environment, part: str, source: str) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ScenarioError("scenario", [Finding(f"prompt.{part}", f"not a Jinja template: {error.message} (line {error.lineno})")]) from None


def _render(template: jinja2.Template, row: Mapping[str, object], path: str, number: int, part: str) -> str:
    try:
        return template.render(row)
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
        columns = ", ".join(row)
        raise ScenarioError(path, [Finding(f"prompt.{part}", f"cannot be filled from row {number}: {error}; its columns are {columns}")]) from None


def _rendered(prompt_id: str, parts: Mapping[str, str], prompt: Prompt) -> RenderedPrompt:
    if prompt.api == "chat":
        messages = [{"role": role, "content": parts[role]} for role in ("system", "user") if role in parts]
        return RenderedPrompt(prompt_id=prompt_id, messages=messages, text=None, sha256=sha256_of(messages))
    text = "".join(parts[part] for part in ("system", "user") if part in parts)
    return RenderedPrompt(prompt_id=prompt_id, messages=None, text=text, sha256=sha256_of(text))


def sha256_of(value: Any) -> str:
    """Hash of any JSON value, independent of key order."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def hash_all(prompts: Sequence[RenderedPrompt]) -> str:
    """One hash over prompts in their order."""
    return sha256_of([[prompt.prompt_id, prompt.sha256] for prompt in prompts])


def request_path(prompt: Prompt) -> str:
    """Where an OpenAI-style server takes such prompts."""
    return "/v1/chat/completions" if prompt.api == "chat" else "/v1/completions"


def request_body(
    prompt: RenderedPrompt,
    *,
    model: str,
    decoding: Decoding,
    output: Output,
    stream: bool,
    cache_salt: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON body of an OpenAI-style request.

    `cache_salt` keeps one trial's prefix cache from serving another (vLLM). `extra` holds fields that only the caller knows of.
    """
    body: dict[str, Any] = {"model": model}
    if prompt.messages is not None:
        body["messages"] = prompt.messages
    else:
        body["prompt"] = prompt.text
    body |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed, "max_tokens": output.fixed or output.max_tokens}
    if decoding.stop:
        body["stop"] = list(decoding.stop)
    if output.fixed is not None:
        body |= {"ignore_eos": True, "min_tokens": output.fixed}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if cache_salt is not None:
        body["cache_salt"] = cache_salt
    return {**body, **(extra or {})}
