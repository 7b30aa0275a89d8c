"""BLEU and chrF against sacrebleu's own figures: its published example, its corpus scores of any resample, its paired bootstrap."""

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from perfbench.quality import translation as t
from perfbench.quality.measures import Reading, estimates, paired_difference
from perfbench.records import QualityRecord
from perfbench.scenario.quality import Translation

# The example of sacrebleu's README, with its figures: BLEU 48.53, chrF2 59.73.
OUTPUTS = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."], ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."],
]  # fmt: skip
TASK = Translation(task="translation", expected="want")
ONES = np.ones((1, 3))


def expected(references: list[list[str]]) -> list[str]:
    return [t.expected_text(given) for given in references]


def test_the_published_example() -> None:
    chrf, bleu = t.corpus_statistics(expected(REFERENCES), OUTPUTS, "13a")(ONES)[0]
    assert 100 * bleu == pytest.approx(48.53, abs=0.005)
    assert 100 * chrf == pytest.approx(59.73, abs=0.005)


VOCABULARY = ("the", "cat", "sat", "on", "a", "mat", "dog", "ran", ",", "home", "3.5", "caf\u00e9")


def corpus(seed: int, n: int, noise: float) -> tuple[list[str], list[str]]:
    random = np.random.default_rng(seed)
    references, outputs = [], []
    for _ in range(n):
        words = [VOCABULARY[k] for k in random.integers(0, len(VOCABULARY), int(random.integers(0, 14)))] or ["cat"]
        kept = [word if random.random() > noise else VOCABULARY[int(random.integers(0, len(VOCABULARY)))] for word in words if random.random() > noise / 3]
        references.append(" ".join(words))
        outputs.append(" ".join(kept))
    return references, outputs


def test_any_resample_is_sacrebleus_score_of_the_repeated_documents() -> None:
    references, outputs = corpus(1, 12, 0.3)
    outputs[3] = ""
    weights = np.random.default_rng(2).multinomial(12, np.full(12, 1 / 12), size=6).astype(float)
    weights[0] = 1
    for row, (chrf, bleu) in zip(weights, t.corpus_statistics(references, outputs, "13a")(weights), strict=True):
        drawn = [n for n, times in enumerate(row) for _ in range(int(times))]
        said, wanted = [outputs[n] for n in drawn], [[references[n] for n in drawn]]
        assert 100 * bleu == pytest.approx(BLEU().corpus_score(said, wanted).score, abs=1e-9)
        assert 100 * chrf == pytest.approx(CHRF().corpus_score(said, wanted).score, abs=1e-9)


@pytest.mark.parametrize("outputs", [["", "", ""], ["x", "y", "z"], ["dog", "it", "man"]])
def test_hopeless_answers_have_a_score(outputs: list[str]) -> None:
    chrf, bleu = t.corpus_statistics(expected(REFERENCES), outputs, "13a")(ONES)[0]
    columns = [[given[number] for given in REFERENCES] for number in range(2)]
    assert 100 * bleu == pytest.approx(sacrebleu.corpus_bleu(outputs, columns).score, abs=1e-9)
    assert 100 * chrf == pytest.approx(sacrebleu.corpus_chrf(outputs, columns).score, abs=1e-9)


def records(variant: str, references: list[str], outputs: list[str]) -> list[QualityRecord]:
    made = []
    for number, (reference, output) in enumerate(zip(references, outputs, strict=True)):
        scored = t.score(output, [reference], 0.5, finish_reason="stop")
        made.append(
            QualityRecord(
                sample_id=str(number), variant=variant, prompt="", prompt_sha256="", expected=reference, output=output, scores=scored.scores,
                passed=scored.passed, label=scored.label,
            )
        )
    return made


def test_the_paired_interval_agrees_with_sacrebleus_paired_bootstrap() -> None:
    references, base = corpus(3, 120, 0.25)
    _, worse = corpus(3, 120, 0.25)
    random = np.random.default_rng(9)
    worse = [" ".join(word for word in output.split() if random.random() > 0.2) for output in worse]
    reading = Reading(TASK, ())
    pair = paired_difference(records("base", references, base), records("adapter", references, worse), "bleu", reading)
    _, theirs = PairedTest([("base", base), ("adapter", worse)], {"BLEU": BLEU(references=[references])}, None, test_type="bs", n_samples=2000)()
    before, after = theirs["BLEU"]
    assert pair.value == pytest.approx((after.score - before.score) / 100, abs=1e-9)
    low, high = pair.interval(0.95)
    assert low < pair.value < high < 0  # they, too, find it worse
    assert after.p_value is not None
    assert after.p_value < 0.05
    single = estimates(records("base", references, base), reading)["bleu"]
    assert single.value == pytest.approx(before.score / 100, abs=1e-9)
    assert before.mean is not None
    assert before.ci is not None
    assert single.ci95_low is not None
    assert single.ci95_high is not None
    assert (single.ci95_high - single.ci95_low) / 2 == pytest.approx(before.ci / 100, rel=0.15)


@pytest.mark.parametrize(
    ("output", "finish", "label"),
    [
        (None, "stop", "no answer"), ("", "stop", "too short"), ("The dog bit the man.", "stop", "correct answer"), ("Der Hund.", "stop", "incomplete answer"),
        ("Der Hund hat ihn gebissen", "stop", "wrong answer"), ("x " * 60, "stop", "too verbose"), ("Nicht ganz so", "length", "too verbose"),
    ],
)  # fmt: skip
def test_labels(output: str | None, finish: str, label: str) -> None:
    scored = t.score(output, REFERENCES[0], 0.5, finish_reason=finish)
    assert scored.label == label


def test_signatures_name_the_settings() -> None:
    found = t.signatures("zh")
    assert "tok:zh" in found["bleu"]
    assert "nc:6" in found["chrf"]
    assert f"version:{sacrebleu.__version__}" in found["bleu"]


def test_references_survive_the_record() -> None:
    for given in (["one"], ["one", "two"], ["[sic] a bracket"]):
        assert t.references_of(t.expected_text(given)) == given
