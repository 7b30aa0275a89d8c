"""A server that answers at once: what the client itself takes, measured by driving it (`python -m perfbench.load.null_server`).

A process of its own with one epoll loop and no parsing beyond the head of a request: every POST is answered in one write with a canned stream of OpenAI chat
chunks. It prints `port N` and ends when its parent does. The floor that is measured against it holds its own work too (some 50 us a request), so it is an upper
bound of the client's.
"""

from __future__ import annotations

import ctypes
import selectors
import signal
import socket
import sys

TOKENS = 8
_PR_SET_PDEATHSIG = 1
_READ_BYTES = 1 << 16


def _event(delta: str, finish: str = "null") -> bytes:
    data = f'data: {{"id":"null","object":"chat.completion.chunk","model":"null","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}\n\n'
    return data.encode()


def canned_answer() -> bytes:
    """Head and body of every answer: a role, TOKENS tokens, usage, the end."""
    parts = [_event('{"role":"assistant","content":""}')]
    parts += [_event(f'{{"content":" w{number}"}}', '"stop"' if number == TOKENS - 1 else "null") for number in range(TOKENS)]
    usage = f'{{"prompt_tokens":1,"completion_tokens":{TOKENS},"total_tokens":{TOKENS + 1}}}'
    parts.append(f'data: {{"id":"null","object":"chat.completion.chunk","choices":[],"usage":{usage}}}\n\ndata: [DONE]\n\n'.encode())
    body = b"".join(parts)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class _Connection:
    """What has arrived of the next request."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def take(self, piece: bytes) -> int:
        """How many requests are whole now."""
        self._buffer += piece
        whole = 0
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            size = end + 4 + _content_length(self._buffer[:end])
            if len(self._buffer) < size:
                break
            self._buffer = self._buffer[size:]
            whole += 1
        return whole


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def serve(listener: socket.socket) -> None:
    """Forever: answer."""
    answer = canned_answer()
    selector = selectors.DefaultSelector()
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            connection: _Connection | None = key.data
            if connection is None:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(sock, selectors.EVENT_READ, _Connection(sock))
                continue
            try:
                piece = connection.sock.recv(_READ_BYTES)
                for _ in range(connection.take(piece)):
                    connection.sock.sendall(answer)
            except OSError:
                piece = b""
            if not piece:
                selector.unregister(connection.sock)
                connection.sock.close()


def main() -> None:
    """Entry point of the null server's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    sys.stdout.write(f"port {listener.getsockname()[1]}\n")
    sys.stdout.flush()
    serve(listener)


if __name__ == "__main__":
    main()
