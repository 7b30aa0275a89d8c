"""guidellm's own sweep against a truth server: `guidellm run --profile kind=sweep`, its report read as a user would.

Its report holds, for each of its benchmarks, the strategy with the rate that was asked for, and percentiles of what it measured.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec

from benchmarks.search.found import SWEEP_SIZE, THROUGHPUT_STREAMS, WINDOW_S, Found, read_off

_TIMEOUT_S = 500.0


def by_guidellm(case: str, limit_s: float, url: str, folder: Path, program: Path, tokenizer: Path) -> Found:
    """Run it and read its answer off its Poisson benchmarks."""
    report = folder / "guidellm.json"
    command = [
        str(program), "run", "--backend", f"kind=openai_http,target={url},model=truth,request_format=/v1/completions",
        "--profile", f"kind=sweep,sweep_size={SWEEP_SIZE},strategy_type=poisson,max_concurrency={THROUGHPUT_STREAMS}",
        "--constraint", f"kind=max_duration,seconds={WINDOW_S:.0f}", "--tokenizer", f"kind=hf_auto,model={tokenizer}",
        "--data", "kind=synthetic_text,prompt_tokens=16,output_tokens=1", "--output", f"kind=json,path={report}", "--disable-console",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "NO_COLOR": "1", "DO_NOT_TRACK": "1"}
    environment.pop("PYTHONPATH", None)
    with (folder / "guidellm.log").open("wb") as log:
        subprocess.run(command, check=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environment)
    return read_report(report.read_bytes(), case, limit_s)


def read_report(content: bytes, case: str, limit_s: float) -> Found:
    """Rates asked for and the p95 of TTFT at each, of its open-loop benchmarks; server-seconds of all of them."""
    benchmarks = msgspec.json.decode(content)["benchmarks"]
    server_s = sum(one["scheduler_metrics"]["end_time"] - one["scheduler_metrics"]["start_time"] for one in benchmarks)
    points = [
        (one["config"]["strategy"]["rate"], one["metrics"]["time_to_first_token_ms"]["successful"]["percentiles"]["p95"] / 1e3)
        for one in benchmarks
        if one["config"]["strategy"]["type_"] == "poisson"
    ]
    answer = read_off([rate for rate, _ in points], [p95_s for _, p95_s in points], limit_s)
    seen = "; ".join(f"{p95_s * 1e3:.0f} ms at {rate:.0f}/s" for rate, p95_s in points)
    return Found(case, "guidellm", answer, server_s, len(benchmarks), seen=f"guidellm's own p95 of TTFT: {seen}")
