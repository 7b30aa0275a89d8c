"""The demo's assets as a user gets them: the real base, the kept adapter, and what comes out when they are merged."""

from pathlib import Path

import msgspec
import pytest

from perfbench.models import demo, demo_base
from perfbench.models.commands import HELDOUT_ROWS, Row, load_language, make_data
from perfbench.models.demo import ADAPTER_SOURCE, prepare_demo
from perfbench.models.fit import check_adapter_fits, check_adapter_serves
from perfbench.models.inspect import inspect_adapter, inspect_model
from perfbench.models.merge import merge_adapter
from perfbench.models.recipe import Settings, _answer_loss, _batches, answers, chat_prompt, exact_match
from perfbench.scenario.data_files import check_rows

pytestmark = [pytest.mark.live, pytest.mark.filterwarnings("ignore::UserWarning:peft.*"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder() -> Path:
    return prepare_demo(progress=lambda line: None)


def test_everything_that_a_scenario_names_is_there(folder: Path) -> None:
    for name in ("train", "heldout", "load"):
        check_rows(str(folder / f"{name}.jsonl"))
    rows = [msgspec.json.decode(line, type=Row) for line in (folder / "heldout.jsonl").read_bytes().splitlines()]
    assert len(rows) == HELDOUT_ROWS
    assert inspect_model(folder / "base").parameters == 134_515_008
    assert inspect_adapter(folder / "adapter").lora_rank == Settings().rank


def test_the_kept_adapter_is_small_fits_and_can_be_served(folder: Path) -> None:
    assert sum(file.stat().st_size for file in ADAPTER_SOURCE.iterdir()) <= 2**20
    assert check_adapter_fits(folder / "base", folder / "adapter") == []
    check_adapter_serves(folder / "adapter")


def test_a_second_call_makes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(demo_base, "_convert", never)
    monkeypatch.setattr(demo, "make_data", never)
    assert prepare_demo(progress=never) == folder


def test_a_lost_part_is_made_again(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFBENCH_CACHE", str(tmp_path))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "base").symlink_to(folder / "base")
    made = prepare_demo(progress=lambda line: None)
    (made / "demo.json").unlink()
    (made / "load.jsonl").unlink()
    assert prepare_demo(progress=lambda line: None) == made
    assert (made / "load.jsonl").read_bytes() == (folder / "load.jsonl").read_bytes()


def test_adapter_and_merged_answer_alike_and_better_than_base(folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = make_data(load_language()).heldout[:12]
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")

    def load(path: Path) -> "torch.nn.Module":
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    base_answers = answers(load(folder / "base"), tokenizer, rows)
    adapter_answers = answers(PeftModel.from_pretrained(load(folder / "base"), folder / "adapter"), tokenizer, rows)
    merged_answers = answers(load(merge_adapter(folder / "base", folder / "adapter", "float32")), tokenizer, rows)
    assert merged_answers == adapter_answers
    assert exact_match(adapter_answers, rows) > exact_match(base_answers, rows) + 0.3


def test_the_packed_loss_of_the_recipe_is_the_loss_row_by_row(folder: Path) -> None:
    """Rows share one prefix in one sequence: a wrong mask or position would train on something else."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    batch = _batches(tokenizer, make_data(load_language()).train[:4], Settings(batch_rows=4))[0]
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for prompt, answer in batch:
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
            tokens += len(answer)
        packed = float(_answer_loss(get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])), batch))
    assert packed == pytest.approx(total / tokens, rel=1e-5)


def test_training_prompts_are_the_chat_template_s(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    text = tokenizer.decode(chat_prompt(tokenizer, "lights on"))
    assert text.startswith("<|im_start|>system\nTurn the home command")
    assert text.endswith("<|im_end|>\n<|im_start|>user\nlights on<|im_end|>\n<|im_start|>assistant\n")
