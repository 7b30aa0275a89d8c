"""Servers: the command that starts one, its process tree from start to stop, endpoints that already run."""
