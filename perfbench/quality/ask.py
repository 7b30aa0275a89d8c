"""Put questions to a running server and wait for whole answers: the spot-check's requests, and the reference check's.

Plain, not timed: latencies belong to `load`. One thread a connection, keep-alive, no proxy. A request that fails is an Answer
with its error; only when every one fails there is nothing to go on with, and that is one EndpointError.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from perfbench.errors import EndpointError
from perfbench.prompts import RenderedPrompt, request_body
from perfbench.records import ErrorKind
from perfbench.scenario.model import Decoding
from perfbench.scenario.output import Output
from perfbench.unix_http import UNIX_SCHEME, UnixConnection, split_unix_url

_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_LOOK_S = 0.2
"""How often the waiting thread wakes up, so that Ctrl-C is taken at once."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The model that is asked, and where."""

    url: str
    """Up to, not including, `/v1`."""
    model: str
    """The name that the server serves it by."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key."""
    timeout_s: float = 120.0
    """A whole answer may take so long."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for one prompt. `output` is None where the request failed, and `error` says why."""

    prompt_id: str
    output: str | None
    error: ErrorKind | None = None
    error_message: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    prompt_token_ids: list[int] | None = None
    """As the server tokenised it, chat template included; only where asked for, and vLLM only."""
    token_ids: list[int] | None = None
    """The answer's tokens, the end token included."""
    logprobs: dict[str, Any] | None = None
    """As the server gave them; only where `more` asked for them."""


class _RequestError(Exception):
    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def ask_all(
    target: Target,
    prompts: Sequence[RenderedPrompt],
    decoding: Decoding,
    *,
    max_tokens: int,
    concurrency: int,
    on_progress: Callable[[int, int], None] | None = None,
    token_ids: bool = False,
    more: Mapping[str, Any] | None = None,
) -> list[Answer]:
    """Ask every prompt once; answers come in the prompts' order. `on_progress(done, all)` is called from the calling thread.

    `token_ids` asks vLLM for the tokens of prompt and answer (`return_token_ids`); `more` is added to every request. A connection that breaks is
    tried once more.
    Raises EndpointError when the key's variable is not set or when every request fails. Ctrl-C closes the connections and goes on up.
    """
    if not prompts:
        return []
    output, added = Output(max_tokens=max_tokens), {**({"return_token_ids": True} if token_ids else {}), **(more or {})}
    bodies = [
        msgspec.json.encode(request_body(prompt, model=target.model, decoding=decoding, output=output, stream=False) | added) for prompt in prompts
    ]
    path = _PATHS["completions" if prompts[0].messages is None else "chat"]
    work = _Work(target, path, [prompt.prompt_id for prompt in prompts], bodies)
    answers = _collect(work, min(concurrency, len(prompts)), on_progress)
    if all(answer.output is None for answer in answers):
        first = answers[0]
        raise EndpointError(f"all {len(answers)} requests to {target.url} failed; the first: {first.error}: {first.error_message}")
    return answers


def _headers(api_key_env: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if api_key_env is not None:
        key = os.environ.get(api_key_env)
        if not key:
            raise EndpointError(f"the environment variable {api_key_env} is not set; it should hold the endpoint's key", hint=f"export {api_key_env}=...")
        headers["Authorization"] = f"Bearer {key}"
    return headers


class _Work:
    """What the connections share: where to ask, what is still to be asked, what has come back."""

    def __init__(self, target: Target, path: str, ids: Sequence[str], bodies: Sequence[bytes]) -> None:
        parts = urlsplit(target.url)
        self.secure, self.host, self.port = parts.scheme == "https", parts.hostname or "", parts.port
        self.unix_socket: str | None = None
        own_path = parts.path
        if parts.scheme == UNIX_SCHEME:
            self.unix_socket, own_path = split_unix_url(target.url)
        self.path, self.headers, self.timeout_s = own_path.rstrip("/") + path, _headers(target.api_key_env), target.timeout_s
        self.ids, self.bodies = ids, bodies
        self.waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.ready: queue.SimpleQueue[tuple[int, Answer]] = queue.SimpleQueue()
        for index in range(len(bodies)):
            self.waiting.put(index)


def _collect(work: _Work, connections: int, on_progress: Callable[[int, int], None] | None) -> list[Answer]:
    count = len(work.bodies)
    askers = [_Asker(work) for _ in range(connections)]
    answers: dict[int, Answer] = {}
    try:
        for asker in askers:
            asker.start()
        while len(answers) < count:
            try:
                index, answer = work.ready.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            answers[index] = answer
            if on_progress is not None:
                on_progress(len(answers), count)
    finally:
        for asker in askers:
            asker.stop()
        for asker in askers:
            if asker.ident is not None:
                asker.join(timeout=5)
    return [answers[index] for index in range(count)]


class _Asker(threading.Thread):
    """One connection: takes the next prompt until none is left or it is stopped."""

    def __init__(self, work: _Work) -> None:
        super().__init__(name="perfbench-ask", daemon=True)
        self._connection = _connection(work)
        self._work = work
        self._stopped = False

    def run(self) -> None:
        while not self._stopped:
            try:
                index = self._work.waiting.get_nowait()
            except queue.Empty:
                break
            self._work.ready.put((index, self._ask(self._work.ids[index], self._work.bodies[index])))
        self._connection.close()

    def stop(self) -> None:
        """End a request in flight: shutting the socket down wakes a thread that waits for its answer."""
        self._stopped = True
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # closed in the meantime
                sock.shutdown(socket.SHUT_RDWR)

    def _ask(self, prompt_id: str, body: bytes) -> Answer:
        failure: _RequestError | None = None
        for _ in range(2):
            try:
                return _answer(prompt_id, self._exchange(body))
            except _RequestError as error:
                failure = error
                if error.kind not in ("connect", "disconnected") or self._stopped:
                    break
        assert failure is not None
        return Answer(prompt_id=prompt_id, output=None, error=failure.kind, error_message=failure.message)

    def _exchange(self, body: bytes) -> bytes:
        """Send one request and read its whole response; the connection is dropped after any failure."""
        try:
            self._open()
            if self._stopped:  # asked after connecting: either `stop` sees the socket, or this sees the flag
                raise ConnectionAbortedError("stopped")
            self._connection.request("POST", self._work.path, body, {**self._work.headers, "X-Request-Id": f"quality-{secrets.token_hex(8)}"})
            response = self._connection.getresponse()
            content = response.read()
        except TimeoutError:
            self._connection.close()
            raise _RequestError("timeout", f"no answer within {self._work.timeout_s:g} s") from None
        except (ConnectionError, http.client.RemoteDisconnected, http.client.IncompleteRead) as error:
            self._connection.close()
            raise _RequestError("disconnected", f"the connection broke ({error})") from None
        except (http.client.HTTPException, OSError) as error:
            self._connection.close()
            raise _RequestError("protocol", f"the answer is no HTTP ({error!r})") from None
        if response.status != 200:
            raise _RequestError("http", f"status {response.status}: {_short(content)}")
        return content

    def _open(self) -> None:
        if self._connection.sock is not None:
            return
        try:
            self._connection.connect()
        except TimeoutError:
            self._connection.close()
            raise _RequestError("connect", f"no connection within {self._work.timeout_s:g} s") from None
        except OSError as error:
            self._connection.close()
            raise _RequestError("connect", f"no connection ({error})") from None


def _connection(work: _Work) -> http.client.HTTPConnection:
    if work.unix_socket is not None:
        return UnixConnection(work.unix_socket, timeout=work.timeout_s)
    kind = http.client.HTTPSConnection if work.secure else http.client.HTTPConnection
    return kind(work.host, work.port, timeout=work.timeout_s)


def _short(content: bytes) -> str:
    """An error body in one line: the OpenAI-style message where there is one."""
    text = content.decode("utf-8", "replace")
    try:
        body = json.loads(content)
        text = str(body["error"]["message"] if "error" in body else body["message"])
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:300]


def _answer(prompt_id: str, content: bytes) -> Answer:
    """Read an OpenAI-style response; vLLM puts the prompt's tokens on the choice (completions) or at the top (chat)."""
    try:
        body = json.loads(content)  # not msgspec: it refuses a lone surrogate, which a model may well write
        choice = body["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        usage = body.get("usage") or {}
        return Answer(
            prompt_id=prompt_id,
            output=_text(text),
            finish_reason=choice.get("finish_reason"),
            prompt_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
            prompt_token_ids=choice.get("prompt_token_ids") or body.get("prompt_token_ids"),
            token_ids=choice.get("token_ids"),
            logprobs=choice.get("logprobs"),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _RequestError("protocol", f"the answer is no chat or text completion: {_short(content)}") from None


def _text(value: object) -> str:
    """The answer's text; none at all is an empty answer. A lone surrogate cannot be stored and becomes `?`."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()
