"""Where requests go: a URL taken apart and resolved once, before anything is timed. Proxies are never used."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from perfbench.errors import LoadError


@dataclass(frozen=True)
class Address:
    """A server as a socket wants it, and as HTTP wants it."""

    family: int
    sockaddr: Any
    host_header: str
    path: str
    """The URL's own path, without a slash at its end; request paths are appended to it."""


def resolve(url: str) -> Address:
    """Take `url` apart and resolve its host; raises LoadError for what cannot be driven."""
    if not url.isascii() or not url.isprintable():
        raise LoadError(f"{url!r} is not a URL of printable ASCII characters; write an international host name in its xn-- form")
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise LoadError(f"{url} is not a URL: {error}; expected something like http://127.0.0.1:8000") from None
    if parts.scheme == "https":
        raise LoadError(f"{url}: TLS endpoints cannot be driven yet; give an http:// URL, or put a local TLS-ending proxy before the endpoint")
    if parts.scheme != "http" or not parts.hostname:
        raise LoadError(f"{url} is not an http URL with a host; expected something like http://127.0.0.1:8000")
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LoadError(f"the host of {url} cannot be resolved: {error.strerror or error}; check the name or give an address") from None
    family, _, _, _, sockaddr = found[0]
    return Address(family=family, sockaddr=sockaddr, host_header=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/"))
