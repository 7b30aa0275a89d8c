"""What keys of a scenario must be together. Pure, over plain data, so that it also runs on a file that has other errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perfbench.errors import Finding
from perfbench.scenario.quality_metrics import quality_findings
from perfbench.scenario.search_combinations import search_findings

DEFAULT_DURATION_S = 30.0
"""Of a stage's window."""


def combination_findings(scenario: Mapping[str, Any]) -> list[Finding]:
    """Findings over a scenario as plain data (a parsed file or a dumped model). Values of a wrong type are left to the models."""
    return [
        *_variants(scenario), *_variations(scenario), *_adapters(scenario), *_prompts(scenario), *_stages(scenario), *search_findings(scenario),
        *quality_findings(scenario),
    ]  # fmt: skip


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _variants(scenario: Mapping[str, Any]) -> Iterator[Finding]:
    variants = [name for name in _list(scenario.get("variants")) if isinstance(name, str)]
    endpoints = _mapping(scenario.get("endpoints"))
    models = _mapping(scenario.get("models"))
    has = {name: models.get(name) is not None for name in ("base", "adapter", "merged")}
    if not variants and not endpoints and not _mapping(scenario.get("variations")):
        yield Finding("variants", "nothing to measure; list variants to start (base, base+lora, adapter, merged) or give `endpoints`")
    for name in sorted({name for name in variants if variants.count(name) > 1}):
        yield Finding("variants", f"`{name}` stands there twice; name each once")
    for name in sorted(set(endpoints) & {"base", "base+lora", "adapter", "merged"} & set(variants)):
        yield Finding(f"endpoints.{name}", "a variant that we start has the same name; rename the endpoint")
    if has["adapter"] and not has["base"]:
        yield Finding("models.adapter", "an adapter cannot be served or merged without its base; add `models.base`")
    elif not has["base"] and {"base", "base+lora", "adapter"} & set(variants):
        yield Finding("models.base", f"variant `{variants[0]}` needs it; add the base model's folder or hub id")
    if not has["adapter"] and {"base+lora", "adapter"} & set(variants):
        yield Finding("models.adapter", "variants `base+lora` and `adapter` need it; add the adapter's folder or hub id")
    if "merged" in variants and not has["merged"] and not (has["base"] and has["adapter"]):
        yield Finding("models.merged", "variant `merged` needs it, or `models.base` and `models.adapter` to merge")


_KEYS_OF = {"adapter": ("base+lora", "adapter"), "adapters_in_use": ("adapter",), "merge_dtype": ("merged",)}
"""Keys of a variation that belong to some variants only."""


def _variations(scenario: Mapping[str, Any]) -> Iterator[Finding]:
    """Names of their own, keys that fit what they are made of, and the models for it."""
    models = _mapping(scenario.get("models"))
    has = {name: models.get(name) is not None for name in ("base", "adapter", "merged")}
    for name, value in _mapping(scenario.get("variations")).items():
        key, variation = f"variations.{name}", _mapping(value)
        of = variation.get("of")
        if name in ("base", "base-lora", "adapter", "merged") or name in _mapping(scenario.get("endpoints")):
            yield Finding(key, f"`{name}` is the name of a variant, a server or an endpoint; give the variation another one")
        for given, owners in _KEYS_OF.items():
            if variation.get(given) is not None and isinstance(of, str) and of not in owners:
                yield Finding(f"{key}.{given}", f"belongs to `of: {' or '.join(owners)}`; remove it")
        needs_adapter = of in ("base+lora", "adapter") and variation.get("adapter") is None
        if (of in ("base", "base+lora", "adapter") and not has["base"]) or (needs_adapter and not has["adapter"]):
            yield Finding(key, f"`of: {of}` needs `models.base`{' and `models.adapter`' if of != 'base' else ''}; add them")
        if of == "merged" and not has["merged"] and not (has["base"] and has["adapter"]):
            yield Finding(key, "`of: merged` needs `models.merged`, or `models.base` and `models.adapter` to merge")
        if variation.get("merge_dtype") is not None and has["merged"]:
            yield Finding(f"{key}.merge_dtype", "`models.merged` is merged already; remove one of them")
        yield from _in_use(f"{key}.adapters_in_use", variation, scenario)


def _in_use(key: str, variation: Mapping[str, Any], scenario: Mapping[str, Any]) -> Iterator[Finding]:
    count, spread = variation.get("adapters_in_use"), _mapping(_mapping(scenario.get("load")).get("adapters"))
    if not isinstance(count, int) or variation.get("of") != "adapter":
        return
    there = 1 + len(_mapping(_mapping(scenario.get("models")).get("adapters")))
    if not spread:
        yield Finding(key, "says over how many adapters requests are spread; say how in `load.adapters`")
    elif spread.get("spread") == "weighted":
        yield Finding(key, "weights name all adapters; spread over some of them uniformly or by zipf")
    if count > there:
        yield Finding(key, f"the scenario has {there} adapters (`models.adapter` and `models.adapters`); add more, or use fewer")
    if variation.get("adapter") is not None:
        yield Finding(key, "`adapter` is alone on its server; remove one of them")


def _adapters(scenario: Mapping[str, Any]) -> Iterator[Finding]:
    models, spread = _mapping(scenario.get("models")), _mapping(_mapping(scenario.get("load")).get("adapters"))
    further = [str(name) for name in _mapping(models.get("adapters"))]
    if further and models.get("adapter") is None:
        yield Finding("models.adapters", "these are served beside `models.adapter`, the one that is merged and checked; add it")
    for name in sorted(set(further) & {"base", "adapter", "merged"}):
        yield Finding(f"models.adapters.{name}", f"`{name}` is the name of a variant; give the adapter another one")
    kind = spread.get("spread")
    if kind is None:
        return
    served = [*_list(scenario.get("variants")), *(_mapping(value).get("of") for value in _mapping(scenario.get("variations")).values())]
    if "adapter" not in served or not further:
        yield Finding("load.adapters", "spreads the requests of variant `adapter` over `models.adapters`; add both, or remove it")
    for name, owner in (("exponent", "zipf"), ("weights", "weighted")):
        if (spread.get(name) is not None) != (kind == owner):
            yield Finding(f"load.adapters.{name}", f"belongs to `spread: {owner}`, which needs it")
    weights = _mapping(spread.get("weights"))
    if kind == "weighted" and weights and set(weights) != {"adapter", *further}:
        yield Finding("load.adapters.weights", f"expected one weight for each of {', '.join(['adapter', *further])}")


def _prompts(scenario: Mapping[str, Any]) -> Iterator[Finding]:
    """Exactly one source of prompts, and turns that it can give."""
    load = _mapping(scenario.get("load"))
    if not load:
        return
    given = [name for name in ("data", "synthetic", "mixture") if load.get(name) is not None]
    stages = _list(load.get("stages"))
    only_traces = bool(stages) and not load.get("search") and all(_mapping(stage).get("arrival") == "trace" for stage in stages)
    if only_traces and given:
        yield Finding(f"load.{given[0]}", "no stage would send these prompts: trace stages send those of their traces; remove it, or add another stage")
    if not given and not only_traces:
        yield Finding("load.data", "no prompts; give exactly one of `data`, `synthetic` and `mixture`")
    elif len(given) > 1:
        yield Finding(f"load.{given[1]}", f"`{given[0]}` is given too; give exactly one of `data`, `synthetic` and `mixture`")
    chat = _mapping(scenario.get("prompt")).get("api") != "completions"
    parts = _list(load.get("mixture"))
    if parts and load.get("conversation") is not None:
        yield Finding("load.conversation", "each part of a mixture has its own; move it into the parts")
    elif not parts:
        yield from _turns("load", load, chat=chat)
    for index, part in enumerate(parts):
        key, source = f"load.mixture[{index}]", _mapping(part)
        if source and (source.get("data") is None) == (source.get("synthetic") is None):
            yield Finding(key, "expected exactly one of `data` and `synthetic` beside `weight`")
        yield from _turns(key, source, chat=chat)


def _turns(key: str, source: Mapping[str, Any], *, chat: bool) -> Iterator[Finding]:
    conversation = _mapping(source.get("conversation"))
    turns = conversation.get("turns")
    if conversation and not chat:
        yield Finding(f"{key}.conversation", "turns are chat messages; remove `prompt.api: completions`, or the conversation")
    if source.get("data") is not None and isinstance(turns, int):
        yield Finding(f"{key}.conversation.turns", "with `data` expected the name of the column that holds a row's turns")
    if source.get("synthetic") is not None and isinstance(turns, str):
        yield Finding(f"{key}.conversation.turns", "with `synthetic` expected a number of turns")


ARRIVAL_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "closed": (("concurrency",), ("think_time_s", "requests")),
    "constant": (("rate_per_s",), ("requests",)),
    "poisson": (("rate_per_s",), ("requests",)),
    "gamma": (("rate_per_s", "burstiness"), ("requests",)),
    "ramp": (("rate_per_s", "to_rate_per_s"), ()),
    "step": (("rate_per_s", "to_rate_per_s", "steps"), ()),
    "spike": (("rate_per_s", "to_rate_per_s", "spike_at_s", "spike_s"), ()),
    "sine": (("rate_per_s", "amplitude", "period_s"), ()),
    "trace": (("trace",), ()),
}
"""Keys of a stage that belong to an arrival: those it needs, and those it may have. A key that stands nowhere here fits every arrival."""
_MEANING = {
    "concurrency": "how many requests to keep in flight",
    "rate_per_s": "arrivals per second",
    "burstiness": "shape of the gamma distribution; 1 is Poisson, below 1 burstier",
    "to_rate_per_s": "the rate to go to",
    "steps": "how many levels",
    "spike_at_s": "when the spike begins, from the start of the window",
    "spike_s": "how long the spike lasts",
    "amplitude": "how far the rate swings, as a share of it",
    "period_s": "length of one period",
    "trace": "a block with the `path` of the trace",
}
_SPIKE_KEYS = (("spike_at_s", None), ("spike_s", None), ("duration_s", DEFAULT_DURATION_S))


def _stages(scenario: Mapping[str, Any]) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, value in enumerate(_list(_mapping(scenario.get("load")).get("stages"))):
        stage = _mapping(value)
        key = f"load.stages[{index}]"
        name = stage.get("name")
        if isinstance(name, str) and name in seen:
            yield Finding(f"{key}.name", f"another stage is named `{name}`; give each its own name")
        seen.add(str(name))
        yield from _arrival_keys(key, stage)
        yield from _spike(key, stage)
        if stage.get("requests") is not None and stage.get("duration_s", DEFAULT_DURATION_S) != DEFAULT_DURATION_S:
            yield Finding(f"{key}.requests", "the window ends with so many requests or after `duration_s`; give one of them")
        yield from _trace_part(key, stage)


def _arrival_keys(key: str, stage: Mapping[str, Any]) -> Iterator[Finding]:
    """Keys that the stage's arrival needs and lacks, and keys that belong to another arrival."""
    arrival = stage.get("arrival")
    if not isinstance(arrival, str) or arrival not in ARRIVAL_KEYS:
        return
    needed, optional = ARRIVAL_KEYS[arrival]
    for name in needed:
        if stage.get(name) is None:
            yield Finding(f"{key}.{name}", f"arrival `{arrival}` needs it: {_MEANING[name]}")
    for name in dict.fromkeys(name for keys in ARRIVAL_KEYS.values() for part in keys for name in part):
        if stage.get(name) is not None and name not in (*needed, *optional):
            owners = ", ".join(f"`{owner}`" for owner, keys in ARRIVAL_KEYS.items() if name in (*keys[0], *keys[1]))
            limit = "; use `max_in_flight` for a limit" if name == "concurrency" else ""
            yield Finding(f"{key}.{name}", f"arrival `{arrival}` has no use for it, it belongs to {owners}; remove it or change `arrival`{limit}")


def _spike(key: str, stage: Mapping[str, Any]) -> Iterator[Finding]:
    at_s, length_s, window_s = (_number(stage.get(name, default)) for name, default in _SPIKE_KEYS)
    if stage.get("arrival") == "spike" and at_s is not None and length_s is not None and window_s is not None and at_s + length_s > window_s:
        yield Finding(f"{key}.spike_s", f"the spike would end {at_s + length_s:g} s after the start of a window of {window_s:g} s; let it end inside")


def _trace_part(key: str, stage: Mapping[str, Any]) -> Iterator[Finding]:
    trace, output, arrival = _mapping(stage.get("trace")), _mapping(stage.get("output")), stage.get("arrival")
    if output.get("trace") is not None and arrival != "trace":
        yield Finding(f"{key}.output.trace", f"arrival `{arrival}` replays no trace; give `fixed`, `max_tokens` or `distribution`")
    if output.get("distribution") is not None and arrival == "trace":
        yield Finding(f"{key}.output.distribution", "a trace has lengths of its own; give `trace: fixed` or `trace: max_tokens`, or one length for all")
    from_s, until_s = _number(trace.get("from_s", 0.0)), _number(trace.get("until_s"))
    if from_s is not None and until_s is not None and until_s <= from_s:
        yield Finding(f"{key}.trace.until_s", f"{until_s:g} s is not after `from_s` ({from_s:g} s); correct one of them")


def _number(value: Any) -> float | None:
    """None for what is no number: the models refuse it."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
