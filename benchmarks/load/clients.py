"""The load generators that can be measured, by the name on the command line. A peer that is not there is left out, aloud."""

from __future__ import annotations

from pathlib import Path

from benchmarks.load.measure import Client
from benchmarks.load.ours import Floor, Perfbench
from benchmarks.load.peers import AiPerf, EvalScope, GuideLlm, InferencePerf, VllmBench

_PEERS = {"guidellm": GuideLlm, "aiperf": AiPerf, "evalscope": EvalScope, "inference-perf": InferencePerf}
CLIENTS = ("perfbench", "floor", "vllm", *_PEERS)


def make(name: str, binaries: Path, peers: Path | None, tokenizer: Path) -> Client | None:
    """The client, or None where it is not installed."""
    if name == "perfbench":
        return Perfbench(binaries)
    if name == "floor":
        return Floor(binaries)
    if name == "vllm":
        return VllmBench(tokenizer)
    program = (peers or Path()) / name / "bin" / name
    if peers is None or not program.is_file():
        print(f"{name}: left out: {program if peers else '--peers'} is missing; python -m benchmarks.load.install FOLDER makes it", flush=True)
        return None
    return _PEERS[name](program.resolve(strict=False), tokenizer)
