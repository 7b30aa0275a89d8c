"""docs/scenario.md, made from the models: every key with its type, default and meaning, so that the page cannot drift from the code."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from perfbench.scenario.model import Scenario

_WORDS: dict[Any, str] = {Any: "any value", str: "text", int: "integer", float: "number", bool: "true/false"}

_HEAD = """# Scenario reference

<!-- Made from perfbench/scenario/model.py by `perfbench.scenario.reference.scenario_markdown`; a test holds it to the code. -->

A scenario is one YAML file: what to serve, how to drive it, what good means and what it costs. `perfbench init` writes a commented one,
`perfbench run FILE --dry-run` checks one and shows what it would start. Unknown keys are errors. Relative paths count from the file's
folder. `scenarios/scenario.schema.json` gives editors the same rules: put
`# yaml-language-server: $schema=scenarios/scenario.schema.json` at the top of a file.
"""


def scenario_markdown() -> str:
    """The whole page: one section a block, in the order in which the blocks appear in a file."""
    sections = [_HEAD]
    waiting: list[tuple[str, type[BaseModel]]] = [("the file", Scenario)]
    told: set[type[BaseModel]] = set()
    while waiting:
        where, model = waiting.pop(0)
        if model in told:
            continue
        told.add(model)
        sections.append(_section(where, model))
        prefix = "" if model is Scenario else f"{where}."
        waiting += [(f"{prefix}{name}", child) for name, field in model.model_fields.items() for child in models_in(field.annotation)]
    return "\n".join(sections)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's type is made of: `dict[str, SloLimit]` -> [SloLimit]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def _section(where: str, model: type[BaseModel]) -> str:
    meaning = " ".join((model.__doc__ or "").split())
    rows = "\n".join(_row(name, field) for name, field in model.model_fields.items())
    title = where if where == "the file" else f"`{where}`"
    tag = f" (`task: {get_args(model.model_fields['task'].annotation)[0]}`)" if "task" in model.model_fields and where.endswith("task") else ""
    return f"## {title}{tag}\n\n{meaning}\n\n| key | type | default | meaning |\n|---|---|---|---|\n{rows}\n"


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
    meaning = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{name}` | {_type_name(field.annotation)} | {default} | {meaning} |"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, BaseModel) or value in ((), {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type_name(annotation: Any) -> str:
    """In a person's words: `list of Stage`, `number`, `closed or poisson`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin is dict:
        return f"{_type_name(arguments[0])}: {_type_name(arguments[1])}"
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if arguments:
        return " or ".join(_type_name(argument) for argument in arguments if argument is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"block `{annotation.__name__}`"
    return _WORDS[annotation]
