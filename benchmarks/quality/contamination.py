"""How long the search for held-out samples in training text takes, what it finds and what memory it needs.

    python benchmarks/quality/contamination.py [--training 100000] [--samples 10000] [--words 12 60]

Texts are drawn from 30,000 made-up words with Zipf's frequencies, as many words a text as said (a spoken command has 12, a short document 60), half
to one and a half times. Of the samples, 2% each are planted: copies with other case, punctuation and white space (to be flagged), copies with one letter
in forty changed (fuzzy), and texts that carry 13 words in a row of a training row (13-gram, where texts are long enough).
"""

from __future__ import annotations

import argparse
import random
import resource
import time

import numpy as np

from perfbench.quality.contamination import NGRAM, Contamination, find_contamination

VOCABULARY = 30_000
PLANTED = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--words", type=int, nargs="*", default=[12, 60])
    options = parser.parse_args()
    for words in options.words:
        for share in (0.25, 0.5, 1.0):
            print(measure(int(options.training * share), int(options.samples * share), words), flush=True)


def measure(rows: int, samples: int, words: int) -> str:
    """One size: seconds of CPU, peak memory of this process so far, and of what was planted how much was found."""
    generator = random.Random(words)
    training = texts(rows, words, seed=1)
    held_out = texts(samples, words, seed=2)
    planted = plant(held_out, training, generator)
    started = time.process_time()
    found = find_contamination([str(number) for number in range(samples)], held_out, training)
    cpu_s = time.process_time() - started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shares = "  ".join(f"{kind} {len(got & planted[kind])}/{len(planted[kind])}" for kind, got in by_kind(found).items())
    others = {int(match.sample_id) for match in (*found.exact, *found.ngram, *found.fuzzy)} - set().union(*planted.values())
    return f"{rows:,} x {samples:,} texts of {words} words: {cpu_s:.1f} s CPU, peak {peak_mib:,.0f} MiB; found {shares}; {len(others)} others"


def texts(count: int, words: int, *, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    shapes = random.Random(0)
    vocabulary = ["".join(shapes.choices("abcdefghijklmnoprstuvwy", k=shapes.randint(2, 10))) for _ in range(VOCABULARY)]
    weights = 1 / np.arange(1, VOCABULARY + 1)
    lengths = generator.integers(words // 2, words * 3 // 2 + 1, size=count)
    drawn = generator.choice(VOCABULARY, size=int(lengths.sum()), p=weights / weights.sum())
    ends = np.cumsum(lengths)
    return [" ".join(vocabulary[word] for word in drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


def plant(held_out: list[str], training: list[str], generator: random.Random) -> dict[str, set[int]]:
    """Put the planted texts into `held_out`; returns where, by the list that they belong to."""
    each = int(len(held_out) * PLANTED)
    places = generator.sample(range(len(held_out)), 3 * each)
    planted: dict[str, set[int]] = {"exact": set(), "fuzzy": set(), "ngram": set()}
    for kind, place in zip([*["exact"] * each, *["fuzzy"] * each, *["ngram"] * each], places, strict=True):
        source = generator.choice(training)
        if kind == "exact":
            held_out[place] = "  ".join(source.upper().split()) + " ?!"
        elif kind == "fuzzy":
            held_out[place] = "".join(generator.choice("xqz") if letter != " " and generator.random() < 1 / 40 else letter for letter in source)
        elif len(source.split()) >= NGRAM:
            held_out[place] = held_out[place] + " " + " ".join(source.split()[-NGRAM:]) + " " + held_out[place]
        else:
            continue
        planted[kind].add(place)
    return planted


def by_kind(found: Contamination) -> dict[str, set[int]]:
    """Samples by list. A changed copy may share 13 words too, and then stands in the stronger list."""
    exact, ngram, fuzzy = ({int(match.sample_id) for match in matches} for matches in (found.exact, found.ngram, found.fuzzy))
    return {"exact": exact, "fuzzy": exact | fuzzy | ngram, "ngram": exact | ngram}


if __name__ == "__main__":
    main()
