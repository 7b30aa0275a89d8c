"""Workload: the prompts of a run, their lengths, turns and shared prefixes, and which adapter each request asks for. Pure, and seeded throughout.

`sources.load_prompts` makes the prompts before anything starts; `spread` says in which order and for which adapter they are sent.
"""
