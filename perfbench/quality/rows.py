"""The held-out rows as a task sees them: their columns, read and checked, with one finding for everything that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from perfbench.errors import Finding, ScenarioError

Row = Mapping[str, object]
Value = TypeVar("Value")

SHOWN = 5
"""Rows named in full; a column that is missing everywhere should not fill the screen."""
_SHORT = 60


class HeldOutRows:
    """Rows by their number in the file. Samples that must be refused are not among them: they need no expected answer."""

    def __init__(self, path: str, rows: Mapping[int, Row]) -> None:
        self.path = path
        self.rows = rows

    def column(self, column: str, key: str, read: Callable[[object], Value]) -> dict[int, Value]:
        """A column of every row, read. Raises ScenarioError that names the rows which lack it or for which `read` raises ValueError.

        `key` is the scenario's key that names the column, as in `quality.task.expected`.
        """
        values: dict[int, Value] = {}
        lacking: list[int] = []
        findings: list[Finding] = []
        for number, row in self.rows.items():
            if column not in row:
                lacking.append(number)
                continue
            try:
                values[number] = read(row[column])
            except ValueError as error:
                findings.append(Finding(f"{self.path}, row {number}, column `{column}`", f"{error}{_given(row[column])}"))
        if lacking:
            columns = ", ".join(self.rows[lacking[0]]) or "no columns"
            findings.insert(0, Finding(key, f"{lacks(lacking, self.path)} column `{column}`; columns there: {columns}"))
        if findings:
            more = [Finding("", f"and {len(findings) - SHOWN} rows more")] if len(findings) > SHOWN else []
            raise ScenarioError("scenario", [*findings[:SHOWN], *more])
        return values


def row_numbers(numbers: Sequence[int]) -> str:
    """`row 3`, or `12 rows (0, 1, 2, 3, 4, ...)`."""
    shown = ", ".join(str(number) for number in numbers[:SHOWN])
    return f"row {shown}" if len(numbers) == 1 else f"{len(numbers)} rows ({shown}{', ...' if len(numbers) > SHOWN else ''})"


def lacks(numbers: Sequence[int], path: str) -> str:
    """`row 3 of FILE lacks`, or `12 rows (0, 1, 2, 3, 4, ...) of FILE lack`."""
    return f"{row_numbers(numbers)} of {path} {'lacks' if len(numbers) == 1 else 'lack'}"


def _given(value: object) -> str:
    """What stands there instead, where that is short."""
    shown = "null" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return f", got {shown}" if len(shown) <= _SHORT else ""


def truth(value: object) -> bool:
    """A yes or no of a data file; ValueError for anything else. An empty field of CSV and a null are no."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, int) and value in (0, 1):
        return value == 1
    word = str(value).strip().casefold()
    if word in ("true", "yes", "1"):
        return True
    if word in ("false", "no", "0", ""):
        return False
    raise ValueError("expected true or false")


def text(value: object) -> str:
    """A text that is not empty; ValueError for anything else."""
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError("expected a text that is not empty")


def texts(value: object) -> list[str]:
    """A text, or a list of texts (in CSV: the JSON text of a list); ValueError for anything else, and for none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            value = [value]
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        value = [value]
    found = [str(item) for item in value if isinstance(item, (str, int, float)) and str(item).strip()] if isinstance(value, list) else []
    if not found or not isinstance(value, list) or len(found) != len(value):
        raise ValueError("expected a text, or a list of texts, none of them empty")
    return found
