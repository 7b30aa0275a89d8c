"""The parts of a run: which client is driven at which level."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from benchmarks.load.measure import Client, Level, Measured
from benchmarks.load.truth import Script

One = Callable[[str, Client, Level], Measured | None]

TTFT_LIMIT_MS = 5.0
_OURS = "perfbench"
_SHORT = Script(tokens=4, ttft_ms=5, gap_ms=2)
_LEVELS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048)
_CAPACITY_WINDOW_S = 4.0


def closed(one: One, clients: Sequence[Client], options: argparse.Namespace) -> None:
    """All clients in turn, several times over, at one number of streams of 94 tokens/s."""
    for _ in range(options.repeats):
        for client in clients:
            one("closed", client, Level(script=Script(), window_s=options.window, streams=options.streams))


def peers(one: One, clients: Sequence[Client], options: argparse.Namespace) -> None:
    """As `closed`, once: some of the other load generators need a minute to start and to report."""
    for client in clients:
        one("peers", client, Level(script=Script(), window_s=options.window, streams=options.streams))


def tls(one: One, clients: Sequence[Client], options: argparse.Namespace) -> None:
    """Ours, with TLS and without, in turn."""
    for _ in range(options.repeats):
        for client in _ours(clients):
            for encrypted in (True, False):
                one("tls", client, Level(script=Script(), window_s=options.window, streams=options.streams, tls=encrypted))


def open_loop(one: One, clients: Sequence[Client], options: argparse.Namespace) -> None:
    """Ours: Poisson, 200 requests a second."""
    for client in _ours(clients):
        one("open", client, Level(script=_SHORT, window_s=options.window, rate_per_s=200.0))


def short(one: One, clients: Sequence[Client], options: argparse.Namespace) -> None:
    """Ours: 1,000 short answers a second."""
    for client in _ours(clients):
        one("short", client, Level(script=_SHORT, window_s=options.window, rate_per_s=1000.0))


def many(one: One, clients: Sequence[Client], options: argparse.Namespace) -> None:
    """Ours: 10,000 streams open at once, two tokens a second each."""
    for client in _ours(clients):
        one("many", client, Level(script=Script(tokens=8, ttft_ms=1000, gap_ms=500), window_s=options.window, streams=10_000))


def capacity(one: One, clients: Sequence[Client], options: argparse.Namespace) -> None:
    """The most streams at which the p99 of a client's TTFT error is within the limit, by bisection over fixed levels."""
    for client in clients:
        low, high = -1, len(_LEVELS)
        while high - low > 1:
            middle = (low + high) // 2
            measured = one("capacity", client, Level(script=Script(), window_s=_CAPACITY_WINDOW_S, streams=_LEVELS[middle]))
            good = measured is not None and measured.ttft_error_ms is not None and measured.ttft_error_ms.p99 <= TTFT_LIMIT_MS
            low, high = (middle, high) if good else (low, middle)


def _ours(clients: Sequence[Client]) -> list[Client]:
    return [client for client in clients if client.name == _OURS]
