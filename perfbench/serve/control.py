"""The few HTTP requests that start-up needs: is it ready, what does it serve, one completion. Load has a client of its own (`load.wire`).

Straight to the address: no proxy from the environment, and no redirect, which could carry a key to another host.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Literal

from perfbench.unix_http import UNIX_SCHEME, UnixConnection, split_unix_url


class ControlError(Exception):
    """No answer. `kind` says where it failed; the text is the system's own reason and never holds a header."""

    def __init__(self, kind: Literal["unreachable", "tls", "timeout", "protocol"], reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of any status."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON, None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def text(self) -> str:
        return self.body.decode(errors="replace")

    def message(self) -> str:
        """What the server says went wrong: the OpenAI or FastAPI error message where there is one, else the start of the body."""
        body = self.json()
        found: Any = None
        if isinstance(body, dict):
            error = body.get("error", body)
            found = (error.get("message") or error.get("detail")) if isinstance(error, dict) else error
        text = found if isinstance(found, str) else self.text()
        return " ".join(text.split())[:300] or "no reason given"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Answer with the redirect itself."""


class _UnixHandler(urllib.request.HTTPHandler):
    """Opens every connection to one Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connect(host: str, /, *, port: int | None = None, timeout: float = 0.0, source_address: Any = None, blocksize: int = 0) -> UnixConnection:
            return UnixConnection(self._path, timeout=timeout)

        return self.do_open(connect, req)


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())


def get(url: str, *, key: str | None = None, timeout_s: float) -> Answer:
    """GET; raises ControlError where no answer came. `key` is sent as a bearer token and must hold printable ASCII only."""
    return _exchange(url, None, key, timeout_s)


def post_json(url: str, body: dict[str, Any], *, key: str | None = None, timeout_s: float) -> Answer:
    """POST a JSON body; otherwise as `get`."""
    return _exchange(url, json.dumps(body).encode(), key, timeout_s)


def _exchange(url: str, body: bytes | None, key: str | None, timeout_s: float) -> Answer:
    opener = _opener
    if url.startswith(f"{UNIX_SCHEME}:"):
        path, selector = split_unix_url(url)
        url, opener = f"http://localhost{selector}", urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect(), _UnixHandler(path))
    headers = {"Content-Type": "application/json"} if body is not None else {}
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 (the scenario allows http, https and unix only)
    if key is not None:
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        with opener.open(request, timeout=timeout_s) as response:
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason))
        raise _control_error(reason) from None
    except http.client.HTTPException as error:
        raise ControlError("protocol", f"{type(error).__name__} {error}".strip()) from None
    except OSError as error:
        raise _control_error(error) from None


def _control_error(error: OSError) -> ControlError:
    if isinstance(error, TimeoutError):
        return ControlError("timeout", "no answer in time")
    if isinstance(error, ssl.SSLCertVerificationError):
        return ControlError("tls", f"certificate verify failed: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return ControlError("tls", (error.reason or str(error)).replace("_", " ").lower())
    return ControlError("unreachable", error.strerror or str(error))
