"""An OpenAI-style server in a thread, whose answers and misbehaviour a test writes down; it keeps every question that it was asked.

It is called ready (`/v1/models` lists its models), and an answer to a request with `stream` goes out as events.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Reply = dict[str, Any] | tuple[int, bytes] | None
"""A JSON body, or (status, raw body), or None: hang up without an answer."""


def chat(text: str | None, **choice: Any) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }


def _events(answer: dict[str, Any]) -> bytes:
    """A whole chat answer as vLLM streams it: one event with the text, one with the usage."""
    (choice,) = answer["choices"]
    delta = {"index": 0, "delta": {"content": choice["message"]["content"]}, "finish_reason": choice["finish_reason"]}
    events = [{"choices": [delta]}, {"choices": [], "usage": answer["usage"]}]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"


class AnsweringServer:
    def __init__(self, reply: Callable[[dict[str, Any]], Reply], models: tuple[str, ...] = ("m",)) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.connections: set[int] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, json.dumps({"object": "list", "data": [{"id": model, "object": "model"} for model in models]}).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                server.headers.append(dict(self.headers))
                server.paths.append(self.path)
                server.connections.add(self.client_address[1])
                answer = reply(body)
                if answer is None:
                    self.close_connection = True
                    return
                if not isinstance(answer, dict):
                    self._send(*answer)
                elif body.get("stream"):
                    self._send(200, _events(answer), "text/event-stream")
                else:
                    self._send(200, json.dumps(answer).encode())

            def _send(self, status: int, content: bytes, kind: str = "application/json") -> None:
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> AnsweringServer:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
