"""Locust's own web page beside a long run: its live figures and charts, on this machine only, and read-only.

What stands there is Locust's: response times rounded, from whole answers. The report's figures come from the records.
"""

from __future__ import annotations

import socket
from typing import Any

_HOST = "127.0.0.1"
_PORT = 8089
"""Locust's own; where it is taken, any that is free."""


def serve_page(environment: Any) -> str:
    """Open the page of a Locust environment; returns its address."""
    from flask import abort, request

    port = _free_port()
    page = environment.create_web_ui(host=_HOST, port=port, delayed_start=True)

    @page.app.before_request  # type: ignore[untyped-decorator]
    def look_only() -> None:
        """The run is led by its scenario: nobody starts, stops or resets it from here."""
        if request.method not in ("GET", "HEAD") or request.path in ("/stop", "/stats/reset"):
            abort(403, "perfbench leads this run: the page only shows it")

    page.start()
    return f"http://{_HOST}:{port}"


def _free_port() -> int:
    for wanted in (_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, wanted))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
            return port
    raise OSError("no free port on the loopback interface")
