"""A Locust user for people's own locustfiles: it asks an OpenAI-style server and returns each answer as a record with the kernel's stamps.

    from locust import between, task
    from perfbench import LlmUser

    class Visitor(LlmUser):
        host = "http://127.0.0.1:8000"
        model = "my-model"
        wait_time = between(1, 5)

        @task
        def ask(self):
            record = self.chat([{"role": "user", "content": "Which day is it?"}], max_tokens=32)

All users of a process share one reader (perfbench.load.wire). Locust's statistics get three entries an answer: the request itself, and under `TTFT` and
`TPOT` its two latencies in ms, so that they stand in Locust's own page; Locust rounds them, the record does not.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import Any, ClassVar

import gevent
import gevent.hub
import gevent.lock
import msgspec
from locust import User

from perfbench.load.address import resolve
from perfbench.load.decode import decode
from perfbench.load.exchange import Exchange
from perfbench.load.pool import Pool
from perfbench.load.request_book import RequestBook, read_key
from perfbench.load.trial import Body
from perfbench.load.wire import Connection, Reader
from perfbench.records import Record

_NS_PER_S = 1_000_000_000


class LlmUser(User):  # type: ignore[misc]  # Locust has no types
    """Set `host` and `model`, write tasks that call `chat` or `complete`."""

    abstract = True
    model: str = ""
    """The name that the server serves the model by."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key."""
    request_timeout_s: float = 120.0

    _wires: ClassVar[dict[str, _Wire]] = {}
    """By host: connections and reader of this process."""
    _making_wire: ClassVar[gevent.lock.RLock] = gevent.lock.RLock()
    """Finding the host's address waits, and other users run meanwhile."""

    def chat(self, messages: list[dict[str, Any]], *, name: str = "chat", **fields: Any) -> Record:
        """POST /v1/chat/completions, streamed; `fields` go into the body (`max_tokens`, `temperature`, ...). Returns when the answer has ended.

        A failed request is a record too (status, error, what had arrived). Raises LoadError where the key's variable is not set or the host is no URL.
        """
        return self._ask("/v1/chat/completions", {"messages": messages, **fields}, name)

    def complete(self, prompt: str, *, name: str = "completion", **fields: Any) -> Record:
        """POST /v1/completions; otherwise as `chat`."""
        return self._ask("/v1/completions", {"prompt": prompt, **fields}, name)

    def _ask(self, path: str, fields: dict[str, Any], name: str) -> Record:
        with self._making_wire:
            wire = self._wires.get(self.host) or _Wire(self.host)
            self._wires[self.host] = wire
        body = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}, **fields}
        record = wire.ask(path, body, key=read_key(self.api_key_env), timeout_s=self.request_timeout_s, variant=self.model)
        self._tell_locust(name, record)
        return record

    def _tell_locust(self, name: str, record: Record) -> None:
        fire = self.environment.events.request.fire
        began_ns = record.sent_ns or record.scheduled_ns
        failure = None if record.status == "ok" else RuntimeError(record.error_message or record.error or "failed")
        fire(
            request_type="POST", name=name, response_time=((record.last_token_ns or record.end_ns) - began_ns) / 1e6,
            response_length=record.bytes_received, exception=failure, context=self.context(),
        )  # fmt: skip
        if record.first_token_ns is None or record.last_token_ns is None:
            return
        latencies = {"TTFT": (record.first_token_ns - began_ns) / 1e6}
        if record.output_tokens is not None and record.output_tokens > 1:
            latencies["TPOT"] = (record.last_token_ns - record.first_token_ns) / (record.output_tokens - 1) / 1e6
        for metric, milliseconds in latencies.items():
            fire(request_type=metric, name=name, response_time=milliseconds, response_length=0, exception=None, context=self.context())


class _Wire:
    """Reader and connections to one host, shared by all users of the process."""

    def __init__(self, host: str) -> None:
        self._address = resolve(host)
        self._reader = Reader(self._on_end, self._on_idle, self._on_lost)
        self._pool = Pool(self._reader, self._address, host)
        self._numbers = itertools.count()
        self._prefix = f"locust-{os.getpid()}-{time.monotonic_ns() % 1_000_000:06d}-"

    def ask(self, path: str, body: dict[str, Any], *, key: str | None, timeout_s: float, variant: str) -> Record:
        number = next(self._numbers)
        bodies = [Body(prompt_id=str(number), body=msgspec.Raw(msgspec.json.encode(body)))]
        request = RequestBook(self._address, path, bodies, f"{self._prefix}{number}-", key).request(0)
        now_ns = time.monotonic_ns()
        exchange = Exchange(request, scheduled_ns=now_ns)
        exchange.started_ns = now_ns
        exchange.waiter = gevent.getcurrent()
        timer = gevent.hub.get_hub().loop.timer(timeout_s)
        timer.start(self._time_out, exchange, timeout_s)
        try:
            self._pool.send(exchange)
            if exchange.waiter is not None:
                gevent.hub.get_hub().switch()
        finally:
            exchange.waiter = None
            timer.close()
            if exchange.connection is not None:  # the user was stopped while it waited
                exchange.connection.fail("cancelled", "the user was stopped")
        return decode(exchange.to_raw("locust", variant, 0, keep_text=True, secret=key.encode() if key else None))

    def _on_idle(self, connection: Connection) -> None:
        self._pool.on_idle(connection)

    def _on_lost(self, connection: Connection, reason: str) -> None:
        self._pool.on_lost(connection, reason)

    @staticmethod
    def _time_out(exchange: Exchange, timeout_s: float) -> None:
        if exchange.connection is not None:
            exchange.connection.fail("timeout", f"no end after {timeout_s:g} s")

    @staticmethod
    def _on_end(exchange: Exchange) -> None:
        if exchange.waiter is not None:
            gevent.hub.get_hub().loop.run_callback(exchange.waiter.switch)
            exchange.waiter = None
