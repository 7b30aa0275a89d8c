"""Document questions (RAG): what the retrieval brought and what the model made of it, measured apart.

| per-sample score | of | rule |
|---|---|---|
| context_recall | retrieval | relevant ids among the ids of the row's passages / relevant ids; the same for every variant |
| context_precision | retrieval | relevant ids among them / passages |
| contains | answer | 1 if the words of a right answer stand in the answer next to each other (`qa`) |
| token_f1 | answer | as in `qa`, best over the right answers; supporting |
| citation_precision | citations | ids cited as `[id]` that were retrieved and are relevant / ids cited; nothing cited is 0 |
| citation_recall | citations | relevant ids that were retrieved and are cited / relevant ids that were retrieved; without any, no score |
| quotes_supported | faithfulness, offline | quoted spans (three words or more) that stand in a passage / quoted spans; without any, no score |
| answer_correctness | answer | 1 if a judge finds it right by the expected answer; only with a judge |
| faithfulness | faithfulness | claims that the passages support / claims, by a judge; only with a judge |

The ID-based context metrics and the shares of supported claims follow the definitions of Ragas (Es et al. 2023, arXiv 2309.15217); the code is our own.
A sample passes when it contains a right answer and quotes nothing that is not there. `hallucinated detail`: a quote that no passage has, or cites an id
that was not retrieved. So a right answer from poor retrieval passes, and `context_recall` in its details says that the model knew it anyhow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import msgspec

from perfbench.quality import labels as why
from perfbench.quality.qa import contains, expected_text, normalise, token_scores
from perfbench.quality.rows import HeldOutRows, texts
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.quality import DocumentQuestions

_CITED = re.compile(r"\[([^\[\]\n]{1,80})\]")
_QUOTED = re.compile(r"\"([^\"\n]+)\"|\u201c([^\u201d\n]+)\u201d|\u00ab([^\u00bb\n]+)\u00bb")
_QUOTE_WORDS = 3


class Passage(msgspec.Struct, frozen=True):
    """One retrieved passage."""

    id: str
    text: str


def scorer(task: DocumentQuestions, rows: HeldOutRows) -> Scorer:
    """Ready to score the rows. Raises ScenarioError for rows without answers, passages or relevant ids."""
    golds = rows.column(task.expected, "quality.task.expected", texts)
    contexts = rows.column(task.contexts, "quality.task.contexts", passages)
    relevant = rows.column(task.relevant_ids, "quality.task.relevant_ids", texts)

    def score_row(row: int, answer: Answered) -> Scored:
        return score(answer, golds[row], contexts[row], relevant[row])

    return Scorer({number: expected_text(gold) for number, gold in golds.items()}, score_row)


def passages(value: object) -> list[Passage]:
    """A column's value as passages (in CSV: its JSON text); ValueError for anything else, and for an id that occurs twice."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list) or any(not isinstance(item, dict) or not {"id", "text"} <= item.keys() for item in value):
        raise ValueError("expected a list of passages, each {id: ..., text: ...}")
    found = [Passage(str(item["id"]), str(item["text"])) for item in value]
    if len({passage.id for passage in found}) != len(found):
        raise ValueError("two passages have the same id")
    return found


def score(answer: Answered, golds: Sequence[str], contexts: Sequence[Passage], relevant: Sequence[str]) -> Scored:
    """Score one answer."""
    output = answer.output or ""
    needed, retrieved = set(relevant), {passage.id for passage in contexts}
    found = needed & retrieved
    scores = {"context_recall": len(found) / len(needed), "context_precision": len(found) / len(retrieved) if retrieved else 0.0}
    right = any(contains(output, gold) for gold in golds)
    scores |= {"contains": float(right), "token_f1": max(token_scores(output, gold).f1 for gold in golds)}
    cited = citations(output, retrieved)
    scores["citation_precision"] = len(cited & found) / len(cited) if cited else 0.0
    if found:
        scores["citation_recall"] = len(cited & found) / len(found)
    quoted = quotes(output)
    unsupported = [quote for quote in quoted if not supported(quote, contexts)]
    if quoted:
        scores["quotes_supported"] = 1 - len(unsupported) / len(quoted)
    details = {"context_recall": f"{scores['context_recall']:.2f}"}
    if unsupported:
        details["quotes that no passage has"] = "; ".join(unsupported)
    if answer.output is None:
        return Scored(scores={name: value if name.startswith("context") else 0.0 for name, value in scores.items()}, passed=False, label=why.NO_ANSWER)
    label = _label(output, right=right, invented=bool(unsupported or cited - retrieved), finish_reason=answer.finish_reason)
    return Scored(scores=scores, passed=label == why.CORRECT, label=label, details=details)


def _label(output: str, *, right: bool, invented: bool, finish_reason: str | None) -> str:
    if not output.strip():
        return why.TOO_SHORT
    if invented:
        return why.HALLUCINATED
    if right:
        return why.CORRECT
    return why.TOO_VERBOSE if finish_reason == "length" else why.WRONG


def citations(output: str, retrieved: set[str]) -> set[str]:
    """Ids that an answer cites: what stands in square brackets, several between commas or semicolons. A bracket counts where one of its parts was
    retrieved or looks like the retrieved ids (same letters, other digits): `[sic]` is no citation, `[doc9]` beside `doc1` is one."""
    shapes = {re.sub(r"\d+", "0", name) for name in retrieved}
    cited: set[str] = set()
    for inside in _CITED.findall(output):
        parts = [part.strip() for part in re.split(r"[,;]", inside) if part.strip()]
        cited |= {part for part in parts if part in retrieved or re.sub(r"\d+", "0", part) in shapes}
    return cited


def quotes(output: str) -> list[str]:
    """Quoted spans of three words or more; shorter ones are names and terms."""
    spans = [next(part for part in match if part) for match in _QUOTED.findall(output)]
    return [span for span in spans if len(normalise(span).split()) >= _QUOTE_WORDS]


def supported(quote: str, contexts: Sequence[Passage]) -> bool:
    """Whether a quote stands in a passage, word for word after normalisation."""
    return any(f" {normalise(quote)} " in f" {normalise(passage.text)} " for passage in contexts)
