"""How often the quality verdict is wrong: many simulated runs with a known true difference, per kind of metric.

    python benchmarks/quality/decision.py [--runs 500] [--samples 250]

Method: each run draws what base and a variant answer to the same samples, decides as perfbench does (90% interval against the margin of 0.05), and
counts. `equal`: no difference, must hardly ever fail. `on the margin`: may pass, and may fail, in 5% of runs at most (alpha, one-sided). `planted`: 14
points worse, must be found. `three metrics`: Holm over three independent shares that all lie on the margin; any pass is wrong, 5% at most. Prints one
line a case; bootstraps get a fifth of the runs. Rates have a standard error of sqrt(p (1 - p) / runs).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache

import msgspec
import numpy as np

from perfbench.quality.decide import holm
from perfbench.quality.measures import Paired, Reading, paired_difference
from perfbench.quality.translation import corpus_statistics
from perfbench.records import QualityRecord
from perfbench.scenario.quality import QuestionAnswering, Translation

MARGIN = 0.05
POOL = 6000
WORDS = np.array(["the", "a", "dog", "cat", "ran", "sat", "home", "fast", "slow", "on", "in", "mat", "blue", "red", "old", "new", "house", "tree"])


def record(number: int, variant: str, metric: str, score: float, group: str | None) -> QualityRecord:
    common = {"prompt": "", "prompt_sha256": "", "expected": "", "output": "", "passed": None, "label": ""}
    return QualityRecord(sample_id=str(number), variant=variant, scores={metric: score}, group=group, **common)  # type: ignore[arg-type]


def shares(random: np.random.Generator, n: int, shift: float) -> Paired:
    """15% of the answers differ."""
    worse, better = 0.075 - shift / 2, 0.075 + shift / 2
    draw = random.choice(3, size=n, p=[worse, better, 1 - worse - better])
    return _pair("exact_match", (draw != 1).astype(float), (draw != 0).astype(float))


def means(random: np.random.Generator, n: int, shift: float) -> Paired:
    """Differences of a score, normal, with a spread of 0.25."""
    before = random.random(n)
    return _pair("token_f1", before, before + random.normal(shift, 0.25, n))


def groups(random: np.random.Generator, n: int, shift: float) -> Paired:
    """Groups of 5 that share half of the spread."""
    shared = np.repeat(random.normal(0, 0.18, -(-n // 5)), 5)[:n]
    before = random.random(n)
    return _pair("token_f1", before, before + shift + shared + random.normal(0, 0.18, n), [f"g{number // 5}" for number in range(n)])


@cache
def pool(shift: float) -> tuple[list[tuple[QualityRecord, QualityRecord]], float]:
    """Documents that runs draw from, and what chrF truly loses over them: with 30% of the words changed at random in base, and `-shift` more in the
    variant. Without a shift both sides of a document are as likely either variant's, so that they lose nothing."""
    random, pairs = np.random.default_rng(1), []
    for number in range(POOL):
        reference = random.choice(WORDS, size=int(random.integers(5, 15)))
        said = [
            np.where(random.random(len(reference)) < rate, random.choice(WORDS, size=len(reference)), reference) for rate in (0.3, 0.3 - shift)
        ]
        left, right = (
            msgspec.structs.replace(record(number, variant, "sentence_chrf", 0.5, None), expected=" ".join(reference), output=" ".join(words))
            for variant, words in zip(("base", "adapter"), said, strict=True)
        )
        pairs.append((left, right))
    statistics = [
        corpus_statistics([pair[side].expected for pair in pairs], [pair[side].output for pair in pairs], "13a")(np.ones((1, POOL)))[0, 0] for side in (0, 1)
    ]
    return pairs, float(statistics[1] - statistics[0]) if shift else 0.0


def corpora(random: np.random.Generator, n: int, shift: float) -> Paired:
    """Translations out of the pool, numbered anew: a document may be drawn twice."""
    left, right = [], []
    for number, place in enumerate(random.integers(0, POOL, n)):
        pair = pool(shift)[0][place]
        base, variant = (pair[1], pair[0]) if not shift and random.random() < 0.5 else pair
        left.append(msgspec.structs.replace(base, sample_id=str(number), variant="base"))
        right.append(msgspec.structs.replace(variant, sample_id=str(number), variant="adapter"))
    return paired_difference(left, right, "chrf", Reading(Translation(task="translation", expected="x"), ()))


READING = Reading(QuestionAnswering(task="qa", expected="x"), ())


def _pair(metric: str, before: np.ndarray, after: np.ndarray, of: list[str] | None = None) -> Paired:
    left, right = (
        [record(number, variant, metric, float(score), of[number] if of else None) for number, score in enumerate(scores)]
        for variant, scores in (("base", before), ("adapter", after))
    )
    return paired_difference(left, right, metric, READING)


def rates(draw: Callable[[np.random.Generator, int, float], Paired], n: int, shift: float, runs: int, margin: float = MARGIN) -> tuple[float, float]:
    random = np.random.default_rng(5)
    verdicts = [holm([draw(random, n, shift)], [margin])[0][0] for _ in range(runs)]
    return verdicts.count("pass") / runs, verdicts.count("fail") / runs


def several(n: int, runs: int) -> float:
    """Share of runs in which any of three metrics on the margin passes."""
    random = np.random.default_rng(6)
    return sum(any(verdict == "pass" for verdict, _ in holm([shares(random, n, -MARGIN) for _ in range(3)], [MARGIN] * 3)) for _ in range(runs)) / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--samples", type=int, default=250)
    given = parser.parse_args()
    lost = -pool(-MARGIN)[1]
    print(f"{given.runs} runs of {given.samples} samples, margin {MARGIN}\n{'metric':24}{'true difference':18}{'pass':>8}{'fail':>8}")
    for name, draw in (("share (Tango)", shares), ("mean (BCa)", means), ("groups (cluster)", groups), ("chrF (documents)", corpora)):
        for told, shift in (("equal", 0.0), ("on the margin", -MARGIN), ("planted", -0.14)):
            runs = given.runs if draw is shares else max(1, given.runs // 5)
            passed, failed = rates(draw, given.samples, shift, runs, lost if draw is corpora else MARGIN)
            print(f"{name:24}{told:18}{passed:8.1%}{failed:8.1%}", flush=True)
    print(f"{'three metrics (Holm)':24}{'on the margin':18}{several(given.samples, given.runs):8.1%}{'':>8}")


if __name__ == "__main__":
    main()
