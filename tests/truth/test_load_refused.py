"""What cannot be driven, each through the command line: one sentence, exit 2, nothing started and no run folder left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.truth.conftest import TruthServer, byte_tokenizer
from tests.unit.serve.test_endpoint import CHOICE, MODELS, running

SCENARIO = """
name: replay
endpoints: {{e: {{url: "{url}", model: mine}}}}
load: {{stages: [{{name: s, arrival: trace, trace: {{path: {trace}}}, warmup_s: 0, duration_s: 1, output: {{trace: fixed}}}}]}}
"""


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """What one command says on stderr; it must be one sentence (a list of findings for a scenario), exit 2 and leave no folder."""

    def run(*arguments: object, environment: dict[str, str] | None = None) -> str:
        command = [sys.executable, "-m", "perfbench", *map(str, arguments), "--out", str(tmp_path / "out"), "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()
        return done.stderr

    return run


def load(url: str, model: str = "mine") -> list[object]:
    return ["load", "--url", url, "--model", model, "--concurrency", 2, "--requests", 5]


def test_nobody_listens(refused: Callable[..., str]) -> None:
    said = refused(*load("http://127.0.0.1:9"))
    assert said == "perfbench: the server cannot be reached at http://127.0.0.1:9: Connection refused; start it, or correct --url\n"


def test_no_such_socket(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "No such file or directory; start it, or correct --url" in refused(*load(f"unix://{tmp_path}/none.sock"))


def test_a_certificate_of_nobody(refused: Callable[..., str], tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", pem, "-out", pem], check=True, capture_output=True)
    with running(lambda path, _: (200, MODELS if path == "/v1/models" else CHOICE), certificate=pem) as server:
        said = refused(*load(f"https://127.0.0.1:{server.server_address[1]}"))
    assert "cannot be reached by TLS" in said
    assert "self-signed certificate; where you trust its certificate, name the file with it or with its CA in SSL_CERT_FILE" in said


def test_a_key_is_wanted(refused: Callable[..., str]) -> None:
    with running(lambda *_: (401, {"error": "no"})) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert "asks for a key (status 401); name the variable that holds it in --api-key-env" in refused(*load(url))
        assert "needs the environment variable NONE_SUCH, which holds no key" in refused(*load(url), "--api-key-env", "NONE_SUCH")


def test_another_model_is_served(refused: Callable[..., str]) -> None:
    with running(lambda path, _: (200, MODELS if path == "/v1/models" else CHOICE)) as server:
        said = refused(*load(f"http://127.0.0.1:{server.server_address[1]}", "tuned"))
    assert said == "perfbench: the server does not serve `tuned`; it serves `mine`, `other`; correct --model\n"


def test_a_server_that_counts_no_tokens(refused: Callable[..., str]) -> None:
    def plain(path: str, _: str | None) -> tuple[int, Any]:
        return (200, MODELS) if path == "/v1/models" else (200, CHOICE) if path.startswith("/v1/") else (404, {"error": "Not Found"})

    with running(plain) as server:
        said = refused(*load(f"http://127.0.0.1:{server.server_address[1]}"))
    assert "/tokenize did not count tokens: HTTP 404, Not Found; give the model's tokenizer" in said
    assert "--tokenizer" in said


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,10\n", "GeneratedTokens"),
        ('{"offset_s": 0.5, "prompt": "a", "output_tokens": 1}\n{"offset_s": 0.2, "prompt": "b", "output_tokens": 1}\n', "line 2"),
        ('{"offset_s": 0, "prompt": "a"}\n', "line 1 says nothing of its answer"),
    ],
)
def test_a_trace_that_cannot_be_replayed(refused: Callable[..., str], truth_server: TruthServer, tmp_path: Path, rows: str, said: str) -> None:
    trace, scenario = tmp_path / "trace", tmp_path / "scenario.yaml"
    trace.write_text(rows)
    with running(lambda path, _: (200, MODELS if path == "/v1/models" else CHOICE)) as server:
        scenario.write_text(SCENARIO.format(url=f"http://127.0.0.1:{server.server_address[1]}", trace=trace))
        told = refused("run", scenario)
    assert "load.stages[0].trace.path" in told
    assert said in told


def test_exact_lengths_of_a_server_that_refuses_them(refused: Callable[..., str], tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    with strict() as server:
        text = SCENARIO.format(url=f"http://127.0.0.1:{server.server_address[1]}", trace="none")
        stage = "data: rows.jsonl, stages: [{name: s, arrival: closed, concurrency: 1, output: {fixed: 4}}]}"
        scenario.write_text(text.partition("stages:")[0] + stage + "\n")
        said = refused("run", scenario)
    assert "endpoint `e` refuses `ignore_eos` and `min_tokens`" in said
    assert "give the stages' `output` as `max_tokens` alone" in said


def test_a_server_without_exact_lengths_is_driven_with_natural_ones(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    byte_tokenizer(tmp_path / "tokenizer")
    with strict() as server:
        arguments = [*load(f"http://127.0.0.1:{server.server_address[1]}"), "--tokenizer", tmp_path / "tokenizer", "--warmup", 0, "--out", tmp_path / "out"]
        done = subprocess.run([sys.executable, "-m", "perfbench", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
        asked = [json.loads(body) for body in server.bodies if body]
    assert done.returncode == 0, done.stderr
    assert "the server refuses ignore_eos: answers end when the model wants to, after 64 tokens at most" in done.stderr
    sent = [body for body in asked if body.get("stream")]
    assert len(sent) >= 5
    assert all(body["max_tokens"] == 64 and "ignore_eos" not in body and "min_tokens" not in body for body in sent)


@contextmanager
def strict() -> Iterator[Any]:
    """A server that takes OpenAI's own fields and no others."""
    servers: list[Any] = []

    def replies(path: str, _: str | None) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, MODELS
        if b"ignore_eos" in servers[0].bodies[-1]:
            return 400, {"error": {"message": "unknown field ignore_eos"}}
        return 200, CHOICE

    with running(replies) as server:
        servers.append(server)
        yield server
