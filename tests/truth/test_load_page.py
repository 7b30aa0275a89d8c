"""`--ui`: Locust's own page beside a run, with live figures, on the loopback interface and read-only."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.truth.conftest import TruthServer, byte_tokenizer


def ask(url: str, data: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=10) as response:
        return response.read()


def test_the_page_shows_the_running_trial_and_cannot_change_it(truth_server: TruthServer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    byte_tokenizer(tmp_path / "tokenizer")
    options = ["--input-tokens", "20", "--output-tokens", "4", "--tokenizer", tmp_path / "tokenizer", "--out", tmp_path / "out", "--warmup", "0"]
    load = [sys.executable, "-m", "perfbench", "load", "--url", truth_server.url, "--model", "truth", "--concurrency", "2", "--duration", "9", "--ui", "--json"]
    run = subprocess.Popen([*load, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    try:
        found = None
        while found is None and (line := run.stderr.readline()):
            found = re.search(r"live page: (http://127\.0\.0\.1:\d+)", line)
        assert found is not None
        page = found.group(1)
        assert b"Locust" in ask(page)
        asked = time.monotonic()
        while not (stats := [row for row in json.loads(ask(f"{page}/stats/requests"))["stats"] if row["name"] == "endpoint.closed.r0"]):
            assert time.monotonic() - asked < 30, "no figures came"
            time.sleep(0.3)
        assert stats[0]["num_requests"] > 0
        for path, data in (("/stop", None), ("/stats/reset", None), ("/swarm", b"user_count=9&spawn_rate=9")):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                ask(page + path, data)
        out, err = run.communicate(timeout=60)
    finally:
        if run.poll() is None:
            run.kill()
            run.communicate()
    assert run.returncode == 0, err
    assert json.loads(out)["variants"]["endpoint"]["trials"][0]["requests"]["failed"] == 0
    with pytest.raises(urllib.error.URLError):
        ask(page)
