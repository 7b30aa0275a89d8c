"""What vLLM 0.32 says of its KV cache, and older or other engines do not."""

from __future__ import annotations

from perfbench.serve.engine_facts import engine_version, kv_cache_bytes, kv_cache_tokens, served_models

METRICS = """# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",engine="0",kv_cache_memory_bytes="1073741824",kv_cache_size_tokens="46592",skip="[\\"a\\"]",num_gpu_blocks="364"} 1.0
vllm:num_requests_running{engine="0"} 3.0
"""
LOG = """(Worker pid=17) INFO 11-24 03:36:54 [cpu_worker.py:260] Explicitly set (1.0/8.46) GiB for KV cache on node 0.
(EngineCore pid=48) INFO 11-24 03:36:54 [kv_cache_utils.py:2327] CPU KV cache size: 46,592 tokens, Maximum concurrency for 2,048 tokens per request: 22.75x
"""


def test_capacity_is_what_vllm_says() -> None:
    assert kv_cache_tokens(METRICS) == 46592
    assert kv_cache_bytes(METRICS) == 2**30


def test_engines_of_one_server_are_added_up() -> None:
    two = METRICS + METRICS.replace('engine="0"', 'engine="1"')
    assert kv_cache_tokens(two) == 2 * 46592
    assert kv_cache_bytes(two) == 2**30  # of one device


def test_older_engines_say_it_in_the_log_or_in_blocks() -> None:
    older = METRICS.replace('kv_cache_size_tokens="46592",', "").replace('kv_cache_memory_bytes="1073741824"', 'kv_cache_memory_bytes="None"')
    assert kv_cache_tokens(older, LOG.replace("46,592", "46,000")) == 46000
    assert kv_cache_tokens(older) == 364 * 128
    assert kv_cache_bytes(older, LOG) == 2**30
    assert kv_cache_bytes("", "INFO 11-24 03:36:54 [gpu_worker.py:760] Available KV cache memory: 12.50 GiB") == 12.5 * 2**30


def test_what_is_not_said_is_none() -> None:
    assert kv_cache_tokens("") is None
    assert kv_cache_bytes("") is None
    assert kv_cache_tokens('vllm:cache_config_info{num_gpu_blocks="None",block_size="16"} 1.0') is None
    assert engine_version(None) is None
    assert engine_version({"detail": "Not Found"}) is None


def test_models_of_the_openai_api() -> None:
    assert served_models({"object": "list", "data": [{"id": "a", "max_model_len": 8}, {"id": "b"}]}) == {"a": 8, "b": None}
    assert served_models({"data": []}) == {}
    for other in (None, [], {}, {"data": "x"}, {"data": [{"name": "a"}]}, {"models": []}):
        assert served_models(other) is None
