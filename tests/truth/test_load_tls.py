"""TLS: the ground-truth server behind a TLS terminator, and certificates made for the test. Records are as exact as without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.server
import shutil
import ssl
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from perfbench.errors import LoadError
from perfbench.load.engine import LoadProcess
from tests.truth.conftest import Driven, TruthServer, make_spec, read_records, request_body, text_of
from tests.truth.test_load_records import assert_stamps_are_the_servers


class Authority:
    """Makes certificates with the openssl program. `file` is what SSL_CERT_FILE has to name."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl program on this machine: no certificate can be made, so TLS is not tested")
        self._folder = folder
        self.file = self._make("authority", "-x509", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")

    def _make(self, name: str, *options: str) -> Path:
        path = self._folder / f"{name}.pem"
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(self._folder / f"{name}.key"))
        subprocess.run(["openssl", "req", *key, "-subj", f"/CN=perfbench test {name}", "-out", str(path), *options], check=True, capture_output=True)
        return path

    def context(self, name: str, host: str, *, days: int = 2, signed: bool = True) -> ssl.SSLContext:
        """A server's context with a certificate for `host` that is good for so many days from now; for none, it has expired."""
        names = ("-addext", f"subjectAltName={host}")
        if signed:
            request = self._make(f"{name}-request", *names)
            certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}-request.key"
            issuer = ("-CA", str(self.file), "-CAkey", str(self._folder / "authority.key"), "-CAcreateserial")
            command = ["openssl", "x509", "-req", "-in", str(request), *issuer, "-copy_extensions", "copy", "-out", str(certificate), "-days", str(days)]
            subprocess.run(command, check=True, capture_output=True)
        else:
            certificate, key = self._make(name, "-x509", *names), self._folder / f"{name}.key"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context


@contextmanager
def terminator(context: ssl.SSLContext, target: str, *, notify: bool = True) -> Iterator[int]:
    """Ends TLS on a free port and passes bytes on to `target` (an http URL) and back; without `notify` it cuts connections off unannounced."""
    loop, connections = asyncio.new_event_loop(), set[asyncio.Task[None]]()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())  # type: ignore[arg-type]
        near, far = await asyncio.open_connection("127.0.0.1", int(target.rpartition(":")[2]))
        ways = [asyncio.ensure_future(pass_on(reader, far)), asyncio.ensure_future(pass_on(near, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far.close()
            if not notify:
                writer.transport.abort()
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(far.wait_closed(), writer.wait_closed(), return_exceptions=True)

    async def stop() -> None:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    loop.set_exception_handler(lambda _, __: None)  # refused handshakes are what some tests want
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        connections.clear()
        with warnings.catch_warnings():  # a connection that was cut off in its handshake has a transport that nobody can close
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def trusting_process(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadProcess]:
    """A load process whose trust store holds the test's authority, as a user would add one."""
    load = LoadProcess(tmp_path_factory.mktemp("load") / "load.log")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("SSL_CERT_FILE", str(authority.file))
        patch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there: a request through it would fail
        stack.enter_context(load)
        patch.undo()
        yield load


TlsDrive = Callable[..., Driven]


@pytest.fixture
def drive_tls(authority: Authority, trusting_process: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> TlsDrive:
    """As `drive`, through TLS."""

    def run(bodies: list[dict[str, Any]], *, notify: bool = True, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, **changes: Any) -> Driven:
        context = authority.context("server", "IP:127.0.0.1")
        context.maximum_version = newest
        with terminator(context, truth_server.url, notify=notify) as port:
            spec = make_spec(tmp_path / "trial", f"https://127.0.0.1:{port}", bodies, **changes)
            outcome = trusting_process.run(spec)
        return Driven(spec, outcome, read_records(Path(spec.records_path)), truth_server.answers())

    return run


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_streamed_answer_is_stamped_by_the_kernel(drive_tls: TlsDrive, newest: ssl.TLSVersion) -> None:
    driven = drive_tls([request_body(ttft_ms=30, gap_ms=20, tokens=6, prompt_tokens=11)], newest=newest, offsets_s=[0.0, 0.2], duration_s=0.4)
    for record in driven.records:
        assert (record.status, record.error, record.http_status, record.finish_reason) == ("ok", None, 200, "stop")
        assert (record.prompt_tokens, record.output_tokens, record.output_text) == (11, 6, text_of(6))
        assert record.scheduled_ns <= record.sent_ns <= driven.answers[record.request_id].received_ns
        assert (record.stamp, record.coalesced_reads) == ("kernel", 0)
    assert_stamps_are_the_servers(driven)


@pytest.mark.parametrize("split", ["half", "utf8", "chunk"])
def test_events_cut_over_records_have_the_time_of_their_last_byte(drive_tls: TlsDrive, split: str) -> None:
    driven = drive_tls([request_body(ttft_ms=10, gap_ms=20, tokens=4, split=split, split_us=3000)], offsets_s=[0.0])
    assert [(record.status, record.output_text) for record in driven.records] == [("ok", text_of(4))]
    assert_stamps_are_the_servers(driven)


def test_closed_streams_keep_their_connections(drive_tls: TlsDrive) -> None:
    driven = drive_tls([request_body(ttft_ms=2, gap_ms=1, tokens=3)], concurrency=8, duration_s=0.4)
    assert driven.outcome.requests_ok == len(driven.records) > 30
    assert len({answer.connection for answer in driven.answers.values()}) == 8


def test_a_large_request_is_sent_whole(drive_tls: TlsDrive) -> None:
    body = request_body(ttft_ms=1, gap_ms=1, tokens=2)
    body["messages"][0]["content"] = "ü" * 3_000_000
    assert [(record.status, record.output_text) for record in drive_tls([body], offsets_s=[0.0]).records] == [("ok", text_of(2))]


def test_close_notify_ends_an_answer_of_unknown_length(drive_tls: TlsDrive) -> None:
    driven = drive_tls([request_body(ttft_ms=5, gap_ms=2, tokens=3, framing="eof")], offsets_s=[0.0, 0.1], duration_s=0.2)
    assert [(record.status, record.output_text) for record in driven.records] == [("ok", text_of(3))] * 2


def test_without_close_notify_such_an_answer_may_have_been_cut_off(drive_tls: TlsDrive) -> None:
    (record,) = drive_tls([request_body(ttft_ms=5, gap_ms=2, tokens=3, framing="eof")], notify=False, offsets_s=[0.0]).records
    assert (record.status, record.error) == ("failed", "disconnected")


def test_a_server_that_closes_in_the_middle(drive_tls: TlsDrive) -> None:
    (record,) = drive_tls([request_body(ttft_ms=5, gap_ms=2, tokens=5, fault="close", at=3)], offsets_s=[0.0]).records
    assert (record.status, record.error, len(record.chunk_ns)) == ("failed", "disconnected", 3)


@pytest.mark.parametrize(
    ("host", "days", "signed", "said"),
    [
        ("DNS:elsewhere.example", 2, True, "certificate is not valid for '127.0.0.1'"),
        ("IP:127.0.0.1", 0, True, "certificate has expired"),
        ("IP:127.0.0.1", 2, False, "self-signed certificate"),
    ],
)  # fmt: skip
def test_a_certificate_that_is_not_to_be_trusted_is_one_sentence(
    authority: Authority, trusting_process: LoadProcess, truth_server: TruthServer, tmp_path: Path,
    host: str, days: int, signed: bool, said: str,
) -> None:  # fmt: skip
    with terminator(authority.context("bad", host, days=days, signed=signed), truth_server.url) as port, pytest.raises(LoadError) as refused:
        trusting_process.run(make_spec(tmp_path / "trial", f"https://127.0.0.1:{port}", [request_body()]))
    assert refused.value.message.startswith(f"no connection to https://127.0.0.1:{port}: TLS: the certificate is not accepted: ")
    assert said in refused.value.message
    assert refused.value.message.endswith("or name the certificates to trust in SSL_CERT_FILE")
    assert truth_server.answers() == {}


def test_an_authority_that_is_not_trusted_is_refused(authority: Authority, load_process: LoadProcess, truth_server: TruthServer, tmp_path: Path) -> None:
    with terminator(authority.context("server", "IP:127.0.0.1"), truth_server.url) as port, pytest.raises(LoadError, match="unable to get local issuer"):
        load_process.run(make_spec(tmp_path / "trial", f"https://127.0.0.1:{port}", [request_body()]))


def test_tls_to_a_plain_port_is_one_sentence(load_process: LoadProcess, tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), QuietHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            with pytest.raises(LoadError, match="TLS: the server does not speak it; does its URL begin with http://"):
                load_process.run(make_spec(tmp_path / "trial", f"https://127.0.0.1:{server.server_port}", [request_body()]))
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(http.server.BaseHTTPRequestHandler):
    """Answers what it does not understand with 400, as every HTTP server does."""

    def log_message(self, *_: object) -> None:
        pass


def test_a_certificate_that_changes_in_the_window_leaves_connect_records(
    authority: Authority, trusting_process: LoadProcess, truth_server: TruthServer, tmp_path: Path
) -> None:
    """The terminator's one context is given another certificate while requests are driven: new connections must be refused, and say why."""
    context = authority.context("server", "IP:127.0.0.1")
    authority.context("other", "DNS:elsewhere.example")
    folder = authority.file.parent
    swap = threading.Timer(0.3, context.load_cert_chain, (folder / "other.pem", folder / "other-request.key"))
    with terminator(context, truth_server.url) as port:
        spec = make_spec(tmp_path / "trial", f"https://127.0.0.1:{port}", [request_body(ttft_ms=5, gap_ms=1, tokens=2, close="header")], duration_s=1.0)
        swap.start()
        trusting_process.run(spec)
        swap.join()
    records = read_records(Path(spec.records_path))
    refused = [record for record in records if record.error == "connect"]
    assert any(record.status == "ok" for record in records)
    assert refused
    assert {(record.sent_ns, record.bytes_received) for record in refused} == {(None, 0)}
    assert all("TLS: the certificate is not accepted" in record.error_message for record in refused)
