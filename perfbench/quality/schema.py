"""A JSON Schema that answers must meet. References stay inside the file; nothing is ever fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema.exceptions
import jsonschema.validators
import referencing
import referencing.exceptions

from perfbench.time_limit import cpu_limit

_VALUE_S = 5.0
"""CPU time that checking one value may take: a pattern such as `(a+)+$` takes years where a model writes many `a`."""
_REFERENCES = ("$ref", "$dynamicRef")


class Schema:
    """A checked schema. The dialect is its `$schema`, else draft 2020-12; `format` is enforced for the formats jsonschema knows."""

    def __init__(self, body: Any) -> None:
        """Raises ValueError with one sentence for a schema that is none, or that refers outside itself or to nothing."""
        if not isinstance(body, dict):
            raise ValueError("expected a JSON Schema object")
        dialect = jsonschema.validators.validator_for(body, default=jsonschema.Draft202012Validator)
        try:
            dialect.check_schema(body)
        except jsonschema.exceptions.SchemaError as error:
            raise ValueError(f"not a JSON Schema: {error.message} (at {error.json_path})") from None
        self._validator = dialect(body, format_checker=dialect.FORMAT_CHECKER, registry=referencing.Registry())
        resolver = self._resolver(body)
        for reference in _references(body):
            if not reference.startswith("#"):
                raise ValueError(f"`{reference}` refers outside the file; only references that start with `#` are followed")
            try:
                resolver.lookup(reference)
            except (referencing.exceptions.Unresolvable, ValueError, LookupError):
                raise ValueError(f"`{reference}` refers to nothing in the file") from None

    @staticmethod
    def _resolver(body: dict[str, Any]) -> Any:
        resource = referencing.Resource.from_contents(body, default_specification=referencing.jsonschema.DRAFT202012)
        base = resource.id() or ""
        return referencing.Registry().with_resource(base, resource).resolver(base)

    def accepts(self, value: Any) -> bool:
        """Whether a JSON value meets the schema."""
        return self.problem(value) is None

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, in one clause, or None."""
        try:
            with cpu_limit(_VALUE_S):
                error = jsonschema.exceptions.best_match(self._validator.iter_errors(value))
        except RecursionError:
            return "nested deeper than can be checked"
        except TimeoutError:
            return f"takes more than {_VALUE_S:g} s to check: a `pattern` of the schema backtracks"
        return None if error is None else f"{error.message} (at {error.json_path})"


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, child in value.items():
            if key in _REFERENCES and isinstance(child, str):
                yield child
            else:
                yield from _references(child)
    elif isinstance(value, list):
        for child in value:
            yield from _references(child)


def read_schema(path: str) -> Schema:
    """The schema in a file; ValueError with one sentence for a file that cannot be read, is no JSON or no usable schema."""
    try:
        body = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    try:
        return Schema(body)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
