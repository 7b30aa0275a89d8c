"""perfbench's load against the truth and against other load generators; `python -m benchmarks.load --help`."""
