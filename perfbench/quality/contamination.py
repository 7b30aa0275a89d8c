"""Whether held-out samples also stand in the training text.

Texts are compared after normalisation: NFKC, case folded, punctuation and white space folded into single spaces.

    exact   equal after normalisation: flagged, and left out of the verdict
    ngram   13 words in a row in common (GPT-3's measure): a warning
    fuzzy   Indel similarity of at least 90 (rapidfuzz `ratio`): a warning

Exact and 13-gram are hash look-ups, linear in the text. Fuzzy compares a sample only with training rows of a fitting length
that share one of its rarest words (at most CANDIDATES of them), so it can miss a near copy whose rare words were all changed; with no
such limit it would be quadratic. Training text is read in blocks, so that memory is bounded by the held-out text and one block.

What is compared is what a row brings into the prompt, not the template's own words, which all rows share: `train_column` where
given, else the columns that the prompt's templates use. Of a column of chat messages it is what the user says.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import jinja2
import jinja2.meta
import jinja2.sandbox
import msgspec
import numpy as np
import numpy.typing as npt

from perfbench.errors import Finding, ScenarioError
from perfbench.scenario.data_files import iter_rows
from perfbench.scenario.model import Prompt
from perfbench.scenario.quality import Quality

NGRAM = 13
FUZZY_RATIO = 90.0
CANDIDATES = 200
"""Of each block."""
BLOCK_ROWS = 25_000
_POSTINGS = 2000
_RAREST = 6
"""Words of a sample that are looked up; a near copy at 90% keeps most of its words."""
_LENGTH_BAND = FUZZY_RATIO / (200 - FUZZY_RATIO)
"""ratio = 200 M / (a + b) with M <= min(a, b): at 90 the shorter text has at least 9/11 of the longer one's length."""

Hashes = npt.NDArray[np.uint64]
Grams = tuple[Hashes, npt.NDArray[np.int64]]
"""Hashes of 13 words in a row, and the number of the text that each stands in."""


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """A held-out sample and the training row it resembles."""

    sample_id: str
    text: str
    training_row: int
    """Number of the row in the training file, from 0."""
    training_text: str
    ratio: float | None = None
    """Fuzzy matches only, 90..100."""


class Contamination(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. A sample stands in the strongest list that it belongs to, with the first training row that it matches."""

    samples: int
    training_rows: int
    exact: list[Match]
    ngram: list[Match]
    fuzzy: list[Match]

    @property
    def flagged_ids(self) -> frozenset[str]:
        """Samples that equal a training row."""
        return frozenset(match.sample_id for match in self.exact)

    @property
    def warned_ids(self) -> frozenset[str]:
        """Samples that resemble a training row."""
        return frozenset(match.sample_id for match in (*self.ngram, *self.fuzzy))


def check_contamination(
    quality: Quality,
    prompt: Prompt,
    sample_ids: Sequence[str],
    rows: Sequence[dict[str, object]],
    on_rows: Callable[[int], None] | None = None,
) -> Contamination | None:
    """Compare the held-out rows with the scenario's training data; None when it names none ("unknown", not "clean").

    `on_rows` is told how many training rows have been compared. `check_training` has seen that they have the columns to compare.
    """
    if quality.train_data is None:
        return None
    columns, column = _prompt_columns(prompt), quality.train_column
    texts = [_text(row[column]) if column is not None and column in row else _row_text(row, columns) for row in rows]
    return find_contamination(sample_ids, texts, _training_texts(quality, columns), on_rows)


def check_training(quality: Quality, prompt: Prompt) -> None:
    """Whether every training row has what is compared. Raises ScenarioError that says what to name instead."""
    column, data = quality.train_column, quality.train_data
    if data is None:
        if column is not None:
            raise ScenarioError("scenario", [Finding("quality.train_column", "there is no `quality.train_data` that it could be a column of; add it")])
        return
    needed = _prompt_columns(prompt) if column is None else frozenset({column})
    for number, row in enumerate(iter_rows(data.path, data.limit, data.columns)):
        if needed <= row.keys():
            continue
        named = ", ".join(f"`{name}`" for name in sorted(needed - row.keys()))
        problem = f"row {number} of {data.path} lacks {named}{', which the prompt is made of' if column is None else ''}"
        told = f"{problem}; name the column that holds the training text, one of {', '.join(row)}"
        raise ScenarioError("scenario", [Finding("quality.train_column", told)])


def _training_texts(quality: Quality, columns: frozenset[str]) -> Iterator[str]:
    assert quality.train_data is not None
    for row in iter_rows(quality.train_data.path, quality.train_data.limit, quality.train_data.columns):
        yield _row_text(row, columns) if quality.train_column is None else _text(row[quality.train_column])


def _prompt_columns(prompt: Prompt) -> frozenset[str]:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment()
    sources = [source for source in (prompt.system, prompt.user) if source is not None]
    return frozenset(name for source in sources for name in jinja2.meta.find_undeclared_variables(environment.parse(source)))


def _row_text(row: dict[str, object], columns: frozenset[str]) -> str:
    return " ".join(_text(row[column]) for column in sorted(columns) if column in row)


def _text(value: object) -> str:
    """Of chat messages, as most training files hold them, what the user says: the prompt."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
        return " ".join(str(item.get("content") or "") for item in value if item["role"] == "user")
    return str(value)


def find_contamination(
    sample_ids: Sequence[str], texts: Sequence[str], training_texts: Iterable[str], on_rows: Callable[[int], None] | None = None
) -> Contamination:
    """Compare held-out texts with training texts, which are read once. Pure."""
    samples = [normalise_text(text) for text in texts]
    ids: dict[str, int] = {}
    grams = _grams([[ids.setdefault(word, len(ids) + 1) for word in text.split()] for text in samples])
    exact: dict[int, _Hit] = {}
    ngram: dict[int, _Hit] = {}
    fuzzy: dict[int, _Hit] = {}
    rows = 0
    training = iter(training_texts)
    while block := list(islice(training, BLOCK_ROWS)):
        normal = [normalise_text(text) for text in block]
        for index, row in _exact(samples, normal).items():
            exact.setdefault(index, _Hit(rows + row, block[row]))
        for index, row in _ngram(samples, grams, normal, ids).items():
            ngram.setdefault(index, _Hit(rows + row, block[row]))
        # Who stands in a stronger list already need not be looked up; a later block may still move a sample up.
        rest = [index for index, text in enumerate(samples) if text and index not in exact and index not in ngram]
        for index, (row, ratio) in _fuzzy(rest, samples, normal).items():
            if index not in fuzzy or ratio > (fuzzy[index].ratio or 0.0):
                fuzzy[index] = _Hit(rows + row, block[row], ratio)
        rows += len(block)
        if on_rows is not None:
            on_rows(rows)

    def matches(found: dict[int, _Hit], *stronger: dict[int, _Hit]) -> list[Match]:
        kept = sorted(index for index in found if not any(index in other for other in stronger))
        return [Match(sample_id=sample_ids[index], text=texts[index], training_row=row, training_text=text, ratio=ratio)
                for index in kept for row, text, ratio in [found[index]]]  # fmt: skip

    return Contamination(
        samples=len(texts), training_rows=rows, exact=matches(exact), ngram=matches(ngram, exact), fuzzy=matches(fuzzy, exact, ngram)
    )


class _Hit(NamedTuple):
    row: int
    text: str
    ratio: float | None = None


def normalise_text(text: str) -> str:
    """NFKC, case folded, every run of punctuation and white space one space. May be empty, and then it resembles nothing."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_separators()).split())


@functools.cache
def _separators() -> dict[int, str]:
    """Punctuation, separators and control characters of Unicode; marks stay, they are letters' parts in many scripts."""
    return {code: " " for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] in "PZC" and not 0xD800 <= code <= 0xF8FF and code < 0xF0000}


def _exact(samples: Sequence[str], training: Sequence[str]) -> dict[int, int]:
    first: dict[str, int] = {}
    for row, text in enumerate(training):
        first.setdefault(text, row)
    return {index: first[text] for index, text in enumerate(samples) if text and text in first}


def _ngram(samples: Sequence[str], grams: Grams, training: Sequence[str], ids: dict[str, int]) -> dict[int, int]:
    """sample -> first training row with 13 words in a row in common. Hash hits are checked against the words themselves."""
    sample_grams, sample_of = grams
    training_grams, row_of = _grams([[ids.get(word, 0) for word in text.split()] for text in training])  # 0: a word of no sample
    hits = np.nonzero(np.isin(training_grams, sample_grams))[0]
    rows_by_hash: dict[int, list[int]] = defaultdict(list)
    for hit in hits:
        rows_by_hash[int(training_grams[hit])].append(int(row_of[hit]))
    found: dict[int, int] = {}
    for gram in np.nonzero(np.isin(sample_grams, training_grams[hits]))[0]:
        index = int(sample_of[gram])
        for row in rows_by_hash[int(sample_grams[gram])][:3]:
            if _shares_words(samples[index], training[row]):
                found[index] = min(row, found.get(index, row))
                break
    return found


def _shares_words(left: str, right: str) -> bool:
    grams = [{tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)} for words in (left.split(), right.split())]
    return not grams[0].isdisjoint(grams[1])


def _grams(words: Sequence[Sequence[int]]) -> Grams:
    """A 64-bit hash of every 13 words in a row, and the text each one stands in. Vectorised: one pass over all words of all texts."""
    lengths = np.array([len(line) for line in words], dtype=np.int64)
    flat = np.fromiter((word for line in words for word in line), dtype=np.uint64, count=int(lengths.sum()))
    if len(flat) < NGRAM:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    text_of = np.repeat(np.arange(len(words), dtype=np.int64), lengths)
    windows = len(flat) - NGRAM + 1
    mixed = (flat + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(31)
    hashes = np.zeros(windows, np.uint64)
    for at in range(NGRAM):
        hashes = hashes * np.uint64(0x94D049BB133111EB) + mixed[at : at + windows]
    whole = text_of[:windows] == text_of[NGRAM - 1 :]
    return hashes[whole], text_of[:windows][whole]


def _fuzzy(rest: Sequence[int], samples: Sequence[str], training: Sequence[str]) -> dict[int, tuple[int, float]]:
    """sample -> (training row, ratio) of its nearest candidate at 90 or more."""
    from rapidfuzz import fuzz, process

    rows: dict[str, int] = {}
    for row, text in enumerate(training):
        rows.setdefault(text, row)
    unique = sorted((text for text in rows if text), key=len)
    lengths = [len(text) for text in unique]
    postings: dict[str, list[int]] = defaultdict(list)
    for number, text in enumerate(unique):
        for word in set(text.split()):
            postings[word].append(number)
    found: dict[int, tuple[int, float]] = {}
    for index in rest:
        candidates = _candidates(samples[index], lengths, postings)
        best = process.extractOne(samples[index], [unique[number] for number in candidates], scorer=fuzz.ratio, score_cutoff=FUZZY_RATIO)
        if best is not None:
            found[index] = (rows[best[0]], float(best[1]))
    return found


def _candidates(sample: str, lengths: Sequence[int], postings: dict[str, list[int]]) -> list[int]:
    """Training texts (by number, in order of length) of a fitting length that share most of the sample's rarest words."""
    rarest = sorted((word for word in set(sample.split()) if word in postings), key=lambda word: (len(postings[word]), word))[:_RAREST]
    first, last = bisect_left(lengths, len(sample) * _LENGTH_BAND), bisect_right(lengths, len(sample) / _LENGTH_BAND)
    nearest = bisect_left(lengths, len(sample))
    shared: Counter[int] = Counter()
    for word in rarest:
        fitting = postings[word][bisect_left(postings[word], first) : bisect_left(postings[word], last)]
        if len(fitting) > _POSTINGS:  # a word that stands everywhere: only the texts nearest in length
            middle = min(max(bisect_left(fitting, nearest), _POSTINGS // 2), len(fitting) - _POSTINGS // 2)
            fitting = fitting[middle - _POSTINGS // 2 : middle + _POSTINGS // 2]
        shared.update(fitting)
    return [number for number, _ in shared.most_common(CANDIDATES)]
