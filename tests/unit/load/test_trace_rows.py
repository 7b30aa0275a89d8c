"""Traces are read as they are published, row by row; a row that cannot be used is named by its line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfbench.load.trace_rows import TraceError, TraceRow, read_rows, trace_format

REAL = Path(__file__).parents[4] / "shared" / "data" / "traces"

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n"
AZURE_2024 = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 23:59:59.500000+00:00,10,2\n2024-05-11 00:00:00.250000+00:00,11,3\n"
MOONCAKE = (
    '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n'
    '{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46, 50], "further": 1}\n'
)
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n45.5,ChatGPT,1087,0,1087,API log\n"
BURSTGPT_NEW = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    '100,abc,0.5,GPT-4,7,8,15,API log\n101,,0.5,"GPT-4, new",9,10,19,API log\n'
)
OWN = (
    '{"offset_s": 0.5, "input_tokens": 12, "output_tokens": 3, "session": "a"}\n\n'
    '{"offset_s": 0.5, "prompt": "Grüß dich", "output_tokens": 4}\n'
    '{"offset_s": 2, "messages": [{"role": "user", "content": "hi"}]}\n'
)


@pytest.fixture
def write(tmp_path: Path):
    def write_trace(content: str | bytes, name: str = "trace") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_trace


def fails(path: str, kind=None) -> str:
    with pytest.raises(TraceError) as caught:
        list(read_rows(path, kind))
    return str(caught.value)


def test_azure_counts_from_its_first_row(write):
    assert list(read_rows(write(AZURE))) == [TraceRow(2, 0.0, 374, 44), TraceRow(3, 4.314579, 396, 109)]
    assert [row.offset_s for row in read_rows(write(AZURE_2024))] == [0.0, 0.75]
    assert [row.offset_s for row in read_rows(write("\ufeff" + AZURE_2024))] == [0.0, 0.75]


def test_mooncake_has_milliseconds_and_blocks(write):
    rows = list(read_rows(write(MOONCAKE)))
    assert [(row.offset_s, row.input_tokens, row.output_tokens, row.blocks) for row in rows] == [
        (0.0, 6955, 52, (46, 47)), (pytest.approx(3.053), 6472, 26, (46, 50)),
    ]  # fmt: skip


def test_burstgpt_old_and_new(write):
    assert list(read_rows(write(BURSTGPT))) == [TraceRow(2, 0.0, 472, 18), TraceRow(3, 40.5, 1087, 0)]
    assert [(row.offset_s, row.input_tokens, row.output_tokens, row.session) for row in read_rows(write(BURSTGPT_NEW))] == [
        (0.0, 7, 8, "abc"), (1.0, 9, 10, None),
    ]  # fmt: skip


def test_our_own_counts_from_zero_and_carries_prompts(write):
    rows = list(read_rows(write(OWN)))
    assert [row.line for row in rows] == [1, 3, 4]
    assert [row.offset_s for row in rows] == [0.5, 0.5, 2.0]
    assert rows[0][2:] == (12, 3, None, None, (), "a")
    assert rows[1].prompt == "Grüß dich"
    assert rows[2].messages == [{"role": "user", "content": "hi"}]
    assert rows[2].output_tokens is None


@pytest.mark.parametrize(
    ("content", "kind"),
    [(AZURE, "azure"), (AZURE_2024, "azure"), (MOONCAKE, "mooncake"), (BURSTGPT, "burstgpt"), (BURSTGPT_NEW, "burstgpt"), (OWN, "jsonl")],
)
def test_the_first_line_tells_the_format(content, kind):
    assert trace_format(content.splitlines()[0], "x") == kind


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        ("", None, "is empty"),
        ("\n \n", None, "is empty"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", None, "holds no request"),
        ("a,b\n1,2\n", None, "no trace that perfbench knows"),
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,1\n", None, "line 1 has no column `GeneratedTokens`; its columns are TIMESTAMP, ContextTokens"),
        ("Timestamp,Request tokens\n1,2\n", None, "line 1 has no column `Response tokens`"),
        (BURSTGPT, "azure", "line 1 has no column `TIMESTAMP`, `ContextTokens`, `GeneratedTokens`"),
        (AZURE.replace("374", "-374"), None, "line 2: ContextTokens is `-374`"),
        (AZURE.replace("109", "many"), None, "line 3: GeneratedTokens is `many`"),
        (AZURE.replace("2023-11-16 18:15:50.9951690", "yesterday"), None, "line 3: TIMESTAMP is `yesterday`"),
        (AZURE.replace("18:15:50", "18:15:40"), None, "line 3: time goes back by 5.68"),
        (AZURE.replace(",396,109", ""), None, "line 3 has 1 fields, the header 3"),
        (BURSTGPT.replace("45.5", "4.5"), None, "line 3: time goes back by 0.5 s"),
        (BURSTGPT.replace("45.5", "nan"), None, "line 3: Timestamp is `nan`"),
        (MOONCAKE.replace("30535", "27481"), None, "line 2: time goes back by 0.001 s"),
        (MOONCAKE.replace("6472", "-1"), None, "line 2: expected `int` >= 0 - at `$.input_length`"),
        (MOONCAKE.replace(', "hash_ids": [46, 50]', ""), None, "line 2: the row lacks `hash_ids`"),
        (MOONCAKE + "not json\n", None, "line 3 is no JSON object"),
        (MOONCAKE + "[1]\n", None, "line 3: expected `object`, got `array`"),
        (OWN.replace("output_tokens", "output_token", 1), None, "line 1: the row has the unknown key `output_token`"),
        (OWN.replace('"prompt": "Grüß dich", ', ""), None, "line 3 says nothing of its prompt"),
        (OWN.replace('"prompt"', '"messages": [{"role": "user", "content": "a"}], "prompt"'), None, "line 3 has both `prompt` and `messages`"),
        (OWN.replace('"offset_s": 2', '"offset_s": -2'), None, "line 4: expected `float` >= 0.0 - at `$.offset_s`"),
        (OWN.replace('"offset_s": 2', '"offset_s": 0.25'), None, "line 4: time goes back by 0.25 s"),
        (AZURE.encode() + b"2023-11-16 18:15:51,\xff,1\n", None, "line 4 is not UTF-8"),
        (b"\xff\xfe" + AZURE.encode("utf-16-le"), None, "line 1 is not UTF-8"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_sentence_with_its_line(write, content, kind, says):
    told = fails(write(content), kind)
    assert says in told
    assert "\n" not in told


def test_rows_before_a_mistake_are_handed_out_one_at_a_time(write):
    rows = read_rows(write(AZURE + "2023-11-16 18:15:51,oops,1\n"))
    assert [next(rows).line, next(rows).line] == [2, 3]
    with pytest.raises(TraceError, match="line 4"):
        next(rows)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=20))
def test_every_format_gives_back_what_was_written(tmp_path_factory, rows):
    rows = sorted(rows)
    begin = datetime(2024, 2, 28, 23, 0)
    texts = {
        "azure": ["TIMESTAMP,ContextTokens,GeneratedTokens", *(f"{begin + timedelta(milliseconds=ms)},{a},{b}" for ms, a, b in rows)],
        "burstgpt": ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type", *(f"{ms / 1000},m,{a},{b},{a + b},API log" for ms, a, b in rows)],
        "mooncake": [json.dumps({"timestamp": ms, "input_length": a, "output_length": b, "hash_ids": [a, b]}) for ms, a, b in rows],
        "jsonl": [json.dumps({"offset_s": ms / 1000, "input_tokens": a, "output_tokens": b}) for ms, a, b in rows],
    }
    folder = tmp_path_factory.mktemp("traces")
    for kind, lines in texts.items():
        (folder / kind).write_text("\n".join(lines))
        origin = 0 if kind == "jsonl" else rows[0][0]
        read = list(read_rows(str(folder / kind)))
        assert [(row.input_tokens, row.output_tokens) for row in read] == [(a, b) for _, a, b in rows]
        assert [row.offset_s for row in read] == pytest.approx([(ms - origin) / 1000 for ms, _, _ in rows], abs=1e-6)


def test_a_long_trace_is_read_in_the_memory_of_a_short_one(tmp_path):
    """200,000 rows: kept, their tuples alone would be 30 MB; read one by one, the peak of the process must not move by 4 MB."""
    path = tmp_path / "long.csv"
    with path.open("w") as file:
        file.write("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n")
        file.writelines(f"{number / 10},ChatGPT,{300 + number % 700},{number % 400},0,API log\n" for number in range(200_000))
    code = (
        "import resource, sys\nfrom perfbench.load.trace_rows import read_rows\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "rows = read_rows(sys.argv[1]); [next(rows) for _ in range(1000)]\nbefore = peak()\n"
        "count = sum(1 for _ in rows)\nprint(count, peak() - before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, env=environment)
    count, grown_kib = map(int, done.stdout.split())
    assert count == 199_000
    assert grown_kib < 4096


def real(name: str) -> str:
    if not (REAL / name).is_file():
        pytest.skip(f"{REAL / name} is not here: the published trace is not tried")
    return str(REAL / name)


def test_the_published_azure_trace():
    rows = list(read_rows(real("AzureLLMInferenceTrace_conv.csv")))
    assert len(rows) == 19_366
    assert (rows[0].input_tokens, rows[0].output_tokens) == (374, 44)
    assert rows[-1].offset_s == pytest.approx(3501.721937)
    assert sorted(row.input_tokens for row in rows)[len(rows) // 2] == 1020
    assert sorted(row.output_tokens for row in rows)[len(rows) // 2] == 129


def test_the_published_mooncake_trace():
    rows = list(read_rows(real("mooncake_synthetic_trace.jsonl")))
    assert len(rows) == 3_993
    assert rows[-1].offset_s == pytest.approx(1022.025)
    assert all(len(row.blocks) == -(-row.input_tokens // 512) for row in rows)
