"""The load generators that can be measured, by the name on the command line. A peer that is not there is left out, aloud."""

from __future__ import annotations

from pathlib import Path

from benchmarks.load.measure import Client
from benchmarks.load.ours import Floor, Perfbench
from benchmarks.load.peers import VllmBench

CLIENTS = ("perfbench", "floor", "vllm")


def make(name: str, binaries: Path, peers: Path | None, tokenizer: Path) -> Client | None:
    """The client, or None where it is not installed."""
    if name == "perfbench":
        return Perfbench(binaries)
    if name == "floor":
        return Floor(binaries)
    if name == "vllm":
        return VllmBench(tokenizer)
    print(f"{name}: left out: not in {peers}", flush=True)
    return None
