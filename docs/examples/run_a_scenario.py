"""Carry out a scenario from Python: python docs/examples/run_a_scenario.py my-model.yaml"""

import sys

from perfbench import Scenario, load_run, run
from perfbench.scenario import load_scenario

scenario: Scenario = load_scenario(sys.argv[1])
finished = run(scenario, parent="results")
for name, variant in finished.summary.variants.items():
    for trial in variant.trials:
        ttft = trial.metrics["ttft_s"]
        print(f"{name} {trial.stage}: TTFT p95 {ttft.p95} s over {ttft.n} requests, {trial.audit.verdict}")
print(load_run(finished.path))
