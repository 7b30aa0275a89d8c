"""The sizing commands: what they print, and that a user's mistake ends with its sentence and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perfbench.cli import app
from perfbench.errors import InputError

CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
    "vocab_size": 128256, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
LENGTHS = ("--input-tokens", "1000", "--output-tokens", "200")


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def test_an_estimate_as_json_and_as_tables(config: str) -> None:
    found = json.loads(CliRunner().invoke(app, ["estimate", "--model", config, "--gpu", "H100", "--gpu", "t4", "--gpus", "1,2", *LENGTHS, "--json"]).stdout)
    assert [(one["gpu"], one["gpus"], one["fits"]) for one in found["estimates"]] == [
        ("h100-80gb", 1, True), ("h100-80gb", 2, True), ("t4", 1, False), ("t4", 2, False),
    ]  # fmt: skip
    assert found["gpus"]["h100-80gb"]["source"].startswith("NVIDIA H100") and any("Bounds, not forecasts" in one for one in found["assumptions"])
    shown = CliRunner().invoke(app, ["estimate", "--model", config, "--gpu", "h100", *LENGTHS]).stdout
    assert "Does it fit" in shown and "Bounds by the roofline" in shown and "438,976" in shown


def test_the_table_of_gpus(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("mine: {memory_gb: 48, bandwidth_gb_s: 864, tflops: {bf16: 181}, source: data sheet, as_of: 2026-11-25}\n")
    found = json.loads(CliRunner().invoke(app, ["estimate", "--list-gpus", "--gpu-file", str(mine), "--json"]).stdout)
    assert found["mine"]["memory_gb"] == 48 and "h100-80gb" in found
    shown = " ".join(CliRunner().invoke(app, ["estimate", "--list-gpus"], env={"COLUMNS": "400"}).stdout.split())
    assert "(vendor)" in shown and "(third party)" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gpu", "h1000"], "did you mean `h100-80gb`?"), ([], "expected --gpu"), (["--gpu", "l4", "--gpus", "1,two"], "--gpus: expected whole numbers"),
        (["--gpu", "l4", "--gpus", "0"], "--gpus: expected whole numbers"), (["--gpu", "l4", "--weights", "int2"], "--weights: `int2` is not known"),
    ],
)  # fmt: skip
def test_a_mistake_is_an_input_error(config: str, arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["estimate", "--model", config, *LENGTHS, *arguments])
    assert isinstance(done.exception, InputError) and done.exception.exit_code == 2 and says in str(done.exception)


def test_an_estimate_loads_neither_torch_nor_a_server(config: str) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from perfbench.cli import app\n"
        f"done = CliRunner().invoke(app, ['estimate', '--model', {config!r}, '--gpu', 'h100', '--json', *{LENGTHS!r}])\n"
        "assert done.exit_code == 0, done.output\n"
        "heavy = {'torch', 'transformers', 'vllm', 'locust', 'scipy', 'sklearn', 'pynvml', 'plotly'} & set(sys.modules)\n"
        "print(','.join(sorted(heavy)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
