"""A gate's rules are read as strictly as a scenario: every finding at once, each with its key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfbench.errors import ScenarioError
from perfbench.scenario.gate import read_gate


def _findings(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        read_gate(path)
    assert caught.value.exit_code == 2
    return {finding.key: finding.problem for finding in caught.value.findings}


def test_the_shipped_rules_are_good() -> None:
    gate = read_gate("scenarios/gate.yaml")
    assert {rule.metric for rule in gate.rules} >= {"ttft_s", "output_tokens_per_s", "host_rss_bytes", "usd_per_request", "quality"}
    assert gate.allow == ()


def test_every_finding_comes_at_once(tmp_path: Path) -> None:
    found = _findings(
        tmp_path,
        """
        alow: [models]
        rules:
          - {metric: ttft, allowed_relative: 0.1}
          - {metric: tpot_s, allowed_relative: 0.1, allowed_absolute: 1}
          - {metric: quality, statistic: p95, allowed_absolute: 0.1}
          - {metric: vram_bytes, allowed_relativ: 0.1}
          - {metric: usd_per_request, stages: [one], allowed_relative: 0.1}
          - {metric: e2e_s, allowed_relative: -0.1}
          - {metric: failed_share, statistic: mean, allowed_absolute: 0.1}
          - {metric: usd_per_correct_request, stages: [one], allowed_relative: 0.1}
        """,
    )
    assert found["alow"] == "unknown key; did you mean `allow`?"
    assert "did you mean `ttft_s`?" in found["rules[0].metric"]
    assert "exactly one of `allowed_relative`" in found["rules[1]"]
    assert "`statistic` belongs to latencies" in found["rules[2]"]
    assert found["rules[3].allowed_relativ"] == "unknown key; did you mean `allowed_relative`?"
    assert "of the whole run" in found["rules[4]"]
    assert "rules[5].allowed_relative" in found
    assert "`statistic` belongs to latencies; `failed_share` is one figure" in found["rules[6]"]
    assert "of the whole run" in found["rules[7]"]


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("rules: []", "rules", "at least 1"),
        ("allow: [prompts]\nrules: [{metric: ttft_s, allowed_relative: 0.1}]", "allow[0]", "expected one of models, serve, versions, hardware, price"),
        ("- a list", "", "expected a mapping with `rules`; docs/ci.md shows one"),
        ("rules: [", "line 1, column 9", "not YAML"),
        ("rules: 3", "rules", ""),
    ],
)
def test_other_bad_files(tmp_path: Path, text: str, key: str, problem: str) -> None:
    assert problem in _findings(tmp_path, text)[key]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="does not exist"):
        read_gate(tmp_path / "none.yaml")


def test_what_is_no_number_is_said_to_be_none(tmp_path: Path) -> None:
    """Not `expected exactly one of`, as if it had been left out."""
    for text, said in ((".nan", "NaN"), (".inf", "Infinity")):
        found = _findings(tmp_path, f"rules: [{{metric: ttft_s, allowed_relative: {text}}}]")
        assert found == {"rules[0].allowed_relative": f"input should be a finite number, got {said}"}


def test_no_rule_at_all_is_said_plainly(tmp_path: Path) -> None:
    assert _findings(tmp_path, "rules: []") == {"rules": "expected at least 1 entry, got none"}
