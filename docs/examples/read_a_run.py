"""Read a finished run: python docs/examples/read_a_run.py results/my-model-20261125T101500Z-1a2b"""

import sys

import polars as pl

from perfbench import load_run

run = load_run(sys.argv[1])
print(f"serve {run.summary.recommendation.serve}")
for name, variant in run.summary.variants.items():
    print(f"{name}: {variant.cost.usd_per_request} USD a request; {variant.cost.basis}")

slowest = (
    run.records()
    .filter(pl.col("status") == "ok")
    .with_columns(ttft_s=(pl.col("first_token_ns") - pl.col("sent_ns")) / 1e9)
    .sort("ttft_s", descending=True)
    .select("variant", "trial", "prompt_id", "ttft_s")
    .head(5)
    .collect()
)
print(slowest)
