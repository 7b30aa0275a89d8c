from pathlib import Path

import pytest

from perfbench.quality.schema import Schema, read_schema


def test_local_references_and_formats_are_followed() -> None:
    schema = Schema(
        {"$defs": {"day": {"type": "string", "format": "date"}}, "type": "object", "properties": {"on": {"$ref": "#/$defs/day"}}, "additionalProperties": False}
    )
    assert schema.accepts({"on": "2025-11-24"})
    assert not schema.accepts({"on": "24 November"})
    assert "additional" in (schema.problem({"off": 1}) or "").lower()
    assert schema.problem({}) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "expected a JSON Schema object"),
        ({"type": "objekt"}, "not a JSON Schema"),
        ({"$ref": "https://example.org/schema.json"}, "refers outside the file"),
        ({"properties": {"a": {"$ref": "other.json#/x"}}}, "refers outside the file"),
        ({"$ref": "#/$defs/none"}, "refers to nothing"),
    ],
)
def test_unusable_schemas_are_refused(body: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Schema(body)


def test_a_schema_that_refers_to_itself_is_usable() -> None:
    schema = Schema({"type": "object", "properties": {"child": {"$ref": "#"}}})
    assert schema.accepts({"child": {"child": {}}})
    assert not schema.accepts({"child": {"child": 3}})


def test_a_schema_with_an_id_keeps_its_local_references() -> None:
    schema = Schema({"$id": "https://example.org/a.json", "$defs": {"n": {"type": "integer"}}, "properties": {"n": {"$ref": "#/$defs/n"}}})
    assert schema.accepts({"n": 1})
    assert not schema.accepts({"n": "1"})


def test_an_older_dialect_is_read_by_its_own_rules() -> None:
    schema = Schema({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": {"type": "integer"}}, "items": {"$ref": "#/definitions/n"}})
    assert schema.accepts([1])
    assert not schema.accepts(["1"])


def test_a_pattern_that_backtracks_for_years_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfbench.quality.schema._VALUE_S", 0.2)
    schema = Schema({"properties": {"a": {"pattern": "^(a+)+$"}}})
    assert schema.accepts({"a": "a" * 40})
    assert "takes more than 0.2 s to check" in str(schema.problem({"a": "a" * 40 + "!"}))


def test_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_schema(str(tmp_path / "none.json"))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_schema(str(broken))
    broken.write_text('{"type": 3}')
    with pytest.raises(ValueError, match=r"broken\.json: not a JSON Schema"):
        read_schema(str(broken))
