"""A stand-in for the program `python -m vllm...` whose behaviour a test chooses, and helpers that look at processes.

The real vLLM is in tests/live. Here the process machinery is under test, and it only sees what any program shows: exit codes, a log,
HTTP, children.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perfbench.scenario.model import Serve
from perfbench.variants import ServerPlan

PROGRAM = '''
import http.server, json, os, signal, subprocess, sys, time
argv = sys.argv[1:]
port = int(argv[argv.index("--port") + 1])
names = [argv[argv.index("--served-model-name") + 1]] + (["adapter"] if "--enable-lora" in argv else [])
how = os.environ["BEHAVIOUR"]
print("environment", json.dumps(sorted(os.environ)), flush=True)

def child(code, **options):
    # It lives for a minute if nobody ends it, so that a failing test leaves nothing for long.
    return subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.DEVNULL, **options)

if how == "says":
    print(os.environ["SAYS"], flush=True)
    sys.exit(int(os.environ["EXITS"]))
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "port taken":
    seen = os.environ["STARTS"]
    with open(seen, "a") as file:
        file.write("x")
    if os.path.getsize(seen) <= int(os.environ["TAKEN"]):
        print("Traceback (most recent call last):\\n  File \\"launcher.py\\", line 348, in bind\\nOSError: [Errno 98] Address already in use", flush=True)
        sys.exit(1)
if how == "slow":
    print("(EngineCore pid=7) INFO 11-24 04:00:00 [core.py:1] Loading weights", flush=True)
    time.sleep(60)
if how == "forks":
    deaf = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    child(deaf, start_new_session=True)              # a session of its own, keeps the mark, ignores SIGTERM
    child("import time; time.sleep(60)", env={})     # drops the mark, stays in the session
    child(deaf, env={}, start_new_session=True)      # drops both, but is a child

class Handler(http.server.BaseHTTPRequestHandler):
    def reply(self, status, body):
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        if self.path == "/health":
            self.reply(200, "")
        elif self.path == "/version":
            self.reply(200, json.dumps({"version": "0.32.0"}))
        elif self.path == "/metrics":
            self.reply(200, 'vllm:cache_config_info{block_size="128",engine="0",kv_cache_memory_bytes="1073741824",kv_cache_size_tokens="46592"} 1.0')
        elif self.path == "/v1/models":
            served = ["something-else"] if how == "serves another" else names
            self.reply(200, json.dumps({"object": "list", "data": [{"id": name, "max_model_len": 8192} for name in served]}))
        else:
            self.reply(404, "")
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if how == "cannot complete":
            self.reply(500, json.dumps({"error": {"message": "the engine is dead"}}))
        elif how == "dies on completion":
            print("(Worker pid=9) ERROR 11-24 04:00:00 [x.py:1] Traceback (most recent call last):", flush=True)
            print("(Worker pid=9) ERROR 11-24 04:00:00 [x.py:1] RuntimeError: illegal instruction in a kernel", flush=True)
            os._exit(1)
        elif body["model"] in names:
            self.reply(200, json.dumps({"choices": [{"text": "x"}]}))
        else:
            self.reply(404, json.dumps({"error": {"message": "no such model"}}))
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
'''


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Serve]:
    """Returns a function: behaviour -> the Serve whose servers behave like that."""
    package = tmp_path / "installed" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").write_text("")
    (package / "api_server.py").write_text(PROGRAM)
    installed = str(tmp_path / "installed")
    monkeypatch.syspath_prepend(installed)

    def serve(behaviour: str = "good", *, ready_timeout_s: float = 30.0, **variables: str) -> Serve:
        return Serve(env={"PYTHONPATH": installed, "BEHAVIOUR": behaviour, **variables}, ready_timeout_s=ready_timeout_s)

    return serve


@pytest.fixture
def base_plan(tmp_path: Path) -> ServerPlan:
    return ServerPlan("base", ("base",), {"base": "base"}, model_path=tmp_path / "model")


@pytest.fixture
def lora_plan(tmp_path: Path) -> ServerPlan:
    served = {"base+lora": "base", "adapter": "adapter"}
    return ServerPlan("base-lora", tuple(served), served, model_path=tmp_path / "model", lora=tmp_path / "adapter", max_lora_rank=16)


def living(pids: set[int]) -> set[int]:
    """Those that run: a zombie does not."""
    found = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            found.add(pid)
    return found


def started_from(folder: Path) -> set[int]:
    """Every living process whose environment or command line names `folder`, which only this test's servers and guards do, or whose
    parent's does."""
    wanted = str(folder).encode()
    found: set[int] = set()
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if wanted in (entry / "environ").read_bytes() or wanted in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return living(found)


def wait_until(condition: Callable[[], bool], limit_s: float = 30.0) -> bool:
    """Whether the condition comes true within the limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
