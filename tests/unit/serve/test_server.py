"""Start, failure and end of a server as a process tree."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from perfbench.errors import MissingPartError, ServerError
from perfbench.scenario.model import Serve
from perfbench.serve import guard
from perfbench.serve.server import Server, require_vllm
from perfbench.serve.together import all_started
from perfbench.variants import ServerPlan

from .conftest import living, started_from, wait_until

StandIn = Callable[..., Serve]


def test_a_server_is_described_when_it_is_ready_and_gone_afterwards(stand_in: StandIn, lora_plan: ServerPlan, tmp_path: Path) -> None:
    log = tmp_path / "run" / "server" / "base-lora.log"
    with Server(lora_plan, stand_in(), log=log) as server:
        info = server.info
        assert info is not None and info.pid is not None
        assert info.url == server.url and info.url.startswith("http://127.0.0.1:")
        assert info.variants == ["base+lora", "adapter"]
        assert (info.kv_cache_tokens, info.kv_cache_bytes, info.max_model_len, info.engine_version) == (46592, 2**30, 8192, "0.32.0")
        assert info.ready_s is not None and info.ready_s > 0
        assert os.getsid(info.pid) == info.pid != os.getsid(0)
        server.check()
        pid = info.pid
    assert not living({pid})
    assert started_from(tmp_path) == set()


def test_what_would_slow_or_lock_a_server_is_not_inherited(
    stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("VLLM_API_KEY", "sk-of-the-user")
    monkeypatch.setenv("HF_TOKEN", "inherited")
    with Server(base_plan, stand_in(), log=tmp_path / "base.log") as server:
        assert server.info is not None
        told = msgspec.json.encode(server.info).decode()
    names = json.loads((tmp_path / "base.log").read_text().splitlines()[0].removeprefix("environment "))
    assert "HF_TOKEN" in names
    assert not {"PYTHONDONTWRITEBYTECODE", "VLLM_API_KEY"} & set(names)
    assert "sk-of-the-user" not in told


def test_children_that_hide_are_stopped_too(stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfbench.serve.server._TERMINATE_S", 0.5)  # the children here never heed SIGTERM
    with Server(base_plan, stand_in("forks"), log=tmp_path / "base.log") as server:
        assert server.info is not None and server.info.pid is not None
        tree = set(guard.processes_of(server._mark, server.info.pid))
        assert len(tree) == 4
    assert not living(tree)
    assert started_from(tmp_path) == set()


def test_an_error_while_it_is_used_leaves_nothing(stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Server(base_plan, stand_in(), log=tmp_path / "base.log"):
        raise ZeroDivisionError
    assert started_from(tmp_path) == set()


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ("killed", "ran out of memory"),
        ("serves another", "does not serve `base` but something-else"),
        ("cannot complete", "a first completion by `base` failed: the engine is dead"),
        ("dies on completion", "illegal instruction in a kernel"),
    ],
)
def test_a_server_that_fails_gives_its_reason_and_its_log(
    behaviour: str, expected: str, stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path
) -> None:
    log = tmp_path / "base.log"
    with pytest.raises(ServerError) as caught:
        Server(base_plan, stand_in(behaviour), log=log).start()
    assert expected in caught.value.message
    assert caught.value.message.startswith("server `base` ")
    assert caught.value.message.endswith(f"log: {log}")
    assert "\n" not in caught.value.message
    assert started_from(tmp_path) == set()


def test_early_death_without_a_reason_says_how_it_ended(stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path) -> None:
    serve = stand_in("says", SAYS="(APIServer pid=1) INFO 11-24 04:00:00 [a.py:1] good bye", EXITS="7")
    with pytest.raises(ServerError, match="ended with exit code 7 and gave no reason; its last line is: good bye; log: "):
        Server(base_plan, serve, log=tmp_path / "base.log").start()


def test_only_the_log_of_this_start_is_read(stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path) -> None:
    log = tmp_path / "base.log"
    log.write_text("api_server.py: error: unrecognized arguments: --of-an-earlier-start\n")
    with pytest.raises(ServerError) as caught:
        Server(base_plan, stand_in("says", SAYS="bye", EXITS="1"), log=log).start()
    assert "earlier" not in caught.value.message
    assert "earlier" in log.read_text()


def test_a_server_that_is_not_ready_in_time_is_stopped(stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []
    server = Server(base_plan, stand_in("slow", ready_timeout_s=2.5), log=tmp_path / "base.log", on_wait=lambda s, line: seen.append((s, line)))
    with pytest.raises(ServerError, match=r"was not ready after 2.5 s; the last line of its log is: Loading weights; log: ") as caught:
        server.start()
    assert caught.value.hint and "serve.ready_timeout_s" in caught.value.hint
    assert seen and seen[-1][1] == "Loading weights" and 1 <= seen[-1][0] <= 2.6
    assert started_from(tmp_path) == set()


def test_another_port_is_tried_when_one_is_taken(stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with Server(base_plan, stand_in("port taken", STARTS=str(starts), TAKEN="2"), log=tmp_path / "base.log") as server:
        assert server.info is not None
    assert starts.read_text() == "xxx"


def test_three_taken_ports_are_enough(stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with pytest.raises(ServerError, match="its port was taken by another program"):
        Server(base_plan, stand_in("port taken", STARTS=str(starts), TAKEN="9"), log=tmp_path / "base.log").start()
    assert starts.read_text() == "xxx"
    assert started_from(tmp_path) == set()


def test_a_server_that_dies_later_is_noticed(stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path) -> None:
    with Server(base_plan, stand_in(), log=tmp_path / "base.log") as server:
        assert server.info is not None and server.info.pid is not None
        os.kill(server.info.pid, signal.SIGKILL)
        said: list[str] = []

        def noticed() -> bool:
            try:
                server.check()
            except ServerError as error:
                said.append(error.message)
            return bool(said)

        # Somebody else may be waiting for the process in this very moment; then one look does not see its end.
        assert wait_until(noticed)
        assert said[0].startswith("server `base` died while it was in use: it was killed")


def test_missing_vllm_is_said_before_anything_starts(base_plan: ServerPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(MissingPartError, match="vLLM is not installed") as caught:
        Server(base_plan, Serve(), log=tmp_path / "base.log").start()
    assert caught.value.hint and "pip install" in caught.value.hint
    assert not (tmp_path / "base.log").exists()
    with pytest.raises(MissingPartError):
        require_vllm()


# -- perfbench itself is ended

DRIVER = """
    import os, sys, time
    from pathlib import Path
    from perfbench.scenario.model import Serve
    from perfbench.serve.server import Server
    from perfbench.variants import ServerPlan
    behaviour, fork, folder = sys.argv[1], sys.argv[2] == "fork", Path(sys.argv[3])
    sys.path.insert(0, str(folder / "installed"))
    plan = ServerPlan("base", ("base",), {"base": "base"}, model_path=folder / "model")
    serve = Serve(env={"PYTHONPATH": str(folder / "installed"), "BEHAVIOUR": behaviour})
    waiting = lambda s, line: print("waiting", flush=True)
    with Server(plan, serve, log=folder / "base.log", on_wait=waiting) as server:
        if fork and os.fork() == 0:
            os.environ.clear()
            time.sleep(20)  # holds the guard's pipe open
            os._exit(0)
        print("ready", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "behaviour", "fork"),
    [
        (signal.SIGKILL, "forks", "plain"),
        (signal.SIGKILL, "good", "fork"),
        (signal.SIGKILL, "slow", "plain"),
        (signal.SIGTERM, "good", "plain"),
        (signal.SIGINT, "good", "plain"),
        (signal.SIGINT, "slow", "plain"),
    ],
)
def test_no_server_outlives_perfbench(number: signal.Signals, behaviour: str, fork: str, stand_in: StandIn, tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), behaviour, fork, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == ("waiting\n" if behaviour == "slow" else "ready\n")
        forked = _children_named(driver.pid, "python") if fork == "fork" else set()
        servers = {pid for pid in started_from(tmp_path) - forked if pid != driver.pid}
        assert len(servers) >= 2  # a server and its guard
        driver.send_signal(number)
        driver.wait(30)
        assert wait_until(lambda: not living(servers)), f"left over: {living(servers)}"
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()  # type: ignore[union-attr]
        for pid in started_from(tmp_path):
            os.kill(pid, signal.SIGKILL)


def _children_named(parent: int, name: str) -> set[int]:
    """Children that have not started another program: those made by a bare fork."""
    own = Path(f"/proc/{parent}/cmdline").read_bytes()
    task = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(pid) for pid in task if Path(f"/proc/{pid}/cmdline").read_bytes() == own}


# -- several at the same time


def test_servers_run_side_by_side(stand_in: StandIn, base_plan: ServerPlan, lora_plan: ServerPlan, tmp_path: Path) -> None:
    servers = [Server(plan, stand_in(), log=tmp_path / f"{plan.name}.log") for plan in (base_plan, lora_plan)]
    with all_started(servers):
        assert all(server.info is not None for server in servers)
        assert servers[0].url != servers[1].url
    assert started_from(tmp_path) == set()


def test_if_one_fails_none_is_left_and_nobody_waits_for_the_others(
    stand_in: StandIn, base_plan: ServerPlan, lora_plan: ServerPlan, tmp_path: Path
) -> None:
    slow = Server(base_plan, stand_in("slow", ready_timeout_s=600.0), log=tmp_path / "slow.log")
    broken = Server(lora_plan, stand_in("says", SAYS="api_server.py: error: unrecognized arguments: --nonsense", EXITS="2"), log=tmp_path / "broken.log")
    with pytest.raises(ServerError, match="server `base-lora` did not start: vLLM refuses its arguments: unrecognized"), all_started([slow, broken]):
        raise AssertionError("the body must not run")
    assert started_from(tmp_path) == set()


def test_a_stopped_server_does_not_start_again(stand_in: StandIn, base_plan: ServerPlan, tmp_path: Path) -> None:
    """When one of several fails while another has not begun, that other must not begin."""
    server = Server(base_plan, stand_in(), log=tmp_path / "base.log")
    server.stop()
    with pytest.raises(ServerError, match="was stopped"):
        server.start()
    assert started_from(tmp_path) == set()
