"""Open files: every stream is a socket, and so one of them. The limit is raised as far as it may be, and where that is not enough it is said before load."""

from __future__ import annotations

import resource

from perfbench.errors import LoadError

_OTHERS = 64
"""Event loop, spool, log, pipes, libraries: far fewer are open."""


def raise_limit() -> None:
    """As many as the system allows this process without asking."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def check_open_files(sockets: int) -> None:
    """Raises LoadError where so many sockets cannot be open at once."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and sockets + _OTHERS > allowed:
        raise LoadError(
            f"{sockets:,} connections at once need as many open files, and each process may have {allowed:,} here; raise the limit before perfbench starts "
            f"(`ulimit -Hn {sockets + _OTHERS}` as root, LimitNOFILE= in a unit, --ulimit in a container), or spread the streams with --processes"
        )
