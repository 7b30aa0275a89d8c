"""The statistics of perfbench/analyse, held against simulated truth."""
