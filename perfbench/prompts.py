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
from perfbench.scenario.model import Decoding, Prompt
from perfbench.scenario.output import Output
from perfbench.scenario.references import Data
from perfbench.time_limit import cpu_limit

_ROW_S = 10.0
"""A template may take so much CPU time for one row."""


class RenderedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt as it is sent: `messages` for chat, `text` for completions."""

    prompt_id: str
    messages: list[dict[str, str]] | None
    text: str | None
    sha256: str
    turns: list[str] = []
    """Conversations: what the user says after the answer to `messages`, turn by turn."""
    think_time_s: float = 0.0
    """Conversations: from the end of an answer to the next turn."""
    part: int = 0
    """Which part of the load's mixture it belongs to."""

    def as_text(self) -> str:
        """For people and for records: the messages as JSON, or the text."""
        return self.text if self.text is not None else msgspec.json.encode(self.messages).decode()


def readable(prompt: str) -> str:
    """A record's prompt for people: chat messages as `role: text`, one below the other; text as it is."""
    try:
        messages = msgspec.json.decode(prompt, type=list[dict[str, str]])
    except msgspec.DecodeError:
        return prompt
    return "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in messages)


class Renderer:
    """The scenario's templates, ready to be filled. Raises ScenarioError for one that cannot be parsed."""

    def __init__(self, prompt: Prompt) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=_shown)
        sources = (("system", prompt.system), ("user", prompt.user))
        self._templates = {part: _template(environment, part, source) for part, source in sources if source is not None}
        self._chat = prompt.api == "chat"

    def prompt(self, prompt_id: str, row: Mapping[str, object], where: str) -> RenderedPrompt:
        """A row as a prompt; `where` names the row in the error. Raises ScenarioError for a template that the row does not fill."""
        parts = {part: _render(template, row, part, where) for part, template in self._templates.items()}
        if self._chat:
            messages = [{"role": role, "content": parts[role]} for role in ("system", "user") if role in parts]
            return RenderedPrompt(prompt_id=prompt_id, messages=messages, text=None, sha256=sha256_of(messages))
        text = "".join(parts[part] for part in ("system", "user") if part in parts)
        return RenderedPrompt(prompt_id=prompt_id, messages=None, text=text, sha256=sha256_of(text))

    def conversation(self, prompt_id: str, row: Mapping[str, object], turns: Sequence[str], system: str | None, where: str) -> RenderedPrompt:
        """A row as a conversation: the user template is filled once a turn, with the turn's text as `prompt`. `system` counts where the scenario has none."""
        said = [self.prompt(prompt_id, {**row, "prompt": turn}, where) for turn in turns]
        messages = list(said[0].messages or [])
        if system is not None and "system" not in self._templates:
            messages = [{"role": "system", "content": system}, *messages]
        later = [prompt.messages[-1]["content"] for prompt in said[1:] if prompt.messages]
        return RenderedPrompt(prompt_id=prompt_id, messages=messages, text=None, sha256=sha256_of([messages, later]), turns=later)


def render_data(data: Data, prompt: Prompt, *, key: str) -> tuple[list[RenderedPrompt], list[dict[str, object]]]:
    """Render every row of a data file; `key` is the scenario key that the file stands under.

    The prompt's id is the row's `id` where there is one, else its number from 0. Returns prompts and rows, in the file's order.
    Raises ScenarioError for a template that cannot be parsed or names a column that a row lacks, and for an id used twice.
    """
    rows = read_rows(data.path, data.limit, data.columns)
    renderer = Renderer(prompt)
    ids = row_ids(rows, data.path, key=key)
    return [renderer.prompt(prompt_id, row, f"row {number} of {data.path}") for number, (prompt_id, row) in enumerate(zip(ids, rows, strict=True))], rows


def row_ids(rows: Sequence[Mapping[str, object]], path: str, *, key: str) -> list[str]:
    """The id of every row: its `id` where there is one, else its number from 0. Raises ScenarioError for one that is used twice."""
    ids = [str(row.get("id", number)) for number, row in enumerate(rows)]
    seen: set[str] = set()
    for number, prompt_id in enumerate(ids):
        if prompt_id in seen:
            raise ScenarioError(path, [Finding(key, f"row {number} has the id `{prompt_id}` of an earlier row; make ids unique")])
        seen.add(prompt_id)
    return ids


def _template(environment: jinja2.Environment, part: str, source: str) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ScenarioError("scenario", [Finding(f"prompt.{part}", f"not a Jinja template: {error.message} (line {error.lineno})")]) from None


def _shown(value: object) -> object:
    """What a template writes. A null would be the word `None` in the prompt, bytes a Python literal."""
    if value is None or isinstance(value, bytes):
        what = "null" if value is None else "bytes"
        raise ValueError(f"a value that it writes is {what}; give the row a text, or say in the template what to write instead (`{{{{ column or '' }}}}`)")
    return value


def _render(template: jinja2.Template, row: Mapping[str, object], part: str, where: str) -> str:
    try:
        with cpu_limit(_ROW_S):
            return template.render(row)
    except TimeoutError:
        problem = f"takes more than {_ROW_S:g} s of CPU time to fill from {where}; take out what loops for so long"
    except (MemoryError, RecursionError) as error:
        told = "more memory than there is" if isinstance(error, MemoryError) else "itself again and again"
        problem = f"cannot be filled from {where}: it takes {told}; make it simpler"
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
        problem = f"cannot be filled from {where}: {error}; its columns are {', '.join(row)}"
    raise ScenarioError("scenario", [Finding(f"prompt.{part}", problem)])


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

    An output with a distribution has to be given as the prompt's own fixed length. `cache_salt` keeps one trial's prefix cache from serving another
    (vLLM). `extra` holds fields that only the caller knows of.
    """
    body: dict[str, Any] = {"model": model}
    if prompt.messages is not None:
        body["messages"] = prompt.messages
    else:
        body["prompt"] = prompt.text
    body |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed, "max_tokens": output.fixed or output.max_tokens}
    if decoding.stop:
        body["stop"] = list(decoding.stop)
    if decoding.response_format is not None:
        body["response_format"] = decoding.response_format.as_sent()
    if output.fixed is not None:
        body |= {"ignore_eos": True, "min_tokens": output.fixed}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if cache_salt is not None:
        body["cache_salt"] = cache_salt
    return {**body, **(extra or {})}
