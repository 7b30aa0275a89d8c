"""Pure functions over a run folder: from records and telemetry to summary.json. No server, no GPU: can be repeated anywhere."""
