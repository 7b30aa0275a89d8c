"""Files of rows: the same rows whatever the form, one sentence for every way a file can be broken, and columns by their new names."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfbench.scenario.data_files import check_rows, iter_rows, read_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)


def write(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@given(rows=st.lists(st.fixed_dictionaries({"id": TEXT, "Frage, lang": TEXT}), min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_any_text_comes_back_from_every_form(tmp_path: Path, suffix: str, rows: list[dict]) -> None:
    path = write(tmp_path / f"rows{suffix}", rows)
    assert read_rows(path) == rows
    check_rows.__globals__["_checked"].cache_clear()  # a file that is written anew within a clock tick
    assert check_rows(path) == {"id", "Frage, lang"}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_columns_are_renamed_and_limits_kept(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"rows{suffix}", [{"Question": f"q{n}", "prompt": "old", "x": f"{n}"} for n in range(5000)])
    assert read_rows(path, 2, {"prompt": "Question"}) == [{"prompt": "q0", "x": "0"}, {"prompt": "q1", "x": "1"}]
    assert read_rows(path, 1, {"prompt": "Question", "Question": "prompt"}) == [{"prompt": "q0", "Question": "old", "x": "0"}]
    assert sum(1 for _ in iter_rows(path)) == 5000


def test_parquet_keeps_lists_and_numbers(tmp_path: Path) -> None:
    rows = [{"turns": ["a", "b"], "n": 3}, {"turns": [], "n": None}]
    assert read_rows(write(tmp_path / "rows.parquet", rows)) == rows


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("r.csv", b"", "is empty"),
        ("r.csv", b"a,b\n", "is empty"),
        ("r.csv", b"a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, its header 2"),
        ("r.csv", b"a,b\n1\n", "line 2 has 1 fields, its header 2"),
        ("r.csv", b"a,a\n1,2\n", "two columns named `a`"),
        ("r.csv", b"a\ncaf\xe9\n", "is not UTF-8"),
        ("r.csv", b'a,b\n"x" y,2\n', "line 2 is no CSV"),
        ("r.csv", b'a\n"never closed\n', "is no CSV"),
        ("r.jsonl", b"\n \n", "is empty"),
        ("r.jsonl", b'{"a": 1}\n{"a": \xe9}\n', "line 2 is not UTF-8"),
        ("r.jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("r.jsonl", b'{"a": 1}\n{"a": NaN}\n', r"line 2 is no JSON object \(JSON is malformed: invalid character \(byte 6\)\)"),
        ("r.jsonl", b'{"a": ' + b"[" * 100_000, r"line 1 is no JSON object \(it is nested too deep\)"),
        ("r.parquet", b"PAR1 not at all", "is no Parquet file"),
        ("r.parquet", b"", "is no Parquet file"),
        ("r.xlsx", b"PK", "ends in .jsonl, .csv or .parquet"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        check_rows(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        check_rows(str(tmp_path / "none.csv"))
    with pytest.raises(ValueError, match="is a folder; expected a JSONL"):
        check_rows(str(tmp_path))


def test_a_byte_order_mark_before_jsonl_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert read_rows(str(path)) == [{"a": 1}, {"a": 2}]


def test_excels_byte_order_mark_and_long_fields_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,n\r\n" + b"x" * 300_000 + b",1\r\n\r\n")
    assert check_rows(str(path)) == {"prompt", "n"}
    assert len(str(read_rows(str(path))[0]["prompt"])) == 300_000


def test_a_changed_file_is_checked_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n')
    assert check_rows(str(path)) == {"a"}
    path.write_text('{"a": 1, "b": 2}\n{"b": 3}\n')
    assert check_rows(str(path)) == {"b"}
