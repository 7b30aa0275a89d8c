"""perfbench's load against known truth and against other load generators, in turn, in one run.

    python -m benchmarks.load --tokenizer .perfbench/demo/base [--peers /tmp/peers] [--clients perfbench floor vllm] [--parts closed open]

Two cores, and nothing else running: what else runs is measured too. `python -m benchmarks.load.install /tmp/peers` makes the environments of the peers
that are not in this project's own. Every run is added to results.json and all of it is shown in RESULTS.md (`--show` only renews that).
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load import parts, table
from benchmarks.load.clients import CLIENTS, make
from benchmarks.load.measure import BenchmarkError, Client, Level, Measured, measure
from benchmarks.load.truth import build, build_tls

FOLDER = Path(__file__).parent
PARTS = {
    "closed": parts.closed, "peers": parts.peers, "tls": parts.tls, "open": parts.open_loop, "short": parts.short, "many": parts.many,
    "capacity": parts.capacity,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", nargs="+", choices=list(CLIENTS), default=["perfbench", "floor", "vllm"])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=[part for part in PARTS if part != "peers"])
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments")
    parser.add_argument("--tokenizer", type=Path, default=Path(".perfbench/demo/base"), help="folder that the peers read a tokenizer from")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3, help="alternating, of the parts that compare clients")
    parser.add_argument("--window", type=float, default=8.0, help="seconds")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of results.json and RESULTS.md")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if not options.show:
        _run(options)
    table.write(options.out)


def _run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="perfbench-load-") as name:
        binaries = Path(name)
        build(binaries)
        no_tls = build_tls(binaries) if "tls" in options.parts else None
        clients = [client for name in options.clients if (client := make(name, binaries, options.peers, options.tokenizer.resolve()))]
        started = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")

        def one(part: str, client: Client, level: Level) -> Measured | None:
            try:
                measured = measure(client, level, binaries)
            except BenchmarkError as error:
                print(f"{part}: {client.name}: {error}", flush=True)
                return None
            table.add(options.out, started, part, measured)
            print(table.line(part, measured), flush=True)
            return measured

        for part in options.parts:
            if part == "tls" and no_tls:
                print(f"tls: left out: {no_tls}")
                continue
            PARTS[part](one, clients, options)


if __name__ == "__main__":
    main()
