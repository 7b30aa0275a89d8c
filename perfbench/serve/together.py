"""Several servers at the same time: all ready, or none left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from perfbench.records import ServerInfo
from perfbench.scenario.model import Scenario
from perfbench.serve.endpoint import Endpoint, asks_exact_length
from perfbench.serve.server import OnWait, Server
from perfbench.variants import ServerPlan


class RunningServer(Protocol):
    """What the rest of perfbench needs of a server, ours or an endpoint."""

    plan: ServerPlan
    url: str
    api_key_env: str | None
    info: ServerInfo | None
    """None until it is ready."""

    def start(self) -> ServerInfo: ...

    def stop(self) -> None: ...

    def check(self) -> None:
        """Raise ServerError or EndpointError if it has died since."""


def server_for(plan: ServerPlan, scenario: Scenario, *, log: Path, on_wait: OnWait | None = None) -> RunningServer:
    """The server of a plan, not started yet. `log` and `on_wait` are for one that we start."""
    if plan.endpoint is not None:
        return Endpoint(plan, api=scenario.prompt.api, exact_length=asks_exact_length(scenario))
    return Server(plan, scenario.serve, log=log, trust_remote_code=scenario.models.trust_remote_code, on_wait=on_wait)


@contextmanager
def all_started(servers: Sequence[RunningServer]) -> Iterator[Sequence[RunningServer]]:
    """Start all at once and stop all on exit. If one fails, its error is raised and the others are stopped."""
    with ExitStack() as stops:
        for server in servers:
            stops.callback(server.stop)
        if len(servers) == 1:
            servers[0].start()
        elif servers:
            _start_together(servers)
        yield servers


def _start_together(servers: Sequence[RunningServer]) -> None:
    with ThreadPoolExecutor(len(servers), thread_name_prefix="start-server") as threads:
        starts = [threads.submit(server.start) for server in servers]
        try:
            done, _ = wait(starts, return_when=FIRST_EXCEPTION)
            for start in starts:
                if start in done:
                    start.result()
        except BaseException:
            # Their threads see it and end; leaving the pool waits for that.
            with ExitStack() as stops:
                for server in servers:
                    stops.callback(server.stop)
            raise
