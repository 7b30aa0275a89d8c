"""Translation: BLEU and chrF over the whole set, chrF sentence by sentence. Scores are sacrebleu's, divided by 100.

| metric | over | definition |
|---|---|---|
| sentence_chrf | one sample | chrF2 with effective order, best over the references |
| chrf | the whole set | chrF2 (Popovic 2015), 6 character orders, no word order |
| bleu | the whole set | BLEU-4 (Papineni et al. 2002), exponential smoothing, mixed case, the scenario's tokenizer |

BLEU and chrF of a set are no means over samples, so their intervals come from a bootstrap over documents that adds up sacrebleu's own
counts (n-grams, lengths) of the samples drawn; with every sample drawn once they are sacrebleu's figures. `signatures` names the settings
and sacrebleu's version: only figures with the same signature can be compared. A failed request is an empty translation.

A sample passes when its sentence chrF reaches `pass_at`. Words cannot tell why a translation is poor: `wrong answer`, unless it is empty
(`too short`), cut off or more than twice as long as the reference (`too verbose`), less than half as long (`incomplete answer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from perfbench.errors import MissingPartError
from perfbench.quality import labels as why
from perfbench.quality.intervals import Array
from perfbench.quality.qa import expected_text
from perfbench.quality.rows import HeldOutRows, text, texts
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.quality import Translation

CORPUS_METRICS = ("chrf", "bleu")
_ORDERS = 4
_CHRF_BETA_SQUARED = 4.0


def scorer(task: Translation, rows: HeldOutRows) -> Scorer:
    """Ready to score the rows. Raises ScenarioError for rows without a reference, MissingPartError without sacrebleu."""
    _metrics(task.tokenizer)
    references = rows.column(task.expected, "quality.task.expected", texts)
    if task.source is not None:
        rows.column(task.source, "quality.task.source", text)

    def score_row(row: int, answer: Answered) -> Scored:
        return score(answer.output, references[row], task.pass_at, finish_reason=answer.finish_reason)

    return Scorer({number: expected_text(given) for number, given in references.items()}, score_row)


def score(output: str | None, references: Sequence[str], pass_at: float, *, finish_reason: str | None) -> Scored:
    """Score one answer; `output` is None for a request that failed."""
    if output is None:
        return Scored(scores={"sentence_chrf": 0.0}, passed=False, label=why.NO_ANSWER)
    chrf = float(_metrics("13a")[1].sentence_score(output.strip(), list(references)).score) / 100
    passed = chrf >= pass_at
    return Scored(scores={"sentence_chrf": chrf}, passed=passed, label=why.CORRECT if passed else _why_wrong(output, references, finish_reason))


def _why_wrong(output: str, references: Sequence[str], finish_reason: str | None) -> str:
    length, wanted = len(output.strip()), [len(reference.strip()) for reference in references]
    if not length:
        return why.TOO_SHORT
    if finish_reason == "length" or length > 2 * max(wanted):
        return why.TOO_VERBOSE
    return why.INCOMPLETE if length < min(wanted) / 2 else why.WRONG


def references_of(expected: str) -> list[str]:
    """The references that a record keeps as its expected answer."""
    if expected.startswith("["):
        try:
            return msgspec.json.decode(expected, type=list[str])
        except (msgspec.DecodeError, msgspec.ValidationError):
            pass
    return [expected]


def signatures(tokenizer: str, references: int = 1) -> Mapping[str, str]:
    """sacrebleu's signature of each corpus metric."""
    found = {}
    for name, metric in zip(("bleu", "chrf"), _metrics(tokenizer), strict=True):
        metric.num_refs = references
        found[name] = str(metric.get_signature())
    return found


def corpus_statistics(expected: Sequence[str], outputs: Sequence[str | None], tokenizer: str) -> Callable[[Array], Array]:
    """CORPUS_METRICS as a function of sample weights: resamples x n -> resamples x 2, in 0..1."""
    bleu, chrf = _metrics(tokenizer)
    hypotheses = [(output or "").strip() for output in outputs]
    given = [references_of(text) for text in expected]
    # sacrebleu wants one list for each reference; None stands for one that a sample does not have.
    columns = [[references[number] if number < len(references) else None for references in given] for number in range(max(map(len, given)))]
    # The counts behind its corpus scores, which its own bootstrap adds up too (sacrebleu.significance); there is no public name for them.
    bleu_counts = np.asarray(bleu._extract_corpus_statistics(hypotheses, columns), dtype=float)
    chrf_counts = np.asarray(chrf._extract_corpus_statistics(hypotheses, columns), dtype=float)

    def values(weights: Array) -> Array:
        return np.column_stack([chrf_of(weights @ chrf_counts), bleu_of(weights @ bleu_counts)])

    return values


def bleu_of(counts: Array) -> Array:
    """BLEU in 0..1 of summed counts, one set a row: system length, reference length, matches of 1..4-grams, their totals.

    Orders without a match are smoothed as in mteval (halved each time); without any match at all BLEU is 0.
    """
    length, reference, matches, totals = counts[:, 0], counts[:, 1], counts[:, 2 : 2 + _ORDERS], counts[:, 2 + _ORDERS :]
    logs, smoothing = np.zeros(len(counts)), np.ones(len(counts))
    defined = matches.sum(axis=1) > 0
    for order in range(_ORDERS):
        match, total = matches[:, order], totals[:, order]
        empty = (match == 0) & (total > 0)
        smoothing = np.where(empty, smoothing * 2, smoothing)
        precision = np.where(empty, 1 / (smoothing * np.maximum(total, 1)), match / np.maximum(total, 1))
        defined &= total > 0
        logs += np.log(np.maximum(precision, 1e-300))
    brevity = np.where(length < reference, np.exp(1 - reference / np.maximum(length, 1e-9)), 1.0)
    return np.where(defined, brevity * np.exp(logs / _ORDERS), 0.0)


def chrf_of(counts: Array) -> Array:
    """chrF2 in 0..1 of summed counts, one set a row: (answered, reference, shared) for each character order."""
    answered, wanted, shared = counts[:, 0::3], counts[:, 1::3], counts[:, 2::3]
    counted = (answered > 0) & (wanted > 0)
    orders = np.maximum(counted.sum(axis=1), 1)
    precision = np.where(counted, shared / np.maximum(answered, 1), 0.0).sum(axis=1) / orders
    recall = np.where(counted, shared / np.maximum(wanted, 1), 0.0).sum(axis=1) / orders
    below = _CHRF_BETA_SQUARED * precision + recall
    result: Array = np.divide((1 + _CHRF_BETA_SQUARED) * precision * recall, below, out=np.zeros_like(below), where=below > 0)
    return result


@lru_cache(maxsize=8)
def _metrics(tokenizer: str) -> tuple[Any, Any]:
    """sacrebleu's BLEU and chrF with our settings."""
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise MissingPartError("task `translation` needs sacrebleu, which is not installed", hint="pip install 'perfbench[quality]'") from None
    return BLEU(tokenize=tokenizer), CHRF()
