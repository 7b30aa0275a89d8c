"""Telemetry, read by a process of its own while load is driven, on one clock with the records (CLOCK_MONOTONIC).

The run opens a `Sampler` before anything connects; it starts `perfbench.sample.sampler`, which reads three sources, each at its own
rate on an absolute schedule, and spools `records.Sample` rows into the run folder. Not measured is a row that is absent, never 0.

source  labels              names (a trailing `_s` or `_j` without rate is a counter: a window's value is last - first)
nvml    device, uuid        vram_total_bytes (once) vram_used_bytes gpu_busy_percent memory_busy_percent power_w energy_j sm_clock_mhz
                            temperature_c clocks_event_reasons (NVML's bitmask; the label `reasons` names the bits)
                            foreign_gpu_processes foreign_vram_bytes client_vram_bytes
nvml    + server, variants  vram_bytes (the label `method` is `per process`, or `device minus baseline` where pids cannot be told)
host    server, variants    host_rss_bytes host_pss_bytes (every 10 s) server_cpu_s server_threads server_processes
host                        machine_cpu_s machine_steal_s machine_available_bytes machine_load1 other_cpu_cores
server  server, variants    num_requests_running num_requests_waiting kv_cache_usage_perc (0..1) prefix_cache_queries prefix_cache_hits
                            num_preemptions prompt_tokens generation_tokens kv_cache_tokens kv_block_size_tokens (both once)
client                      client_cpu_s client_rss_bytes client_processes (perfbench and the load it started) sampler_cpu_s
any     of                  missed_readings: how many readings of `of` failed so far; a row whenever it changes
"""

from perfbench.sample.parent import Sampler
from perfbench.sample.spec import SampleTarget

__all__ = ["SampleTarget", "Sampler"]
