"""How long people wait for the first line: `perfbench --help` and each command's, as whole processes. Goal: under 0.2 s.

    python -m benchmarks.startup

Medians over 7 runs after one that is not counted; beside them a bare interpreter, which nothing can be faster than. Prints a table; asserts nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 7


def median_s(*arguments: str) -> float:
    """Wall time of one process, seconds."""
    taken = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def main() -> None:
    rows = {"python -c pass": median_s("-c", "pass")}
    for words in ([], ["run"], ["load"], ["report"], ["doctor"]):
        rows[" ".join(["perfbench", *words, "--help"])] = median_s("-m", "perfbench", *words, "--help")
    for name, seconds in rows.items():
        print(f"{name:28} {seconds * 1e3:6.0f} ms")


if __name__ == "__main__":
    main()
