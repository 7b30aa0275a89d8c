"""Ask one variant the held-out samples and score its answers. Never while load is running.

`prepare` renders and hashes the questions once, so that every variant gets the same; `spot_check` asks them of one server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import msgspec

from perfbench.errors import InputError
from perfbench.prompts import RenderedPrompt, render_data
from perfbench.quality.ask import Answer, Target, ask_all
from perfbench.quality.contamination import check_training
from perfbench.quality.fairness import asked_hashes
from perfbench.quality.scoring import Answered, Scored, Scorer, narrowed
from perfbench.quality.tasks import check_quality, make_scorer
from perfbench.records import QualityRecord
from perfbench.scenario.model import Decoding, Prompt
from perfbench.scenario.quality import Quality


@dataclass(frozen=True)
class HeldOut:
    """The questions of a run: prompts and rows in the file's order, how to score them, and the hashes for the manifest."""

    prompts: list[RenderedPrompt]
    rows: list[dict[str, object]]
    scorer: Scorer
    hashes: dict[str, str]
    seed: int

    @property
    def rows_by_id(self) -> dict[str, dict[str, object]]:
        """The row of every sample."""
        return {prompt.prompt_id: row for prompt, row in zip(self.prompts, self.rows, strict=True)}


def prepare(quality: Quality, prompt: Prompt, decoding: Decoding) -> HeldOut:
    """Render the held-out file. Raises ScenarioError for rows that cannot be rendered or lack what the task needs.

    Raises SandboxError where the task runs answers and nothing on this machine can hold them.
    """
    check_quality(quality)
    check_training(quality, prompt)
    prompts, rows = render_data(quality.data, prompt, key="quality.data")
    scorer = make_scorer(quality, rows)
    if scorer.sandbox is not None:
        scorer.sandbox()
    return HeldOut(prompts, rows, scorer, asked_hashes(prompts, prompt, decoding, quality.max_tokens), decoding.seed)


def spot_check(
    held_out: HeldOut,
    quality: Quality,
    decoding: Decoding,
    target: Target,
    *,
    variant: str,
    contaminated: Collection[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[QualityRecord]:
    """One record a sample, in the file's order. `contaminated` holds the ids that also stand in the training text, None if unknown.

    Raises EndpointError when every request fails; a single failed request is a record that counts as wrong.
    """
    count, attempts = len(held_out.prompts), held_out.scorer.attempts

    def ask(attempt: int) -> list[Answer]:
        def show(done: int, of: int) -> None:
            if on_progress is not None:
                on_progress(attempt * count + done, attempts * of)

        return ask_all(
            target, held_out.prompts, decoding.model_copy(update={"seed": decoding.seed + attempt}),
            max_tokens=quality.max_tokens, concurrency=quality.concurrency, on_progress=show,
        )  # fmt: skip

    asked = [ask(attempt) for attempt in range(attempts)]
    by_sample = [_answered(answers) for answers in zip(*asked, strict=True)]
    scored = _score_all(held_out.scorer, by_sample, on_progress)
    return [_record(held_out, quality, row, answer, by_sample[row], scored[row], variant, contaminated) for row, answer in enumerate(asked[0])]


def score_again(
    held_out: HeldOut, quality: Quality, records: Sequence[QualityRecord], on_progress: Callable[[int, int], None] | None = None
) -> list[QualityRecord]:
    """The stored answers, scored as `held_out` and `quality` say now; what was asked and what came back stay.

    Raises InputError where the rows do not ask what was answered, or the task needs another number of answers to each question.
    """
    rows = _rows_asked(held_out, quality.data.path, records)
    attempts = {max(1, len(record.attempts)) for record in records}
    scorer = narrowed(held_out.scorer, rows)
    if attempts - {scorer.attempts}:
        raise InputError(f"the task scores {scorer.attempts} answers to each question, and the run has {max(attempts)}; run the scenario for that")
    answers = [Answered(output=record.output, finish_reason=record.finish_reason, attempts=tuple(record.attempts)) for record in records]
    scored = _score_all(scorer, answers, on_progress)
    return [
        msgspec.structs.replace(
            record, expected=scorer.expected[number], scores=one.scores, passed=one.passed, label=one.label, details=one.details,
            must_refuse=number in scorer.must_refuse, slices={column: str(held_out.rows[rows[number]].get(column)) for column in quality.slices},
            group=None if quality.groups is None else str(held_out.rows[rows[number]].get(quality.groups)),
        )
        for number, (record, one) in enumerate(zip(records, scored, strict=True))
    ]  # fmt: skip


def _rows_asked(held_out: HeldOut, path: str, records: Sequence[QualityRecord]) -> list[int]:
    """The row of every record."""
    by_id = {prompt.prompt_id: number for number, prompt in enumerate(held_out.prompts)}
    lacking = [record.sample_id for record in records if record.sample_id not in by_id]
    if lacking:
        raise InputError(f"{path} has no row for {len(set(lacking))} answered questions, the first is `{lacking[0]}`; a run is scored over all that it asked")
    rows = [by_id[record.sample_id] for record in records]
    other = [record.sample_id for record, row in zip(records, rows, strict=True) if held_out.prompts[row].sha256 != record.prompt_sha256]
    if other:
        raise InputError(f"{path} asks {len(set(other))} questions otherwise than they were answered, the first is `{other[0]}`; run the scenario for that")
    return rows


def _answered(answers: Sequence[Answer]) -> Answered:
    attempts = tuple(answer.output for answer in answers) if len(answers) > 1 else ()
    return Answered(output=answers[0].output, finish_reason=answers[0].finish_reason, attempts=attempts)


def _score_all(scorer: Scorer, answers: Sequence[Answered], on_progress: Callable[[int, int], None] | None) -> list[Scored]:
    if scorer.workers == 1:
        return [scorer.score(row, answer) for row, answer in enumerate(answers)]
    with ThreadPoolExecutor(scorer.workers) as pool:
        pending = [pool.submit(scorer.score, row, answer) for row, answer in enumerate(answers)]
        try:
            for done, _ in enumerate(as_completed(pending), 1):
                if on_progress is not None:
                    on_progress(done, len(pending))
            return [future.result() for future in pending]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _record(
    held_out: HeldOut, quality: Quality, row: int, answer: Answer, answered: Answered, scored: Scored, variant: str, contaminated: Collection[str] | None
) -> QualityRecord:
    prompt, values = held_out.prompts[row], held_out.rows[row]
    return QualityRecord(
        sample_id=prompt.prompt_id,
        variant=variant,
        prompt=prompt.as_text(),
        prompt_sha256=prompt.sha256,
        expected=held_out.scorer.expected[row],
        output=answer.output,
        error=None if answer.error is None else f"{answer.error}: {answer.error_message}",
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        scores=scored.scores,
        passed=scored.passed,
        label=scored.label,
        contaminated=None if contaminated is None else prompt.prompt_id in contaminated,
        template_sha256=held_out.hashes["quality_template"],
        decoding_sha256=held_out.hashes["quality_decoding"],
        seed=held_out.seed,
        slices={column: str(values.get(column)) for column in quality.slices},
        group=None if quality.groups is None else str(values.get(quality.groups)),
        must_refuse=row in held_out.scorer.must_refuse,
        details=scored.details,
        attempts=list(answered.attempts),
    )
