"""A gate's answer as table, Markdown and JUnit XML; hostile names stay text."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import msgspec

from perfbench.records import GateCheck, GateResult, RunComparison, RunDifference, Unlike
from perfbench.report.two_runs import comparison_markdown, comparison_tables, gate_junit, gate_markdown, gate_table, would_tell

HOSTILE = "a<b>|\x1b[31m\"'&@all"


def _check(**given: Any) -> GateCheck:
    values: dict[str, Any] = {
        "rule": 0, "variant": "merged", "stage": "one", "metric": "ttft_s", "statistic": "p95", "unit": "s", "relative": True, "baseline": 0.2, "value": 0.25,
        "change": 0.25, "ci95_low": 0.2, "ci95_high": 0.3, "allowed": 0.1, "verdict": "regression", "reason": "beyond", "n": 100,
    }  # fmt: skip
    return GateCheck(**{**values, **given})


RESULT = GateResult(
    baseline="/old",
    run="/new",
    verdict="regression",
    checks=[
        _check(variant=HOSTILE, verdict="pass", change=-0.01, ci95_low=-0.02, ci95_high=0.0),
        _check(verdict="cannot tell", change=None, ci95_low=None, ci95_high=None, baseline=None, value=None, reason="not measured", n_to_decide=1234),
        _check(),
        _check(stage="", metric="accuracy", statistic="share", unit="share", relative=False, change=-0.3, ci95_low=-0.4, ci95_high=-0.2, allowed=0.1),
    ],
    unlike=[Unlike(kind="versions", what="vllm 0.32.0 -> 0.33.0")],
)


def test_regressions_come_first_with_change_interval_and_allowance() -> None:
    table = gate_table(RESULT)
    first = [cell.text for cell in table.rows[0]]
    assert first[:6] == ["merged · one", "TTFT p95", "+25.0 %", "+20.0 … +30.0 %", "10.0 %", "regression"]
    assert [row[5].text for row in table.rows] == ["regression", "regression", "cannot tell", "pass"]
    assert table.rows[1][0].text == "merged" and table.rows[1][2].text == "-30.0 %"
    assert table.rows[2][2].text == "—" and "about 1,234 paired requests would tell, it had 100" in table.rows[2][8].text


def test_junit_is_xml_with_one_case_a_check() -> None:
    suite = ElementTree.fromstring(gate_junit(RESULT))[0]
    assert suite.attrib == {"name": "perfbench gate", "tests": "4", "failures": "2", "skipped": "1", "errors": "0"}
    kinds = [[child.tag for child in case] for case in suite]
    assert kinds == [["system-out"], ["skipped"], ["failure"], ["failure"]]
    assert "+25.0 % (95% interval +20.0 … +30.0 %), allowed 10.0 %: beyond" in suite[2][0].attrib["message"]
    assert suite[2].attrib == {"classname": "merged.one", "name": "ttft_s p95 (rule 1)"}


def test_what_only_one_run_has_does_not_pass_in_silence() -> None:
    gone = msgspec.structs.replace(RESULT, only_in_one=["variant adapter is only in the baseline"])
    suite = ElementTree.fromstring(gate_junit(gone))[0]
    assert (suite.attrib["tests"], suite.attrib["skipped"], len(suite)) == ("5", "2", 5)
    assert suite[4][0].attrib["message"] == "variant adapter is only in the baseline"
    assert "- not checked: variant adapter is only in the baseline" in gate_markdown(gone)


def test_what_would_tell_is_said_of_the_things_that_were_counted() -> None:
    said = {name: would_tell(name, 88, 3146) for name in ("failed_share", "goodput_per_s", "exact_match", "energy_j_per_request")}
    assert said["failed_share"] == "about 3,146 requests of each run would tell, it had 88"
    assert [text.split("about 3,146 ")[1].split(" would")[0] for text in said.values()][1:] == ["parts of windows", "samples", "repeats"]


def test_markdown_escapes_and_names_what_was_allowed() -> None:
    text = gate_markdown(RESULT)
    assert text.startswith("## Gate: regression\n")
    assert "allowed to differ (versions): vllm 0.32.0 -\\> 0.33.0" in text
    assert "\x1b" not in text and "<b>" not in text and "@all" not in text


def test_a_comparison_shows_shares_in_points_and_the_rest_relative() -> None:
    common: dict[str, Any] = {"variant": "merged", "n": 50, "baseline": 0.9, "value": 0.8}
    quality = RunDifference(
        **common, stage="", metric="accuracy", statistic="share", unit="share", difference=-0.1, ci95_low=-0.15, ci95_high=-0.05, relative=-0.111,
        verdict="worse",
    )  # fmt: skip
    tpot = RunDifference(
        **common, stage="one", metric="tpot_s", statistic="mean", unit="s", difference=-0.1, ci95_low=-0.15, ci95_high=-0.05, relative=-0.111,
        relative_ci95_low=-0.16, relative_ci95_high=-0.06, verdict="better", n_to_decide=None,
    )  # fmt: skip
    comparison = RunComparison(baseline="/old", run="/new", unlike=[], differences=[tpot, quality], only_in_one=["stage two is only in the run"])
    (table,) = comparison_tables(comparison)
    assert [[cell.text for cell in row[:5]] for row in table.rows] == [
        ["one", "TPOT mean", "-11.1 %", "-16.0 … -6.0 %", "better"],
        ["—", "accuracy", "-10.0 %", "-15.0 … -5.0 %", "worse"],
    ]
    assert "stage two is only in the run" in comparison_markdown(comparison)
