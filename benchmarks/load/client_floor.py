"""What the audit's client floor is worth: the null server's TTFT, as a run measures it, against what the client really adds to a TTFT.

    python -m benchmarks.load.client_floor                     (half a minute; needs cc)

The truth server logs when the kernel had the request and when it wrote the first token, so that the client's own part of each measured TTFT is known.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.load.measure import Level
from benchmarks.load.ours import order
from benchmarks.load.truth import Script, build, truth_server
from perfbench.client_floor import measure_client_floor
from perfbench.load.engine import LoadProcess

RATES, TTFTS_MS, WINDOW_S = (50.0, 300.0), (0.0, 1.0, 3.0, 10.0, 50.0), 1.0


def main() -> None:
    head = ("requests/s", "TTFT (p50), ms", "client's part of it (p50), ms", "share", "floor (p50), ms", "floor / TTFT")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    with tempfile.TemporaryDirectory() as name:
        binaries = Path(name)
        build(binaries)
        with LoadProcess(binaries / "load.log") as load:
            for rate in RATES:
                floor = measure_client_floor(load, rate)
                assert floor is not None
                for ttft_ms in TTFTS_MS:
                    folder = binaries / f"{rate:.0f}-{ttft_ms:.0f}"
                    folder.mkdir()
                    measured, own = parts(load, Script(tokens=2, ttft_ms=ttft_ms, gap_ms=1), rate, binaries, folder)
                    of_floor = floor.ttft_p50_s * 1e3
                    print(f"| {rate:.0f} | {measured:.3f} | {own:.3f} | {own / measured:.1%} | {of_floor:.3f} | {of_floor / measured:.1%} |", flush=True)


def parts(load: LoadProcess, script: Script, rate: float, binaries: Path, folder: Path) -> tuple[float, float]:
    """Medians in ms: TTFT as measured, and what is in it beside the server's time."""
    with truth_server(binaries, folder, script) as truth:
        spec = order(Level(script=script, window_s=WINDOW_S, rate_per_s=rate), truth, folder)
        load.run(spec)
        time.sleep(0.2)
        answers = truth.answers()
    rows = pl.read_parquet(spec.records_path, columns=["request_id", "sent_ns", "first_token_ns"]).drop_nulls().iter_rows()
    found = [(first - sent, first - sent - (answers[key].chunks[0] - answers[key].arrived_ns)) for key, sent, first in rows if key in answers]
    measured, own = np.median(np.array(found), axis=0) / 1e6
    return float(measured), float(own)


if __name__ == "__main__":
    main()
