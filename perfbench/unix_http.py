"""HTTP over a Unix socket, for the plain requests that ask and check (load has its own wire): `unix:///run/vllm.sock`, as vLLM's `--uds` makes one.

What stands behind the socket's path is the request's: `unix:///run/vllm.sock/v1/models`. The socket is the longest beginning of the path that is one.
"""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

UNIX_SCHEME = "unix"
MAX_PATH_BYTES = 107
"""What a socket's address holds on Linux (sun_path without its closing NUL)."""


def split_unix_url(url: str) -> tuple[str, str]:
    """(socket, path of the request). Where no part of the path is a socket (yet), all of it is taken for one."""
    path = unquote(urlsplit(url).path)
    for candidate in (Path(path), *Path(path).parents):
        if candidate.is_socket():
            return str(candidate), path[len(str(candidate)) :]
    return path.rstrip("/"), ""


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a Unix socket; the host header says `localhost`."""

    def __init__(self, path: str, *, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
