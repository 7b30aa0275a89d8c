"""Endpoints that answer, refuse, or are something else, each by a real server in a thread."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perfbench.errors import EndpointError
from perfbench.scenario.model import Endpoint as EndpointSpec
from perfbench.serve.endpoint import Endpoint
from perfbench.serve.together import all_started
from perfbench.variants import ServerPlan

KEY = "sk-very-secret-0123456789"
MODELS = {"object": "list", "data": [{"id": "mine", "max_model_len": 4096}, {"id": "other"}]}
CHOICE = {"choices": [{"message": {"content": "x"}}]}
Reply = tuple[int, Any]
Replies = Callable[[str, str | None], Reply]
"""(path, Authorization) -> (status, body as JSON or bytes)"""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Any

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.server.bodies.append(self.rfile.read(length))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        status, body = self.server.replies(self.path, self.headers.get("Authorization"))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if status in (301, 302, 307):
            self.send_header("Location", data.decode())
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(replies: Replies, *, certificate: Path | None = None) -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.replies, server.asked, server.bodies = replies, [], []
    server.handle_error = lambda *_: None  # a refused handshake is the test's subject, not noise
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def good(path: str, _: str | None) -> Reply:
    return {"/v1/models": (200, MODELS), "/v1/chat/completions": (200, CHOICE), "/v1/completions": (200, CHOICE)}.get(path, (404, {}))


def with_key(path: str, authorization: str | None) -> Reply:
    return good(path, None) if authorization == f"Bearer {KEY}" else (401, {"error": {"message": f"wrong key {authorization}"}})


def endpoint_at(address: Any, *, scheme: str = "http", model: str = "mine", key_env: str | None = None, path: str = "", api: Any = "chat") -> Endpoint:
    host = address if isinstance(address, str) else f"127.0.0.1:{address.server_port}"
    spec = EndpointSpec(url=f"{scheme}://{host}{path}", model=model, api_key_env=key_env)
    return Endpoint(ServerPlan("live", ("live",), {"live": model}, endpoint=spec), api=api)


def failure_of(endpoint: Endpoint) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        endpoint.start()
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("endpoint `live`")
    return caught.value


def test_an_endpoint_that_answers_is_described() -> None:
    with running(good) as server, endpoint_at(server, path="/") as endpoint:
        info = endpoint.info
        assert info is not None
        assert (info.name, info.variants, info.argv, info.pid, info.engine_version, info.max_model_len) == ("live", ["live"], [], None, None, 4096)
        assert endpoint.url == info.url == f"http://127.0.0.1:{server.server_port}"
        assert endpoint.plan.served_names == {"live": "mine"}
        endpoint.check()
        assert [path for path, _ in server.asked[:2]] == ["/v1/models", "/v1/chat/completions"]


def test_what_vllm_adds_is_read() -> None:
    metrics = b'vllm:cache_config_info{engine="0",kv_cache_memory_bytes="None",kv_cache_size_tokens="46592"} 1.0'
    extra = {"/version": (200, {"version": "0.32.0"}), "/metrics": (200, metrics)}
    with running(lambda path, key: extra.get(path) or good(path, key)) as server:
        info = endpoint_at(server, api="completions").start()
        assert (info.engine_version, info.kv_cache_tokens, info.kv_cache_bytes) == ("0.32.0", 46592, None)
        assert ("/v1/completions", None) in server.asked


def test_the_key_comes_from_the_environment_and_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_KEY", KEY)
    with running(with_key) as server, endpoint_at(server, key_env="LIVE_KEY") as endpoint:
        assert endpoint.api_key_env == "LIVE_KEY"
        assert {key for _, key in server.asked} == {f"Bearer {KEY}"}
        assert KEY not in repr(endpoint) + repr(vars(endpoint)) + msgspec.json.encode(endpoint.info).decode()


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_names_its_variable(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIVE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("LIVE_KEY", value)
    with running(with_key) as server:
        assert "environment variable LIVE_KEY" in failure_of(endpoint_at(server, key_env="LIVE_KEY")).message
        assert server.asked == []


@pytest.mark.parametrize("value", [f"{KEY}\nHost: evil", f"{KEY}é", f"{KEY}\x07"])
def test_a_key_that_no_header_carries_is_not_repeated(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_KEY", value)
    with running(with_key) as server:
        error = failure_of(endpoint_at(server, key_env="LIVE_KEY"))
    assert "LIVE_KEY" in error.message
    assert KEY not in "".join(traceback.format_exception(error))


def echo(path: str, authorization: str | None) -> Reply:
    """A server that repeats the key wherever it can."""
    return good(path, None) if path == "/v1/models" else (500, {"error": {"message": f"cannot: {authorization}"}})


def echo_in_models(path: str, authorization: str | None) -> Reply:
    return 200, {"data": [{"id": f"model of {authorization}"}]}


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        (lambda path, key: (401, {"error": {"message": f"Incorrect API key: {key}"}}), "refuses the key in LIVE_KEY (status 401)"),
        (lambda path, key: (403, {"error": f"no {key}"}), "refuses the key in LIVE_KEY (status 403)"),
        (echo, "answers a completion by `mine` with status 500: cannot: Bearer ***"),
        (echo_in_models, "it serves `model of Bearer ***`"),
    ],
)
def test_a_key_that_the_server_repeats_is_not_shown(replies: Replies, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_KEY", KEY)
    with running(replies) as server:
        error = failure_of(endpoint_at(server, key_env="LIVE_KEY"))
    assert said in error.message
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(error.hint)
    assert KEY not in shown


def test_the_key_does_not_follow_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_KEY", KEY)
    with running(good) as elsewhere:
        target = f"http://127.0.0.1:{elsewhere.server_port}/v1/models".encode()
        with running(lambda path, key: (307, target)) as server:
            assert "answers with status 307" in failure_of(endpoint_at(server, key_env="LIVE_KEY")).message
        assert elsewhere.asked == []


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with running(good) as server:
        assert endpoint_at(server).start().max_model_len == 4096


def test_a_key_that_is_asked_for_and_not_given() -> None:
    with running(with_key) as server:
        assert "asks for a key (status 401); name the variable that holds it in `endpoints.live.api_key_env`" in failure_of(endpoint_at(server)).message


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((404, {"detail": "Not Found"}), "is no OpenAI API: GET http://127.0.0.1:PORT/v1/models answers with status 404"),
        ((200, b"<html>welcome</html>"), "something else than a list of models"),
        ((200, {"models": ["mine"]}), "something else than a list of models"),
        ((200, {"data": [{"id": "a"}, {"id": "b"}]}), "does not serve `mine`; it serves `a`, `b`"),
        ((200, {"data": []}), "does not serve `mine`; it serves nothing"),
    ],
)
def test_what_is_no_openai_api_or_another_model(reply: Reply, said: str) -> None:
    with running(lambda path, key: reply) as server:
        assert said.replace("PORT", str(server.server_port)) in failure_of(endpoint_at(server)).message


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((500, {"error": {"message": "engine dead"}}), "answers a completion by `mine` with status 500: engine dead"),
        ((400, {"error": {"message": "no chat template"}}), "status 400: no chat template"),
        ((200, {"choices": []}), "answers without `choices`"),
        ((200, b"ok"), "answers without `choices`"),
    ],
)
def test_a_completion_that_fails(reply: Reply, said: str) -> None:
    with running(lambda path, key: good(path, key) if path == "/v1/models" else reply) as server:
        assert said in failure_of(endpoint_at(server)).message


def test_nobody_listens() -> None:
    with socket.socket() as bound:  # bound and not listening: refused, and nobody else can take the port meanwhile
        bound.bind(("127.0.0.1", 0))
        error = failure_of(endpoint_at(f"127.0.0.1:{bound.getsockname()[1]}"))
    assert "cannot be reached" in error.message
    assert "Connection refused" in error.message


def test_something_that_is_no_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        error = failure_of(endpoint_at(f"127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()
    assert "does not speak HTTP" in error.message


def test_tls_with_a_server_that_speaks_plain_http() -> None:
    with running(good) as server:
        error = failure_of(endpoint_at(server, scheme="https"))
    assert "cannot be reached by TLS" in error.message
    assert "use http://" in error.message


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    try:
        subprocess.run([*command, "-keyout", tmp_path / "key.pem", "-out", tmp_path / "own.pem"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the program openssl to make a certificate")
    certificate.write_bytes((tmp_path / "key.pem").read_bytes() + (tmp_path / "own.pem").read_bytes())
    with running(good, certificate=certificate) as server:
        assert "certificate verify failed: self-signed certificate" in failure_of(endpoint_at(server, scheme="https")).message


@pytest.mark.parametrize(("path", "said"), [("/v1", "must end before /v1"), ("/v1/", "must end before /v1")])
def test_a_url_with_v1(path: str, said: str) -> None:
    assert said in failure_of(endpoint_at("127.0.0.1:1", path=path)).message


def test_a_key_in_the_url_is_refused_and_not_repeated() -> None:
    error = failure_of(endpoint_at(f"user:{KEY}@127.0.0.1:1"))
    assert "a key never stands in a URL" in error.message
    assert KEY not in "".join(traceback.format_exception(error))


def test_several_endpoints_together() -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(running(good)) for _ in range(3)]
        with all_started([endpoint_at(server) for server in servers]) as started:
            assert [endpoint.info is not None for endpoint in started] == [True] * 3
