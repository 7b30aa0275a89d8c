"""The ground-truth server (tests/truth/truth_server.c) as a benchmark needs it: built once, on a core of its own, its log read back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

SOURCE = Path(__file__).parents[2] / "tests" / "truth" / "truth_server.c"
SERVER_CORE, CLIENT_CORE = 0, 1
PATH = "/v1/completions"
"""One event a token and nothing else: no role-only event, about which the clients differ."""


class Answer(msgspec.Struct, frozen=True):
    """What the server logged of one answer, ns of CLOCK_MONOTONIC."""

    id: str
    arrived_ns: int
    """The kernel's stamp of the request."""
    received_ns: int
    """When the server had read it."""
    connection: int
    chunks: list[int]
    """Right before the write of each token."""
    end_ns: int


@dataclass(frozen=True)
class Script:
    """How the server answers every request."""

    tokens: int = 64
    ttft_ms: float = 50
    gap_ms: float = 10

    @property
    def answer_s(self) -> float:
        """How long one answer takes."""
        return (self.ttft_ms + self.gap_ms * (self.tokens - 1)) / 1e3

    def json(self) -> str:
        return msgspec.json.encode({"tokens": self.tokens, "ttft_ms": self.ttft_ms, "gap_ms": self.gap_ms}).decode()


@dataclass(frozen=True)
class Truth:
    """A server that runs."""

    port: int
    url: str
    pid: int
    log: Path

    def answers(self) -> dict[str, Answer]:
        """Logged answers by request id; a last line that is still being written is left out."""
        decode = msgspec.json.Decoder(Answer).decode
        whole = self.log.read_bytes().rpartition(b"\n")[0]
        return {answer.id: answer for answer in map(decode, whole.splitlines())}


def build(folder: Path) -> None:
    """Compile the server, with and without TLS, and the floor client; raises CalledProcessError."""
    floor = Path(__file__).with_name("floor.c")
    subprocess.run(["cc", "-O2", "-o", str(folder / "server"), str(SOURCE)], check=True)
    subprocess.run(["cc", "-O2", "-o", str(folder / "floor"), str(floor)], check=True)


def build_tls(folder: Path) -> str | None:
    """Compile the server with TLS and make a certificate; returns why not, where that cannot be done."""
    done = subprocess.run(
        ["cc", "-O2", "-DTRUTH_TLS", "-o", str(folder / "server-tls"), str(SOURCE), "-lssl", "-lcrypto"], check=False, capture_output=True, text=True
    )
    if done.returncode:
        return "the server cannot be built with TLS; install OpenSSL's headers (libssl-dev)"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    names = ["-subj", "/CN=perfbench benchmark", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", *key, *names], check=True, capture_output=True)
    (folder / "tls.pem").write_bytes((folder / "certificate.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return None


@contextmanager
def truth_server(binaries: Path, folder: Path, script: Script, *, tls: bool = False) -> Iterator[Truth]:
    """Run the server on its core while the block runs; its log lies in `folder`."""
    log = folder / "truth.jsonl"
    environment = {**os.environ, "TRUTH_SCRIPT": script.json()} | ({"TRUTH_TLS": str(binaries / "tls.pem")} if tls else {})
    command = ["taskset", "-c", str(SERVER_CORE), str(binaries / ("server-tls" if tls else "server")), "0", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    port = int(process.stdout.readline().split()[1])
    try:
        yield Truth(port=port, url=f"{'https' if tls else 'http'}://127.0.0.1:{port}", pid=process.pid, log=log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
