"""Rows become requests in one way, templates cannot reach Python, and hashes tell different prompts apart."""

import json
from pathlib import Path

import pytest

from perfbench import prompts
from perfbench.errors import ScenarioError
from perfbench.prompts import hash_all, readable, render_data, request_body
from perfbench.scenario.model import Decoding, Output, Prompt
from perfbench.scenario.references import Data


def data(tmp_path: Path, *rows: dict, limit: int | None = None) -> Data:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Data(path=str(path), limit=limit)


def test_rows_become_messages(tmp_path):
    prompts, rows = render_data(data(tmp_path, {"q": "eins", "id": "a"}, {"q": "zwei"}), Prompt(system="S", user="<{{ q }}>"), key="load.data")
    assert prompts[0].messages == [{"role": "system", "content": "S"}, {"role": "user", "content": "<eins>"}]
    assert [prompt.prompt_id for prompt in prompts] == ["a", "1"]
    assert rows[1] == {"q": "zwei"}


def test_completions_get_plain_text(tmp_path):
    prompts, _ = render_data(data(tmp_path, {"q": "x"}), Prompt(system="S\n", user="{{ q }}", api="completions"), key="load.data")
    assert (prompts[0].messages, prompts[0].text) == (None, "S\nx")


def test_limit_takes_the_first_rows(tmp_path):
    prompts, _ = render_data(data(tmp_path, {"prompt": "1"}, {"prompt": "2"}, limit=1), Prompt(), key="load.data")
    assert len(prompts) == 1


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ missing }}", "its columns are q, nothing"),
        ("{{ q", "not a Jinja template"),
        ("{{ q.__class__.__mro__ }}", "cannot be filled"),
        ("{{ nothing }}", "cannot be filled from row 0 of .*: a value that it writes is null; give the row a text"),
        ("{% for i in range(999999999) %}{% endfor %}", "cannot be filled"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more than 0.2 s of CPU time to fill from row 0"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "it takes itself again and again"),
        ("{{ 'x' * 10 ** 17 }}", "it takes more memory than there is"),
    ],
)
def test_a_template_that_does_not_fit_is_one_sentence(tmp_path, template, says, monkeypatch):
    monkeypatch.setattr(prompts, "_ROW_S", 0.2)
    with pytest.raises(ScenarioError, match=says):
        render_data(data(tmp_path, {"q": "x", "nothing": None}), Prompt(user=template), key="load.data")
    assert render_data(data(tmp_path, {"q": None}), Prompt(user="<{{ q or '' }}>"), key="load.data")[0][0].messages[0]["content"] == "<>"


def test_an_id_used_twice_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match="make ids unique"):
        render_data(data(tmp_path, {"prompt": "x", "id": 1}, {"prompt": "y", "id": 1}), Prompt(), key="load.data")


def test_hashes_follow_content_and_order(tmp_path):
    one, _ = render_data(data(tmp_path, {"prompt": "a"}, {"prompt": "b"}), Prompt(), key="k")
    same, _ = render_data(data(tmp_path, {"prompt": "a"}, {"prompt": "b"}), Prompt(), key="k")
    other, _ = render_data(data(tmp_path, {"prompt": "b"}, {"prompt": "a"}), Prompt(), key="k")
    assert hash_all(one) == hash_all(same) != hash_all(other)


def test_fixed_output_ignores_the_end_token_and_natural_does_not(tmp_path):
    prompts, _ = render_data(data(tmp_path, {"prompt": "a"}), Prompt(), key="k")
    fixed = request_body(prompts[0], model="m", decoding=Decoding(), output=Output(fixed=5), stream=True, cache_salt="s")
    natural = request_body(prompts[0], model="m", decoding=Decoding(stop=("\n",)), output=Output(max_tokens=5), stream=False)
    assert (fixed["max_tokens"], fixed["min_tokens"], fixed["ignore_eos"], fixed["cache_salt"]) == (5, 5, True, "s")
    assert fixed["stream_options"] == {"include_usage": True}
    assert natural == {
        "model": "m", "messages": [{"role": "user", "content": "a"}], "temperature": 0.0, "top_p": 1.0, "seed": 0, "max_tokens": 5, "stop": ["\n"],
    }  # fmt: skip


def test_a_prompt_is_readable_for_people() -> None:
    assert readable('[{"role":"system","content":"Be brief."},{"role":"user","content":"a\\nb"}]') == "system: Be brief.\nuser: a\nb"
    assert readable("plain text") == "plain text"
    assert readable('{"json": 1}') == '{"json": 1}'
