"""Every way to reach a server: IPv6, a name that is several addresses, a Unix socket; and never a proxy."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perfbench.errors import LoadError
from perfbench.load.engine import LoadProcess
from tests.truth.conftest import Driven, TruthServer, make_spec, read_records, request_body, text_of
from tests.truth.test_load_records import assert_stamps_are_the_servers


@contextmanager
def truth_server_at(binary: Path, where: str, log_path: Path) -> Iterator[int]:
    """Yields the port, 0 for a Unix socket."""
    process = subprocess.Popen([str(binary), where, str(log_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().split()[1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def drive_at(load: LoadProcess, url: str, log_path: Path, folder: Path) -> Driven:
    spec = make_spec(folder / "trial", url, [request_body(ttft_ms=20, gap_ms=20, tokens=5)], concurrency=2)
    outcome = load.run(spec)
    answers = TruthServer(url, log_path, None).answers()  # type: ignore[arg-type]
    return Driven(spec, outcome, read_records(Path(spec.records_path)), answers)


def test_ipv6(load_process: LoadProcess, truth_binary: Path, tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no ::1, so IPv6 is not tested")
    log_path = tmp_path / "truth.jsonl"
    with truth_server_at(truth_binary, "[::1]:0", log_path) as port:
        driven = drive_at(load_process, f"http://[::1]:{port}", log_path, tmp_path)
    assert {(record.status, record.stamp, record.output_text) for record in driven.records} == {("ok", "kernel", text_of(5))}
    assert_stamps_are_the_servers(driven)


def test_a_unix_socket_is_stamped_in_user_space_and_says_so(load_process: LoadProcess, truth_binary: Path, tmp_path: Path) -> None:
    """Kernels stamp no segments of Unix sockets."""
    log_path, path = tmp_path / "truth.jsonl", tmp_path / "vllm.sock"
    with truth_server_at(truth_binary, str(path), log_path):
        driven = drive_at(load_process, f"unix://{path}", log_path, tmp_path)
    assert {(record.status, record.stamp, record.output_text) for record in driven.records} == {("ok", "user", text_of(5))}
    assert driven.outcome.stamp == "user"
    assert_stamps_are_the_servers(driven)


def test_a_unix_socket_that_is_not_there_is_one_sentence(load_process: LoadProcess, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/none.sock"
    with pytest.raises(LoadError, match=f"^no connection to {url}: No such file or directory; start the server, or correct the URL$"):
        load_process.run(make_spec(tmp_path / "trial", url, [request_body()]))


def test_proxies_are_never_used(truth_server: TruthServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens on port 9: a request through the proxy would fail."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with LoadProcess(tmp_path / "load.log") as load:
        driven = drive_at(load, truth_server.url, truth_server.log_path, tmp_path)
    assert {record.status for record in driven.records} == {"ok"}


@pytest.mark.parametrize("kind", ["unix", "ipv6"])
def test_a_whole_run(truth_binary: Path, tmp_path: Path, kind: str) -> None:
    """Endpoint check, held-out samples, sampler and load all reach the server by the same URL."""
    log_path, path = tmp_path / "truth.jsonl", tmp_path / "vllm.sock"
    with truth_server_at(truth_binary, str(path) if kind == "unix" else "[::1]:0", log_path) as port:
        scenario = {
            "name": kind, "endpoints": {"live": {"url": f"unix://{path}" if kind == "unix" else f"http://[::1]:{port}", "model": "truth"}},
            "load": {"data": "rows.jsonl", "stages": [
                {"name": "two", "arrival": "closed", "concurrency": 2, "warmup_s": 0.2, "duration_s": 0.5, "output": {"fixed": 8}},
            ]},
            "quality": {"data": "rows.jsonl", "task": {"task": "extraction", "expected": "answer"}, "margin": 0.05},
        }  # fmt: skip
        (tmp_path / "scenario.yaml").write_text(json.dumps(scenario))
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": f"p{n}", "prompt": f"say {n}", "answer": {"n": n}}) + "\n" for n in range(8)))
        command = [sys.executable, "-m", "perfbench", "run", tmp_path / "scenario.yaml", "--out", tmp_path / "results", "--quiet", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (trial,) = json.loads(done.stdout)["variants"]["live"]["trials"]
    assert trial["requests"]["failed"] == 0 < trial["requests"]["ok"]
