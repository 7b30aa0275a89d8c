"""What is put to a server before it is driven, once per variant: the reference check, then the quality spot-check.

Both ask whole answers while nothing else asks. What has been checked stands in the journal and is not asked again on resume.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from perfbench.errors import EndpointError
from perfbench.prepare import Prepared
from perfbench.quality.ask import Target
from perfbench.quality.contamination import check_contamination
from perfbench.quality.fairness import not_comparable
from perfbench.quality.judge import ask_judge, check_judge, questions
from perfbench.quality.judge_apply import with_verdicts
from perfbench.quality.model_scores import has_models, with_model_scores
from perfbench.quality.reference import Subject, ask_served, mismatch_error, reference_check
from perfbench.quality.spot_check import spot_check
from perfbench.quality.token_answers import ask_tokens
from perfbench.quality.under_load import BusyAnswer, comparable_stages, sampled, score_busy_and_idle
from perfbench.records import ReferenceCheck
from perfbench.results import RunFolder
from perfbench.scenario import Scenario
from perfbench.serve.together import RunningServer

OnCount = Callable[[int, int], None]
"""How many of how many are done."""

_REFERENCE_CONCURRENCY = 4
_REFERENCE_MAX_TOKENS = 64
"""Enough to tell rounding from nonsense, and short enough that the reference scores them in seconds on a CPU."""


def _target(prepared: Prepared, server: RunningServer, variant: str) -> Target:
    timeout_s = prepared.scenario.load.request_timeout_s
    return Target(url=server.url, model=server.plan.served_names[variant], api_key_env=server.api_key_env, timeout_s=timeout_s)


def check_served_answers(folder: RunFolder, prepared: Prepared, servers: Sequence[RunningServer]) -> None:
    """Let transformers score a few answers of every variant that these servers host and that has not been checked.

    Raises ReferenceMismatchError with both texts when a variant answers what its own weights do not say.
    """
    subjects: list[Subject] = []
    skipped: list[ReferenceCheck] = []
    checked = folder.finished("reference_check")
    for server in servers:
        for variant in server.plan.served_names:
            if variant in checked:
                continue
            subject = _subject(prepared, server, variant)
            if isinstance(subject, str):
                skipped.append(ReferenceCheck(variant=variant, verdict="skipped", reason=subject))
            else:
                subjects.append(subject)
    found = [*skipped, *reference_check(subjects)]
    for check in found:
        folder.append_journal("reference_check", check.variant, check)
    for check in found:
        if check.verdict == "fail":
            raise mismatch_error(check)


def _subject(prepared: Prepared, server: RunningServer, variant: str) -> Subject | str:
    """What the reference has to score, or why it cannot."""
    quality = prepared.scenario.quality
    wanted = quality.reference_prompts if quality is not None else 4
    if server.plan.model_path is None:
        return "an endpoint's weights are not here"
    if wanted == 0:
        return "`quality.reference_prompts` is 0"
    prompts = (prepared.held_out.prompts if prepared.held_out else prepared.driven_prompts)[:wanted]
    answers = ask_served(
        _target(prepared, server, variant), prompts, max_tokens=_REFERENCE_MAX_TOKENS, concurrency=_REFERENCE_CONCURRENCY
    )
    if not answers:
        return "the server gives no token ids"
    adapter = str(server.plan.lora) if server.plan.lora is not None and prepared.scenario.kinds.get(variant) == "adapter" else None
    trusted = prepared.scenario.models.trust_remote_code
    return Subject(variant=variant, model_path=str(server.plan.model_path), adapter_path=adapter, answers=answers, trust_remote_code=trusted)


def skip_reference_check(folder: RunFolder, variants: Collection[str]) -> None:
    """Say aloud, in the journal and so in every report, that the user left the check out."""
    for variant in variants:
        folder.append_journal("reference_check", variant, ReferenceCheck(variant=variant, verdict="skipped", reason="--no-reference-check"))


def check_held_out(folder: RunFolder, prepared: Prepared, on_rows: Callable[[int], None] | None = None) -> frozenset[str] | None:
    """Ids of held-out samples that also stand in the training data; None where the scenario names none. Asks no server."""
    quality = prepared.scenario.quality
    if quality is None or prepared.held_out is None:
        return None
    if prepared.held_out.scorer.sandbox is not None and "" not in folder.finished("sandbox"):
        folder.append_journal("sandbox", data=prepared.held_out.scorer.sandbox())
    ids = [prompt.prompt_id for prompt in prepared.held_out.prompts]
    contamination = check_contamination(quality, prepared.scenario.prompt, ids, prepared.held_out.rows, on_rows)
    if contamination is None:
        return None
    if "" not in folder.finished("contamination"):
        folder.append_journal("contamination", data=contamination)
    return contamination.flagged_ids


def check_judge_answers(scenario: Scenario) -> None:
    """Ask the judge one word before anything starts. Raises EndpointError for one that does not answer."""
    if scenario.quality is not None and scenario.quality.judge is not None:
        check_judge(scenario.quality.judge)


def score_by_models(folder: RunFolder, prepared: Prepared, on_start: Callable[[], None]) -> None:
    """Lay the scores of local models over every variant's answers; nothing where the task names none. Runs after all load: it takes the CPU."""
    quality = prepared.scenario.quality
    if quality is None or prepared.held_out is None or not has_models(quality.task) or folder.finished("model_scored"):
        return
    on_start()
    names = prepared.scenario.variant_names
    if prepared.load_rows is not None:
        busy, _ = with_model_scores(quality.task, {name: folder.under_load(name) for name in names}, prepared.load_rows.rows_by_id)
        for name in names:
            if busy[name]:
                folder.write_under_load(name, busy[name])
    records, how = with_model_scores(quality.task, {name: folder.quality(name) for name in names}, prepared.held_out.rows_by_id)
    for name in names:
        if records[name]:
            folder.write_quality(name, records[name])
    for metric, told in how.items():
        folder.append_journal("model_scored", metric, told)


def judge_quality(folder: RunFolder, prepared: Prepared, on_variant: Callable[[str], None], on_count: OnCount) -> None:
    """Let the judge look at every variant's answers; nothing without a judge. Runs after all load: the judge may share the machine.

    A judge that has gone leaves its metrics unrun, and the run goes on: everything else has been measured.
    """
    quality = prepared.scenario.quality
    if quality is None or quality.judge is None or prepared.held_out is None:
        return
    rows = prepared.held_out.rows_by_id
    base = folder.quality("base")
    for variant in prepared.scenario.variant_names:
        records = folder.quality(variant)
        if not records or variant in folder.finished("judged"):
            continue
        on_variant(variant)
        fair = base if base and variant != "base" and not_comparable(base, records) is None else None
        try:
            verdicts = ask_judge(quality.judge, questions(quality, records, rows, fair), on_count)
        except EndpointError as error:
            folder.append_journal("judged", variant, {"error": error.message})
            continue
        folder.write_judged(variant, verdicts)
        folder.write_quality(variant, with_verdicts(records, verdicts, quality))
        folder.append_journal("judged", variant, {"verdicts": len(verdicts), "unread": sum(verdict.verdict is None for verdict in verdicts)})


def check_quality(
    folder: RunFolder, prepared: Prepared, server: RunningServer, variant: str, contaminated: frozenset[str] | None, on_count: OnCount
) -> None:
    """Ask one variant the held-out samples, score and store them; nothing where that has been done, or where there are none."""
    scenario: Scenario = prepared.scenario
    if scenario.quality is None or prepared.held_out is None or variant in folder.finished("quality_finished"):
        return
    records = spot_check(
        prepared.held_out, scenario.quality, scenario.decoding, _target(prepared, server, variant),
        variant=variant, contaminated=contaminated, on_progress=on_count,
    )  # fmt: skip
    folder.write_quality(variant, records)
    folder.append_journal("quality_finished", variant, {"n": len(records), "passed": sum(record.passed is True for record in records)})


def check_fidelity(folder: RunFolder, prepared: Prepared, server: RunningServer, variant: str, on_count: OnCount) -> None:
    """Ask adapter and merged variants held-out prompts greedily, token by token; nothing where the run has not both, or has no held-out samples."""
    scenario, quality = prepared.scenario, prepared.scenario.quality
    if quality is None or prepared.held_out is None or not quality.fidelity_prompts or variant not in fidelity_variants(scenario):
        return
    if variant in folder.finished("fidelity_asked"):
        return
    answers = ask_tokens(
        _target(prepared, server, variant), prepared.held_out.prompts[: quality.fidelity_prompts], scenario.decoding,
        max_tokens=quality.max_tokens, concurrency=quality.concurrency, on_progress=on_count,
    )  # fmt: skip
    folder.write_token_answers(variant, answers)
    folder.append_journal("fidelity_asked", variant, {"n": len(answers)})


def fidelity_variants(scenario: Scenario) -> frozenset[str]:
    """The adapter and everything merged from it, where both are served; else none."""
    merged = {variant for variant, kind in scenario.kinds.items() if kind == "merged"}
    return frozenset({"adapter", *merged}) if merged and "adapter" in scenario.variants else frozenset()


def check_under_load(folder: RunFolder, prepared: Prepared, server: RunningServer, variant: str, on_count: OnCount) -> None:
    """When all trials of a variant have been driven: ask some of their prompts again, with the server idle, and score both answers."""
    scenario = prepared.scenario
    quality, load_rows = scenario.quality, prepared.load_rows
    driven = {trial.trial: trial.stage for trial in prepared.trials if trial.variant == variant}
    if quality is None or quality.under_load is None or load_rows is None or variant in folder.finished("under_load"):
        return
    if not driven.keys() <= folder.finished("trial_finished").keys() | folder.finished("trial_skipped").keys():
        return
    stages = comparable_stages(scenario.load.stages, quality)
    trials = {trial: stage for trial, stage in driven.items() if stage in stages}
    answers = sampled(busy_answers(folder, trials), quality.under_load, scenario.load.seed)
    if not answers:
        return
    records = score_busy_and_idle(
        load_rows, quality, scenario.decoding, answers, _target(prepared, server, variant), variant=variant, on_progress=on_count
    )
    folder.write_under_load(variant, records)
    folder.append_journal("under_load", variant, {"prompts": len({answer.prompt_id for answer in answers}), "answers": len(answers)})


def busy_answers(folder: RunFolder, trials: Mapping[str, str]) -> list[BusyAnswer]:
    """Whole answers of some trials (trial -> stage), in the order in which they were sent."""
    import polars as pl

    wanted = folder.records().filter(pl.col("trial").is_in(list(trials)) & (pl.col("status") == "ok") & pl.col("output_text").is_not_null())
    rows = wanted.select("trial", "prompt_id", "output_text", "finish_reason").collect()
    order = wanted.select("sent_ns").collect()["sent_ns"].arg_sort()
    return [
        BusyAnswer(stage=trials[row["trial"]], prompt_id=row["prompt_id"], output=row["output_text"], finish_reason=row["finish_reason"])
        for row in rows[order].to_dicts()
    ]
