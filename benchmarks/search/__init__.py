"""Searches for the highest rate at the SLO, against servers whose capacity is known."""
