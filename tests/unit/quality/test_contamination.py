import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from perfbench.errors import ScenarioError
from perfbench.quality import contamination
from perfbench.quality.contamination import check_contamination, check_training, find_contamination, normalise_text
from perfbench.scenario.model import Prompt
from perfbench.scenario.quality import Classification, Quality
from perfbench.scenario.references import Data

LONG = "the quick brown fox jumps over the lazy dog while the old grey cat sleeps in the warm afternoon sun"


def test_normalisation_by_hand() -> None:
    assert normalise_text("  Turn ON, the\tlights!!  ") == "turn on the lights"
    assert normalise_text("\ufb01ne \u2014 \u201cStra\u00dfe\u201d") == "fine strasse"
    assert normalise_text("?!...") == ""
    assert normalise_text("\u0915\u093f\u0924\u093e\u092c") == "\u0915\u093f\u0924\u093e\u092c"  # vowel signs are marks, not punctuation
    assert normalise_text("3 + 4") != normalise_text("3 < 4")


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert once == once.strip()
    assert "  " not in once


def test_planted_copies_are_found_and_nothing_else() -> None:
    training = ["How do I reset my PIN?", f"{LONG} and then it rains", "My card has not arrived yet, what now?", "Nothing to do with it"]
    samples = {
        "exact": "how do i reset my pin",
        "ngram": f"Once upon a time, {LONG}, said the storyteller who had seen it all, and everybody laughed at the thought",
        "fuzzy": "My card has not arrived yet; what next?",
        "clean": "Where can I withdraw cash abroad?",
        "empty": "?!",
    }
    found = find_contamination(list(samples), list(samples.values()), training)
    assert found.flagged_ids == {"exact"}
    assert [(match.sample_id, match.training_row) for match in found.exact] == [("exact", 0)]
    assert [(match.sample_id, match.training_row, match.training_text) for match in found.ngram] == [("ngram", 1, training[1])]
    assert [(match.sample_id, match.training_row) for match in found.fuzzy] == [("fuzzy", 2)]
    assert (found.fuzzy[0].ratio or 0) == pytest.approx(fuzz.ratio(normalise_text(samples["fuzzy"]), normalise_text(training[2])))
    assert found.warned_ids == {"ngram", "fuzzy"}
    assert (found.samples, found.training_rows) == (5, 4)


@pytest.mark.parametrize(("shared", "hit"), [(12, False), (13, True)])
def test_thirteen_words_in_a_row_and_not_twelve(shared: int, hit: bool) -> None:
    words = [f"w{n}" for n in range(shared)]
    sample = " ".join(["a1", "a2", "a3", *words, *(f"b{n}" for n in range(30))])
    training = " ".join([*(f"c{n}" for n in range(30)), *words, "d1"])
    found = find_contamination(["s"], [sample], [training])
    assert bool(found.ngram) == hit
    assert not found.fuzzy


def test_thirteen_words_across_two_rows_do_not_count() -> None:
    words = [f"w{n}" for n in range(13)]
    found = find_contamination(["s"], [" ".join(words)], [" ".join(words[:6]), " ".join(words[6:])])
    assert not found.ngram


def test_fuzzy_finds_what_comparing_everything_finds() -> None:
    """The blocking may miss a near copy; on sentences with typing errors it must find nearly all, and never invent one."""
    generator = random.Random(1)
    words = ["".join(generator.choices("abcdefghijklmnoprstu", k=generator.randint(3, 9))) for _ in range(600)]
    training = [" ".join(generator.choices(words, k=generator.randint(5, 11))) for _ in range(800)]
    samples = []
    for number in range(200):
        text = list(generator.choice(training) if number % 2 else " ".join(generator.choices(words, k=8)))
        for _ in range(generator.randint(1, 3)):
            text[generator.randrange(len(text))] = generator.choice("abcdefghij ")
        samples.append("".join(text))
    found = find_contamination([str(number) for number in range(200)], samples, training)
    near = {str(n) for n, sample in enumerate(samples) if any(fuzz.ratio(normalise_text(sample), text) >= 90 for text in training)}
    got = {match.sample_id for match in (*found.exact, *found.ngram, *found.fuzzy)}
    assert got <= near
    assert len(near) > 60
    assert len(got) >= 0.97 * len(near)


@given(st.lists(st.text(max_size=30), max_size=6), st.lists(st.text(max_size=30), max_size=6))
def test_exact_is_set_membership_whatever_the_texts(samples: list[str], training: list[str]) -> None:
    found = find_contamination([str(n) for n in range(len(samples))], samples, training)
    known = {normalise_text(text) for text in training} - {""}
    assert found.flagged_ids == {str(n) for n, text in enumerate(samples) if normalise_text(text) in known}
    assert not found.flagged_ids & found.warned_ids


VARIANTS = {
    "case": str.upper,
    "white space": lambda text: "\n ".join(text.split()) + "\t",
    "punctuation": lambda text: "\u00bf" + ", ".join(text.split()) + "?!",
    "width": lambda text: "".join(chr(ord(letter) + 0xFEE0) if "a" <= letter <= "z" else letter for letter in text),
}
"""What normalisation must see through: each is the same words."""
WORDS = st.lists(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=9), min_size=3, max_size=30)


@given(WORDS, st.sampled_from(sorted(VARIANTS)), st.integers(0, 40), st.integers(1, 60))
def test_every_planted_variant_of_a_training_row_is_flagged_with_its_row(words: list[str], variant: str, place: int, block: int) -> None:
    planted = " ".join(words)
    training = [f"row {number} of something else altogether" for number in range(40)]
    training.insert(place, planted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contamination, "BLOCK_ROWS", block)
        found = find_contamination(["planted", "clean"], [VARIANTS[variant](planted), "a clean sample that nobody has seen"], training)
    assert [(match.sample_id, match.training_row, match.training_text) for match in found.exact] == [("planted", place, planted)]
    assert found.training_rows == 41
    assert not found.warned_ids


def test_blocks_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample stands in its strongest list with the first row, whichever block that row is in; a fuzzy one with its nearest row."""
    near, nearer = "My card has not arrived yet; what next", "My card has not arrived yet, what now then"
    training = [f"{LONG} one", near, "filler", nearer, f"{LONG} two", "Copied, word for word", "copied word FOR word", f"once more {LONG}"]
    training.append("an exact copy here")
    samples = [f"Well: {LONG}!", "my card has not arrived yet what now the", "copied word for word", f"{LONG} one", "an exact copy here"]
    whole = find_contamination([str(n) for n in range(5)], samples, training)
    told: list[int] = []
    for block in (1, 2, 3):
        monkeypatch.setattr(contamination, "BLOCK_ROWS", block)
        assert find_contamination([str(n) for n in range(5)], samples, iter(training), told.append if block == 3 else None) == whole
    assert told == [3, 6, 9]
    assert [(match.sample_id, match.training_row) for match in whole.exact] == [("2", 5), ("3", 0), ("4", 8)]
    assert [(match.sample_id, match.training_row) for match in whole.ngram] == [("0", 0)]
    assert [(match.sample_id, match.training_row) for match in whole.fuzzy] == [("1", 3)]


def quality(tmp_path: Path, rows: list[dict[str, object]], training: list[dict[str, object]] | None, column: str | None = None) -> Quality:
    for name, content in (("eval.jsonl", rows), ("train.jsonl", training or [])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    task = Classification(task="classification", expected="label")
    train = None if training is None else Data(path=str(tmp_path / "train.jsonl"))
    return Quality(data=Data(path=str(tmp_path / "eval.jsonl")), task=task, margin=0.05, train_data=train, train_column=column)


ROWS: list[dict[str, object]] = [{"text": "Where is my card?", "label": "a"}, {"text": "Close my account", "label": "b"}]
PROMPT = Prompt(system="You are a bank's assistant and answer with exactly one word and nothing else, whatever the customer says", user="Customer: {{ text }}")


def test_only_what_the_row_brings_is_compared_not_the_template(tmp_path: Path) -> None:
    block = quality(tmp_path, ROWS, [{"text": "where is my card"}, {"text": "Where is my new phone?"}])
    found = check_contamination(block, PROMPT, ["0", "1"], ROWS)
    assert found is not None
    assert found.flagged_ids == {"0"}
    assert found.warned_ids == set()


def test_a_training_column_is_compared_with_the_same_column_or_with_the_prompt(tmp_path: Path) -> None:
    block = quality(tmp_path, ROWS, [{"utterance": "CLOSE my account."}], "utterance")
    found = check_contamination(block, PROMPT, ["0", "1"], ROWS)
    assert found is not None
    assert found.flagged_ids == {"1"}


def test_no_training_data_is_unknown_and_lacking_columns_are_said(tmp_path: Path) -> None:
    assert check_contamination(quality(tmp_path, ROWS, None), PROMPT, ["0", "1"], ROWS) is None
    with pytest.raises(ScenarioError, match=r"row 1 of .*train.jsonl lacks `text`, which the prompt is made of; name .* one of utterance"):
        check_training(quality(tmp_path, ROWS, [{"text": "x"}, {"utterance": "x"}]), PROMPT)
    with pytest.raises(ScenarioError, match=r"row 0 of .*train.jsonl lacks `nothing`; name"):
        check_training(quality(tmp_path, ROWS, [{"text": "x"}], "nothing"), PROMPT)
    with pytest.raises(ScenarioError, match=r"no `quality.train_data`"):
        check_training(quality(tmp_path, ROWS, None, "text"), PROMPT)


def test_of_chat_messages_what_the_user_says_is_compared(tmp_path: Path) -> None:
    said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Close my account!"}, {"role": "assistant", "content": "Done."}]
    block = quality(tmp_path, ROWS, [{"messages": said}], "messages")
    check_training(block, PROMPT)
    found = check_contamination(block, PROMPT, ["0", "1"], ROWS)
    assert found is not None
    assert found.flagged_ids == {"1"}
