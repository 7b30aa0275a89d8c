"""A run folder with every part that a report reads, written through perfbench.results: four variants, two repeats, three stages.

Records, telemetry and answers are drawn with a fixed seed; the summary's figures are taken from these records, its decisions are set by
hand. Some answers, prompts and messages try to break out of whatever shows them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from perfbench.records import (
    SCHEMA_VERSION,
    AtSlo,
    Audit,
    AuditCheck,
    Autoscaled,
    BreakEven,
    BreakEvenPoint,
    Comparison,
    CostSummary,
    Demand,
    Deployment,
    Estimate,
    Manifest,
    MemorySummary,
    MetricSummary,
    ModelInfo,
    Plan,
    QualityRecord,
    QualitySummary,
    Rates,
    Recommendation,
    Record,
    ReferenceCheck,
    RequestCounts,
    Sample,
    ServerInfo,
    Simulated,
    SteadyState,
    Summary,
    TrialOutcome,
    TrialPlan,
    TrialSummary,
    VariantPlan,
    VariantSummary,
)
from perfbench.result_tables import write_records, write_samples
from perfbench.results import RunFolder

VARIANTS = ("base", "base+lora", "adapter", "merged")
SERVERS = {"base": "plain", "base+lora": "lora", "adapter": "lora", "merged": "merged"}
STAGES = {"closed-1": ("closed", 1), "closed-4": ("closed", 4), "poisson-2": ("poisson", None)}
TPOT_S = {"base": 0.021, "base+lora": 0.024, "adapter": 0.031, "merged": 0.021}
WARMUP_S, WINDOW_S, DRAIN_S = 5.0, 30.0, 4.0
GIB = 2**30

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror=\"window.hacked = 1\">",
    "\"><svg onload=window.hacked=1>",
    "{{7*7}} {% raw %} ${7*7}",
    "<!-- <script> \u2028 \u2029 ]]>",
    "a | b | `code` **bold** [link](javascript:window.hacked=1)\n\n# heading",
    "abc \u202egnp.exe \u2066 שלום עולם مرحبا",
    "nul \x00 escape \x1b[31mred\x1b[0m bell \x07",
    "very long " + "x" * 30_000,
    "",
)  # fmt: skip


def write_run(parent: Path, *, requests_factor: int = 1) -> RunFolder:
    """Write the folder; `requests_factor` drives each stream so many times as fast, for large runs."""
    folder = RunFolder.create(parent, "intents")
    random = np.random.default_rng(7)
    plans = [
        TrialPlan(trial=f"{variant}.{stage}.r{repeat}", variant=variant, stage=stage, repeat=repeat, arrival=STAGES[stage][0])
        for variant in VARIANTS for stage in STAGES for repeat in (1, 2)
    ]  # fmt: skip
    manifest = _manifest(folder.path.name, plans)
    folder.write_manifest(manifest)
    for server in dict.fromkeys(SERVERS.values()):
        variants = [variant for variant in VARIANTS if SERVERS[variant] == server]
        info = ServerInfo(name=server, variants=variants, url="http://127.0.0.1:8000", argv=["python", "-m", "vllm"], env={}, kv_cache_tokens=46_592)
        folder.append_journal("server_ready", server, info)
    trials: dict[str, list[TrialSummary]] = {variant: [] for variant in VARIANTS}
    samples: list[Sample] = []
    for number, plan in enumerate(plans):
        started_ns = (100 + 60 * number) * 1_000_000_000
        records = _records(plan, started_ns, random, requests_factor)
        write_records(folder.records_path(plan.trial, 0), records)
        folder.append_journal("trial_finished", plan.trial, _outcome(plan, started_ns, records))
        samples += _samples(plan, started_ns, random)
        trials[plan.variant].append(_trial_summary(plan, records, started_ns))
    write_samples(folder.telemetry_path("1"), samples)
    for variant in VARIANTS:
        folder.write_quality(variant, _quality_records(variant))
    folder.write_summary(_summary(folder.path.name, trials))
    return folder


def _manifest(run_id: str, plans: list[TrialPlan]) -> Manifest:
    scenario = {
        "name": "intents", "variants": list(VARIANTS),
        "models": {"base": {"path": "/models/smol", "hub": None, "revision": None}, "adapter": {"path": "/models/intents-lora", "hub": None, "revision": None}},
        "quality": {"metric": None, "margin": 0.02, "task": {"task": "extraction", "expected": "slots"}, "data": {"path": "/data/heldout.jsonl", "limit": 40}},
        "slo": {"ttft_s": {"p95": 0.8}, "tpot_s": {"p95": 0.04}}, "cost": {"server_hour_usd": 0.1},
    }  # fmt: skip
    return Manifest(
        schema_version=SCHEMA_VERSION, run_id=run_id, scenario_name="intents", scenario=scenario, scenario_file="/tmp/intents.yaml",
        scenario_text="name: intents\n# <script>window.hacked = 1</script>\nload: {}\n", command=["perfbench", "run", "intents.yaml"],
        started_utc="2026-11-24T04:00:00+00:00", perfbench_version="0.1.0", versions={"python": "3.11.7", "vllm": "0.32.0"},
        hardware={"cpu": {"model": "2 cores", "threads": 2}, "memory_bytes": 25769803776, "gpus": []}, git={"commit": "0123abc", "dirty": "no"},
        hashes={"prompts": "a" * 64, "template": "b" * 64}, trials=plans,
        models={"base": ModelInfo(path="/models/smol", revision=None, architecture="LlamaForCausalLM", dtype="bfloat16", parameters=134_515_008,
                                  weight_bytes=269_060_552, sha256="c" * 64)},
        not_measured={"vram_bytes": "no NVML library on this machine", "energy_j_per_request": "no NVML library on this machine"},
    )  # fmt: skip


def _records(plan: TrialPlan, started_ns: int, random: np.random.Generator, factor: int) -> list[Record]:
    arrival, streams = STAGES[plan.stage]
    tpot = TPOT_S[plan.variant] * (1.6 if plan.stage == "closed-4" else 1.2 if arrival == "poisson" else 1.0)
    moments: list[float] = []
    if arrival == "poisson":
        moments = np.cumsum(random.exponential(1 / (2.0 * factor), int(2 * factor * (WARMUP_S + WINDOW_S)))).tolist()
    else:
        for stream in range((streams or 1) * factor):
            moments += np.arange(0.01 * stream, WARMUP_S + WINDOW_S, 24 * tpot + 0.15).tolist()
    records = []
    for index, moment in enumerate(sorted(moments)):
        ttft = 0.12 + 0.08 * random.gamma(2.0) + (0.25 if plan.stage == "closed-4" else 0.0)
        tokens = int(random.integers(12, 40))
        token_s = tpot * random.normal(1.0, 0.04)
        scheduled = started_ns + round(moment * 1e9)
        sent = scheduled + round(random.exponential(0.0003) * 1e9)
        first = sent + round(ttft * 1e9)
        last = first + round((tokens - 1) * token_s * 1e9)
        failed = plan.variant == "adapter" and index % 41 == 40
        records.append(
            Record(
                request_id=f"{plan.trial}-{index}", trial=plan.trial, variant=plan.variant, worker=0, prompt_id=HOSTILE[1] if index == 3 else str(index),
                scheduled_ns=scheduled, sent_ns=sent, first_token_ns=None if failed else first, last_token_ns=None if failed else last, end_ns=last,
                chunk_ns=[] if failed else [first, last], chunk_tokens=None, prompt_tokens=80, output_tokens=None if failed else tokens, cached_tokens=0,
                status="failed" if failed else "ok", error="server" if failed else None, error_message=HOSTILE[0] if failed else None, stamp="kernel",
            )
        )  # fmt: skip
    return records


def _outcome(plan: TrialPlan, started_ns: int, records: list[Record]) -> TrialOutcome:
    failed = sum(record.status == "failed" for record in records)
    moments = [started_ns + round(offset * 1e9) for offset in (WARMUP_S, WARMUP_S + WINDOW_S, WARMUP_S + WINDOW_S + DRAIN_S)]
    return TrialOutcome(
        trial=plan.trial, started_ns=started_ns, measure_from_ns=moments[0], measure_until_ns=moments[1], ended_ns=moments[2],
        requests_ok=len(records) - failed, requests_failed=failed,
    )  # fmt: skip


def _samples(plan: TrialPlan, started_ns: int, random: np.random.Generator) -> list[Sample]:
    samples = []
    for step in range(int((WARMUP_S + WINDOW_S + DRAIN_S) * 2)):
        running = float(random.integers(1, 5))
        values = (("kv_cache_usage_perc", running * 0.03, "share"), ("num_requests_running", running, "requests"), ("num_requests_waiting", 0.0, "requests"))
        t_ns = started_ns + step * 500_000_000
        labels = {"server": SERVERS[plan.variant], "variants": plan.variant}
        samples += [Sample(t_ns=t_ns, source="server", name=name, value=value, unit=unit, labels=labels) for name, value, unit in values]
    return samples


def _metric(values: list[float]) -> MetricSummary:
    array = np.array(values)
    half = float(1.96 * array.std() / max(len(values), 1) ** 0.5)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(array, [50, 90, 95, 99]))
    mean = float(array.mean())
    return MetricSummary(
        unit="s", mean=mean, p50=p50, p90=p90, p95=p95, p99=p99 if len(values) >= 100 else None, ci95_low=mean - half, ci95_high=mean + half, n=len(values)
    )


def _trial_summary(plan: TrialPlan, records: list[Record], started_ns: int) -> TrialSummary:
    begin, until = started_ns + WARMUP_S * 1e9, started_ns + (WARMUP_S + WINDOW_S) * 1e9
    measured = [record for record in records if begin <= record.scheduled_ns < until]
    ok = [record for record in measured if record.status == "ok"]
    metrics = {
        "ttft_s": _metric([(record.first_token_ns - record.sent_ns) / 1e9 for record in ok]),
        "ttft_scheduled_s": _metric([(record.first_token_ns - record.scheduled_ns) / 1e9 for record in ok]),
        "tpot_s": _metric([(record.last_token_ns - record.first_token_ns) / (record.output_tokens - 1) / 1e9 for record in ok]),
        "e2e_s": _metric([(record.last_token_ns - record.sent_ns) / 1e9 for record in ok]),
        "e2e_scheduled_s": _metric([(record.last_token_ns - record.scheduled_ns) / 1e9 for record in ok]),
    }
    limits = {
        "ttft_s": {"percentile": 95, "limit": 0.8, "measured": metrics["ttft_s"].p95, "met": metrics["ttft_s"].p95 <= 0.8},
        "tpot_s": {"percentile": 95, "limit": 0.04, "measured": metrics["tpot_s"].p95, "met": metrics["tpot_s"].p95 <= 0.04},
    }
    rate = len(ok) / WINDOW_S
    suspect = plan.variant == "base+lora" and plan.stage == "poisson-2" and plan.repeat == 2
    return TrialSummary(
        stage=plan.stage, repeat=plan.repeat, arrival=plan.arrival,
        audit=_audit(suspect=suspect, answered=len(ok)), steady=_steady(plan),
        requests=RequestCounts(ok=len(ok), failed=len(measured) - len(ok)), metrics=metrics,
        rates=Rates(requests_per_s=rate, output_tokens_per_s=sum(record.output_tokens for record in ok) / WINDOW_S, goodput_per_s=0.97 * rate),
        slo={"met": all(limit["met"] for limit in limits.values()), "limits": limits},
    )  # fmt: skip


def _audit(*, suspect: bool, answered: int) -> Audit:
    sentence = "The client used 0.93 of its core: latencies may be its own."
    checks = [
        AuditCheck(name="answered", verdict="valid", sentence=f"{answered} requests were answered", measured=answered, unit="requests"),
        AuditCheck(
            name="client CPU", verdict="suspect" if suspect else "valid", sentence=sentence if suspect else "the load process used 0.20 of a core",
            measured=0.93 if suspect else 0.2, unit="cores", suspect_above=0.7, void_above=0.95,
        ),
        AuditCheck(name="failed", verdict="valid", sentence=f"no request failed {HOSTILE[1]}", measured=0.0, unit="share", suspect_above=0.01, void_above=0.1),
    ]  # fmt: skip
    return Audit(verdict="suspect" if suspect else "valid", reasons=[sentence] if suspect else [], checks=checks)


def _steady(plan: TrialPlan) -> SteadyState:
    if plan.arrival != "closed":
        return SteadyState(verdict="cannot tell", sentence="60 requests are too few to tell whether there is a steady state; it takes 160")
    if (plan.variant, plan.stage) != ("adapter", "closed-4"):
        return SteadyState(verdict="steady", sentence="no trend in 10 slices", slices=10, slice_s=3.0, kept_from_s=0.0, kept_until_s=WINDOW_S)
    return SteadyState(
        verdict="steady", sentence="steady from 6 s of the window on", slices=10, slice_s=3.0, kept_from_s=6.0, kept_until_s=WINDOW_S, cut_s=6.0,
        level_shift="the TPOT's p50 steps by +12% 6 s into the window (p = 0.002)" if plan.repeat == 2 else None,
    )  # fmt: skip


def _quality_records(variant: str) -> list[QualityRecord]:
    records = []
    for index in range(60):
        fine_tuned = variant in ("adapter", "merged")
        hostile = HOSTILE[index] if index < len(HOSTILE) else None
        passed = hostile is None and (index % 20 != 4 if fine_tuned else index % 3 == 0)
        output = hostile if hostile is not None else '{"intent": "HassTurnOn", "name": "lamp"}' if passed else '{"intent": "HassTurn'
        records.append(
            QualityRecord(
                sample_id=HOSTILE[2] if index == 2 else f"s{index:03}", variant=variant,
                prompt=msgspec.json.encode([{"role": "user", "content": hostile or f"turn on lamp {index}"}]).decode(), prompt_sha256=f"{index:064}",
                expected='{"intent": "HassTurnOn", "name": "lamp"}', output=None if variant == "base" and index == 15 else output,
                error="timed out after 120 s <b>" if variant == "base" and index == 15 else None, finish_reason="stop", prompt_tokens=80, output_tokens=20,
                scores={"exact_match": float(passed)}, passed=passed and not (variant == "base" and index == 15),
                label="correct answer" if passed else "wrong intent" if index % 2 else "invalid JSON", contaminated=index == 21,
                slices={"room": ("den", "hall", HOSTILE[1])[index % 3]}, details={"judge": HOSTILE[0]} if index == 24 else {},
            )
        )  # fmt: skip
    return records


CONTAMINATION = {
    "samples": 40, "training_rows": 60, "ngram": [], "fuzzy": [],
    "exact": [{"sample_id": "s021", "text": "Turn on the lamp", "training_row": 7, "training_text": "turn ON the lamp!", "ratio": None}],
}  # fmt: skip


def _quality(variant: str) -> QualitySummary:
    records = _quality_records(variant)
    share = sum(record.passed for record in records) / len(records)
    labels: dict[str, int] = {}
    for record in records:
        labels[record.label] = labels.get(record.label, 0) + 1
    verdicts = {"base": "reference", "base+lora": "pass", "adapter": "pass", "merged": "pass"}
    return QualitySummary(
        verdict=verdicts[variant], reason="exact_match lies above base by more than the margin of 2.0 %", n=len(records),
        metrics={"exact_match": Estimate(value=share, ci95_low=share - 0.09, ci95_high=share + 0.06), "json_valid": Estimate(value=0.9)}, labels=labels,
        regressions=None if variant == "base" else 1, improvements=None if variant == "base" else 30, metric="exact_match",
    )  # fmt: skip


def _comparison(left: str, right: str, metric: str, stage: str, difference: float, half: float, start: float, better: str) -> Comparison:
    tells = abs(difference) > half
    verdict = "cannot tell" if not tells else "better" if (difference < 0) == (better == "lower") else "worse"
    return Comparison(
        left=left, right=right, metric=metric, stage=stage, difference=difference, ci95_low=difference - half, ci95_high=difference + half,
        relative=difference / start, n=57, verdict=verdict,
    )  # fmt: skip


def _comparisons(trials: dict[str, list[TrialSummary]]) -> list[Comparison]:
    def mean(variant: str, stage: str, metric: str) -> float:
        chosen = [trial for trial in trials[variant] if trial.stage == stage]
        values = [trial.rates.output_tokens_per_s if metric == "output_tokens_per_s" else trial.metrics[metric].mean for trial in chosen]
        return sum(values) / len(values)

    pairs = (("base", "base+lora"), ("base", "adapter"), ("base", "merged"), ("base+lora", "adapter"), ("adapter", "merged"))
    return [
        _comparison(left, right, metric, stage, mean(right, stage, metric) - mean(left, stage, metric), half, mean(left, stage, metric), better)
        for left, right in pairs for stage in STAGES
        for metric, half, better in (("ttft_s", 0.02, "lower"), ("tpot_s", 0.001, "lower"), ("output_tokens_per_s", 2.0, "higher"))
    ]  # fmt: skip


def _memory(variant: str) -> MemorySummary:
    lora = SERVERS[variant] == "lora"
    weights, lora_bytes, kv = 269_060_552, 31_457_280 if lora else 0, GIB
    total = int(2.2 * GIB) + lora_bytes
    return MemorySummary(
        vram_bytes_peak=None, vram_bytes_steady=None, host_rss_bytes_peak=total, kv_cache_tokens=46_592,
        ledger={"weights_bytes": weights, "kv_cache_bytes": kv, "lora_bytes": lora_bytes, "rest_bytes": total - weights - kv - lora_bytes},
        shared_with=[other for other in VARIANTS if SERVERS[other] == SERVERS[variant] and other != variant],
    )  # fmt: skip


def _cost(variant: str) -> CostSummary:
    goodput = 2.4 * 0.021 / TPOT_S[variant]
    price = 0.1 / 3600 / goodput
    return CostSummary(
        usd_per_request=price, usd_per_million_output_tokens=price / 26 * 1e6, usd_per_correct_request=price / 0.8, usd_per_request_raw=price * 0.97,
        basis=f"$0.10 an hour for the machine, {goodput:.2f} good requests per second at stage closed-4",
    )  # fmt: skip


def _at_slo(trials: list[TrialSummary]) -> AtSlo | None:
    goodput: dict[str, list[float]] = {}
    for trial in trials:
        goodput.setdefault(trial.stage, []).append(trial.rates.goodput_per_s or 0.0)
    met = [stage for stage in goodput if all(trial.slo is not None and trial.slo["met"] for trial in trials if trial.stage == stage)]
    best = max(met, key=lambda stage: sum(goodput[stage]) / len(goodput[stage]), default=None)
    return None if best is None else AtSlo(stage=best, goodput_per_s=Estimate(value=sum(goodput[best]) / len(goodput[best])))


def _summary(run_id: str, trials: dict[str, list[TrialSummary]]) -> Summary:
    variants = {
        variant: VariantSummary(
            trials=trials[variant], memory=_memory(variant), cost=_cost(variant), quality=_quality(variant), at_slo=_at_slo(trials[variant])
        )
        for variant in VARIANTS
    }
    reasons = ["merged answers as well as adapter: exact_match 78.3 % and 78.3 %.", "merged is faster per token: 21.1 ms against 31.2 ms at closed-1."]
    check = ReferenceCheck(
        variant="base", verdict="pass", reason="rounding only", prompts=4, tokens=96, mean_logprob=-0.21, worst_logprob=-3.1, top1_share=0.979,
        examples=[{"prompt": "turn on the lamp", "served": HOSTILE[0], "reference": HOSTILE[5]}],
    )  # fmt: skip
    skipped = ReferenceCheck(variant="merged", verdict="skipped", reason="the reference does not fit this machine")
    return Summary(
        schema_version=SCHEMA_VERSION, run_id=run_id, scenario="intents", valid=True, variants=variants, comparisons=_comparisons(trials),
        recommendation=Recommendation(serve="merged", reasons=reasons), plan=None, reference=[check, skipped],
        contamination=CONTAMINATION, not_measured={"vram_bytes": "no NVML library on this machine"},
        slo={"ttft_s": {"p95": 0.8}, "tpot_s": {"p95": 0.04}},
    )  # fmt: skip


def _deployment(replicas: int) -> Deployment:
    return Deployment(replicas=replicas, gpus=replicas, usd_per_month=100.0 * replicas, carries_per_s=10.0, hit_share=0.5)


def plan() -> Plan:
    """A plan with one variant, one without a figure, foreign words and a curve with a gap."""
    merged = VariantPlan(
        reason="", capacity_per_s=Estimate(value=5.0, ci95_low=4.0, ci95_high=6.0), capacity_from="a stage",
        replicas=Estimate(value=3, ci95_low=3, ci95_high=4),
        spare_replicas=1, gpus_per_replica=2, gpus=8, server_hour_usd=2.0, usd_per_month=Estimate(value=5840.0, ci95_low=5840.0, ci95_high=7300.0),
        usd_per_request=0.001, usd_per_million_output_tokens=2.0, usd_per_correct_request=None, utilisation_by_hour=[0.1] * 12 + [0.5] * 12,
        utilisation_at_peak_one_down=0.8,
        autoscaled=Autoscaled(replicas_by_hour=[2] * 12 + [4] * 12, usd_per_month=4000.0, saved_share=0.25, starts_per_day=2, ready_s=30.0),
        simulated=[Simulated(router="random", replicas=3, rate_per_s=12.0, stable=False, ttft_p95_s=None, tpot_p95_s=None, meets=False, in_service_p95=9.0)],
        warnings=["it is <b>far</b>"],
    )  # fmt: skip
    unknown = Deployment(replicas=None, gpus=None, usd_per_month=None, carries_per_s=None)
    curve = BreakEven(
        points=[
            BreakEvenPoint(fine_tunes=1, skew=0.0, adapters=_deployment(4), merged=_deployment(3)),
            BreakEvenPoint(fine_tunes=9, skew=0.0, adapters=unknown, merged=_deployment(18)),
        ],
        crossings=["With all alike popular, adapters need less."], rests_on=["measured"],
    )  # fmt: skip
    demand = Demand(source="a <script>", peak_per_s=12.0, mean_per_s=6.0, hourly_per_s=[6.0] * 24, requests_per_month=1e6)
    variants = {"merged": merged, "adapter": VariantPlan(reason="no stage meets the SLO")}
    return Plan(
        demand=demand, head_room=0.2, head_room_reason="why", hours_per_month=730.0, currency="EUR", variants=variants, break_even=curve, warnings=["w"]
    )
