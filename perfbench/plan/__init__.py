"""Sizing: from one or more analysed runs, or from a model's sizes alone, to a rate, a number of GPUs and a price. Pure functions; no server, no GPU."""
