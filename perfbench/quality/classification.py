"""Classification: the answer is one label.

Reading an answer: the whole answer, else its first line that is not empty, else what stands behind `label:` (or any one word
and a colon) on that line, must equal one of the labels after normalisation (NFKC, case folded, white space collapsed, quotes,
asterisks and end punctuation around it removed). A label inside a sentence is not taken: "not positive" contains "positive".
What is no label is `unparsed`, a class of its own that is never right.

Per-sample score: `accuracy` (1 or 0). Over all samples (scikit-learn's definitions): accuracy; precision, recall, F1 as macro
over the labels that are expected at least once, and as micro over all labels; the confusion matrix with `unparsed` as a column.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from perfbench.errors import Finding, ScenarioError
from perfbench.quality import labels as why
from perfbench.quality.intervals import Array, as_floats
from perfbench.quality.refusals import refuses
from perfbench.quality.rows import SHOWN, HeldOutRows
from perfbench.quality.scoring import Answered, Scored, Scorer
from perfbench.scenario.quality import Classification

UNPARSED = "unparsed"
CLASS_METRICS = ("macro_precision", "macro_recall", "macro_f1", "micro_precision", "micro_recall", "micro_f1")
_AROUND = " \t\r\n\"'`*_.,;:!?\u201c\u201d\u2018\u2019"
_PREFIX = re.compile(r"^\W*\w+\s*:\s*(?P<rest>.+)$")


def scorer(task: Classification, rows: HeldOutRows) -> Scorer:
    """Ready to score the rows. Raises ScenarioError for rows without a label, labels that cannot be told apart, and unknown ones."""
    expected = rows.column(task.expected, "quality.task.expected", expected_label)
    known = known_labels(task.labels, list(expected.values()))
    where = "quality.task.labels" if task.labels is not None else f"{rows.path}, column `{task.expected}`"
    findings = [Finding(where, problem) for problem in label_problems(known)]
    unknown = sorted({label for label in expected.values() if label not in known})
    if unknown:
        shown = ", ".join(f"`{label}`" for label in unknown[:SHOWN])
        add = "it" if len(unknown) == 1 else f"all {len(unknown)}"
        findings.append(Finding("quality.task.labels", f"{shown} expected in the data and not listed; add {add}"))
    if findings:
        raise ScenarioError("scenario", findings)

    def score_row(row: int, answer: Answered) -> Scored:
        return score(answer.output, expected[row], known, finish_reason=answer.finish_reason)

    return Scorer(expected, score_row)


def normalise_label(text: str) -> str:
    """A label or an answer in the form in which two of them are compared."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_AROUND)


def expected_label(value: object) -> str:
    """The expected column's value as text; ValueError for what cannot be a label."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int)) and str(value).strip():
        return str(value)
    raise ValueError("expected a label (text or a whole number)")


def predict(output: str, known: Sequence[str]) -> str:
    """The label that an answer gives, as it is written in `known`, or UNPARSED."""
    by_form = {normalise_label(label): label for label in known}
    lines = [line for line in output.splitlines() if line.strip()]
    candidates = [output, *lines[:1]]
    prefixed = _PREFIX.match(lines[0]) if lines else None
    if prefixed is not None:
        candidates.append(prefixed["rest"])
    for candidate in candidates:
        label = by_form.get(normalise_label(candidate))
        if label is not None:
            return label
    return UNPARSED


def score(output: str | None, expected: str, known: Sequence[str], *, finish_reason: str | None) -> Scored:
    """Score one answer; `output` is None for a request that failed."""
    if output is None:
        return Scored(scores={"accuracy": 0.0}, passed=False, label=why.NO_ANSWER)
    predicted = predict(output, known)
    right = predicted == expected
    return Scored(scores={"accuracy": float(right)}, passed=right, label=why.CORRECT if right else _why_wrong(output, predicted, known, finish_reason))


def _why_wrong(output: str, predicted: str, known: Sequence[str], finish_reason: str | None) -> str:
    if predicted != UNPARSED:
        return why.WRONG
    if not output.strip():
        return why.TOO_SHORT
    if refuses(output):
        return why.UNSAFE_REFUSAL
    if any(_words(label) in _words(output) for label in known):
        return why.WRONG_FORMAT
    return why.TOO_VERBOSE if finish_reason == "length" else why.IGNORED


def _words(text: str) -> str:
    """Words between single spaces, so that `in` finds whole words only."""
    return " ".join(["", *re.findall(r"\w+", normalise_label(text)), ""])


def corpus_metrics(expected: Sequence[str], predicted: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """Metrics over all samples: accuracy, and precision, recall, F1 as macro and micro (scikit-learn, zero division is 0)."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    metrics = {"accuracy": float(accuracy_score(expected, predicted))}
    for average, over in (("macro", sorted(set(expected))), ("micro", list(known))):
        values = precision_recall_fscore_support(expected, predicted, labels=over, average=average, zero_division=0.0)
        metrics |= {f"{average}_{name}": float(value) for name, value in zip(("precision", "recall", "f1"), values[:3], strict=True)}
    return metrics


def class_statistics(expected: Sequence[str], predicted: Sequence[str], known: Sequence[str]) -> Callable[[Array], Array]:
    """CLASS_METRICS as a function of sample weights (resamples x n -> resamples x 6). With all weights 1 they are scikit-learn's.

    A class that a resample draws no expected sample of is left out of that resample's macro mean: its recall is undefined.
    """
    labels = sorted({*known, *expected})
    truth, guess = (as_floats([[label == name for name in labels] for label in column]).reshape(len(expected), -1) for column in (expected, predicted))

    def values(weights: Array) -> Array:
        hits, wanted, given = weights @ (truth * guess), weights @ truth, weights @ guess
        drawn = (wanted > 0).astype(float)
        macro = [(ratio * drawn).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1.0) for ratio in _ratios(hits, wanted, given)]
        return np.column_stack([*macro, *_ratios(hits.sum(axis=1), wanted.sum(axis=1), given.sum(axis=1))])

    return values


def _ratios(hits: Array, wanted: Array, given: Array) -> list[Array]:
    """Precision, recall and F1; nothing out of nothing is 0."""
    return [np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0) for top, bottom in ((hits, given), (hits, wanted), (2 * hits, wanted + given))]


def confusion(expected: Sequence[str], predicted: Sequence[str]) -> dict[str, dict[str, int]]:
    """expected label -> predicted label (or `unparsed`) -> samples; labels in alphabetical order, zeros left out."""
    table: dict[str, dict[str, int]] = {label: {} for label in sorted(set(expected))}
    for truth, guess in sorted(zip(expected, predicted, strict=True)):
        table[truth][guess] = table[truth].get(guess, 0) + 1
    return table


def label_problems(known: Sequence[str]) -> list[str]:
    """What makes a list of labels unusable: two that are read as the same, one that nothing can be read as, the reserved name."""
    problems: list[str] = []
    seen: dict[str, str] = {}
    for label in known:
        form = normalise_label(label)
        if not form:
            problems.append(f"`{label}` holds nothing but punctuation, so no answer can be read as it; rename the label")
        elif form == UNPARSED:
            problems.append(f"`{label}` is the name for answers that are no label; rename the label")
        elif form in seen:
            problems.append(f"`{seen[form]}` and `{label}` differ only in case or punctuation, so answers cannot tell them apart; rename one")
        seen.setdefault(form, label)
    return problems


def known_labels(given: Sequence[str] | None, expected: Sequence[str]) -> tuple[str, ...]:
    """The labels that answers are read against: the scenario's, else those that are expected somewhere."""
    return tuple(given) if given is not None else tuple(sorted(set(expected)))
