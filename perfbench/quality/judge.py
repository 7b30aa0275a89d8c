"""Let a judge look at answers: which questions a task has for it, asking them, reading and retrying its verdicts. It runs when no load runs.

The judge is any server that speaks the OpenAI API. It is asked greedily first; a verdict that cannot be read is asked for again with another seed at a
temperature of 0.7, so often as the scenario says, and is then *unread*: no score is guessed for it. Pairs are asked in both orders; a judge that changes
its mind with the order has said nothing (a tie, counted as inconsistent). Two equal answers are a tie without asking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from perfbench.errors import EndpointError
from perfbench.prompts import RenderedPrompt, sha256_of
from perfbench.quality.ask import Answer, Target, ask_all
from perfbench.quality.judge_questions import (
    RUBRIC,
    correctness_question,
    faithfulness_question,
    pairwise_question,
    read_verdict,
    rubric_question,
    schema,
    without_mark,
)
from perfbench.quality.rag import passages
from perfbench.records import JudgeKind, JudgeRecord, QualityRecord
from perfbench.scenario.model import Decoding
from perfbench.scenario.quality import Chat, DocumentQuestions, DomainQuestions, Judge, Quality, Summarisation
from perfbench.scenario.workload import ResponseFormat

Row = Mapping[str, object]
_RETRY_TEMPERATURE = 0.7
_NOTHING = "there is no answer"


@dataclass(frozen=True)
class Question:
    """One verdict to ask for."""

    record: QualityRecord
    kind: JudgeKind
    messages: list[dict[str, str]]
    first: str = ""
    second: str = ""
    """Pairwise: the variants in the order of their answers."""
    known: tuple[str, float, str] | None = None
    """(verdict, score, reason) that stands without a judge; there are no messages then."""


@dataclass
class _Asked:
    """How far one question has come."""

    answer: Answer | None = None
    asked: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    verdicts: list[JudgeRecord] = field(default_factory=list)


def questions(quality: Quality, records: Sequence[QualityRecord], rows: Mapping[str, Row], base: Sequence[QualityRecord] | None) -> list[Question]:
    """Everything that a judge has to say about one variant's answers; `rows` are the held-out rows by sample id, `base` the base's records of a fair pair.

    No judge is asked about answers that are missing or empty (they are wrong, and lose to one that is not), equal ones, and samples that must be refused.
    """
    judge, task = quality.judge, quality.task
    if judge is None:
        return []
    by_id = {record.sample_id: record for record in base or ()}
    found: list[Question] = []
    for record in records:
        if record.must_refuse:
            continue
        output = _text(record)
        if isinstance(task, Chat):
            asked = rubric_question(record.prompt, output, record.expected, judge.rubric or RUBRIC)
            found.append(Question(record, "rubric", asked) if output else Question(record, "rubric", [], known=("1", 0.0, _NOTHING)))
            other = by_id.get(record.sample_id)
            if judge.pairwise and other is not None:
                found += _both_orders(record, other, judge)
        elif isinstance(task, (DomainQuestions, DocumentQuestions)):
            asked = correctness_question(record.prompt, output, record.expected)
            found.append(Question(record, "correctness", asked) if output else Question(record, "correctness", [], known=("incorrect", 0.0, _NOTHING)))
        source = _source(task, rows.get(record.sample_id, {})) if output else None
        if source is not None:
            found.append(Question(record, "faithfulness", faithfulness_question(output, source)))
    return found


def _both_orders(record: QualityRecord, other: QualityRecord, judge: Judge) -> list[Question]:
    mine, others = _text(record), _text(other)
    known: tuple[str, float, str] | None = None
    if mine == others:
        known = ("tie", 0.5, "the answers are equal")
    elif not mine or not others:
        known = (record.variant if mine else other.variant, float(bool(mine)), "the other answer is empty")
    found = []
    for first, second in ((other, record), (record, other)):
        asked = [] if known else pairwise_question(record.prompt, _text(first), _text(second), record.expected, judge.rubric or RUBRIC)
        found.append(Question(record, "pairwise", asked, first.variant, second.variant, known))
    return found


def _text(record: QualityRecord) -> str:
    return (record.output or "").strip()


def _source(task: object, row: Row) -> str | None:
    """What an answer has to be faithful to."""
    if isinstance(task, DocumentQuestions):
        return "\n\n".join(f"[{passage.id}] {passage.text}" for passage in passages(row[task.contexts]))
    if isinstance(task, Summarisation) and task.source is not None:
        return str(row[task.source])
    return None


def ask_judge(judge: Judge, asked: Sequence[Question], on_progress: Callable[[int, int], None] | None = None) -> list[JudgeRecord]:
    """One record for each question, in their order. A judge that answers nothing at all raises EndpointError."""
    states = [_Asked() for _ in asked]
    left = [number for number, question in enumerate(asked) if question.messages]
    total, read = len(left), 0
    for attempt in range(judge.retries + 1):
        if not left:
            break
        again: list[int] = []
        for kind in dict.fromkeys(asked[number].kind for number in left):
            mine = [number for number in left if asked[number].kind == kind]
            answers = _ask(judge, kind, [asked[number] for number in mine], attempt, _progress(on_progress, read, total))
            for number, answer in zip(mine, answers, strict=True):
                _count(states[number], answer)
                if read_verdict(kind, answer.output) is None:
                    again.append(number)
                else:
                    read += 1
        left = again
    return [_record(question, state) for question, state in zip(asked, states, strict=True)]


def ask_what_is_new(
    judge: Judge, asked: Sequence[Question], known: Sequence[JudgeRecord], on_progress: Callable[[int, int], None] | None = None
) -> list[JudgeRecord]:
    """As `ask_judge`, but what the same judge has been asked in the same words before, and has answered readably, is not asked again."""
    by_words = {(one.sample_id, one.variant, one.kind, one.first, without_mark(one.prompt)): one for one in known if one.verdict is not None}
    found = [by_words.get((one.record.sample_id, one.record.variant, one.kind, one.first, without_mark(_words(one)))) for one in asked]
    new = iter(ask_judge(judge, [question for question, verdict in zip(asked, found, strict=True) if verdict is None], on_progress))
    return [verdict if verdict is not None else next(new) for verdict in found]


def same_judge(left: Judge | None, right: Judge | None) -> bool:
    """Whether two would be asked alike; prices, retries and the rubric (which stands in the words) aside."""
    names = ("url", "model", "structured_output", "max_tokens")
    return left is not None and right is not None and all(getattr(left, name) == getattr(right, name) for name in names)


def _words(question: Question) -> str:
    return msgspec.json.encode(question.messages).decode() if question.messages else ""


def _progress(on_progress: Callable[[int, int], None] | None, before: int, total: int) -> Callable[[int, int], None]:
    """Progress over all questions while some of them are asked."""

    def tell(done: int, of: int) -> None:
        if on_progress is not None:
            on_progress(min(before + done, total), total)

    return tell


def _ask(judge: Judge, kind: JudgeKind, asked: Sequence[Question], attempt: int, on_progress: Callable[[int, int], None]) -> list[Answer]:
    prompts = [
        RenderedPrompt(prompt_id=f"{question.record.sample_id}", messages=question.messages, text=None, sha256=sha256_of(question.messages))
        for question in asked
    ]
    form = ResponseFormat(type="json_schema", json_schema={"name": f"{kind}_verdict", "schema": schema(kind)}) if judge.structured_output else None
    decoding = Decoding(temperature=_RETRY_TEMPERATURE if attempt else 0.0, seed=attempt, response_format=form)
    try:
        return ask_all(
            _target(judge), prompts, decoding, max_tokens=judge.max_tokens, concurrency=judge.concurrency, on_progress=on_progress
        )
    except EndpointError as error:
        if attempt == 0:
            raise EndpointError(f"the judge cannot be asked: {error.message}", hint=error.hint) from None
        return [Answer(prompt_id=prompt.prompt_id, output=None, error="protocol", error_message=error.message) for prompt in prompts]


def _target(judge: Judge) -> Target:
    return Target(url=judge.url, model=judge.model, api_key_env=judge.api_key_env, timeout_s=judge.timeout_s)


def _count(state: _Asked, answer: Answer) -> None:
    state.answer, state.asked = answer, state.asked + 1
    if answer.prompt_tokens is not None:
        state.prompt_tokens = (state.prompt_tokens or 0) + answer.prompt_tokens
    if answer.output_tokens is not None:
        state.output_tokens = (state.output_tokens or 0) + answer.output_tokens


def _record(question: Question, state: _Asked) -> JudgeRecord:
    record, answer = question.record, state.answer
    common = {"sample_id": record.sample_id, "variant": record.variant, "kind": question.kind, "first": question.first}
    if question.known is not None:
        stands, points, reason = question.known
        return JudgeRecord(prompt="", answer=None, verdict=stands, score=points, reason=reason, **common)  # type: ignore[arg-type]
    assert answer is not None
    read = read_verdict(question.kind, answer.output)
    verdict, score = (None, None) if read is None else (read.verdict, read.score)
    if read is not None and question.kind == "pairwise":
        better = {"first": question.first, "second": question.second}.get(read.verdict)
        verdict, score = better or "tie", 0.5 if better is None else float(better == record.variant)
    return JudgeRecord(
        prompt=_words(question),
        answer=answer.output,
        verdict=verdict,
        score=score,
        reason="" if read is None else read.reason,
        problem="" if read is None else read.problem,
        retries=state.asked - 1,
        error=None if answer.error is None else f"{answer.error}: {answer.error_message}",
        prompt_tokens=state.prompt_tokens,
        output_tokens=state.output_tokens,
        **common,  # type: ignore[arg-type]
    )


def check_judge(judge: Judge) -> None:
    """Ask the judge one word before a run starts, so that a wrong address or name is told then. Raises EndpointError."""
    messages = [{"role": "user", "content": "Reply with the word: ready"}]
    prompt = RenderedPrompt(prompt_id="judge", messages=messages, text=None, sha256=sha256_of(messages))
    try:
        ask_all(_target(judge), [prompt], Decoding(), max_tokens=8, concurrency=1)
    except EndpointError as error:
        raise EndpointError(
            f"quality.judge: the judge at {judge.url} does not answer: {error.message}",
            hint=error.hint or "start it, or remove `quality.judge`: the metrics that need it are then not run",
        ) from None
