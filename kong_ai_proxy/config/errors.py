"""What is wrong with a configuration, said field by field in Kong's words.

No message repeats a value: it could be a key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import override

from kong_ai_proxy.config.rules import is_set
from kong_ai_proxy.config.shapes import Shape, shape_at

REQUIRED = "required field missing"

_EXPECTED = {
    "string": "expected a string",
    "integer": "expected an integer",
    "number": "expected a number",
    "boolean": "expected a boolean",
    "record": "expected a record",
    "array": "expected an array",
    "map": "expected a map",
}


@dataclass(frozen=True)
class Problem:
    """One mistake. `field` is its path, such as `config.targets[0].model.provider`."""

    field: str
    message: str


class ConfigError(ValueError):
    """A configuration that cannot be used, with everything that is wrong in it."""

    def __init__(self, plugin: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(plugin, problems)
        self.plugin = plugin
        self.problems = problems

    @override
    def __str__(self) -> str:
        return "\n".join(f"{problem.field}: {problem.message}" for problem in self.problems)


def field_path(loc: tuple[object, ...]) -> str:
    """`("targets", 0, "model")` as `config.targets[0].model`."""
    return "config" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc)


def field_problems(shape: Shape, error: ValidationError) -> Iterator[Problem]:
    """What pydantic found, in Kong's words. `shape` is the whole configuration's."""
    for detail in error.errors(include_url=False, include_context=False):
        if detail["type"] == "too_short" and detail["input"]:
            continue  # pydantic counts the elements that are right
        yield Problem(field_path(detail["loc"]), _message(shape, detail))


def rule_problems(shape: Shape, value: object, path: str = "config") -> Iterator[Problem]:
    """What breaks the rules between fields, of the record `value` and those inside it."""
    if isinstance(value, list | tuple) and shape.elements:
        for index, element in enumerate(value):
            yield from rule_problems(shape.elements, element, f"{path}[{index}]")
    if not isinstance(value, Mapping):
        return
    for rule in shape.rules:
        for field, message in rule.check(value):
            yield Problem(f"{path}.{field}", message)
    for name, inner in shape.fields.items():
        if is_set(value, name):
            yield from rule_problems(inner, value[name], f"{path}.{name}")


def _message(root: Shape, detail: ErrorDetails) -> str:
    kind, loc = detail["type"], detail["loc"]
    if kind == "missing" or detail["input"] is None:
        return REQUIRED
    if kind in ("extra_forbidden", "invalid_key"):
        return _unknown(root, loc)
    shape = shape_at(root, loc)
    if shape is None or kind == "problem":
        return detail["msg"]
    return _broken_limit(shape, detail) or _EXPECTED[shape.kind]


def _broken_limit(shape: Shape, detail: ErrorDetails) -> str | None:
    """The limit that a value of the right type breaks, None for a value of the wrong type."""
    kind = detail["type"]
    if kind == "literal_error" and isinstance(detail["input"], str):
        return f"expected one of: {', '.join(shape.one_of)}"
    if kind in ("greater_than_equal", "less_than_equal") and shape.between:
        return f"value should be between {shape.between[0]} and {shape.between[1]}"
    if kind == "greater_than":
        return f"value must be greater than {shape.gt}"
    if kind == "string_too_short" and shape.referenceable:
        return "length must be at least 1 (or Kong could not resolve its vault reference)"
    if kind in ("string_too_short", "too_short"):
        return "length must be at least 1"
    return None


def _unknown(root: Shape, loc: tuple[int | str, ...]) -> str:
    record = shape_at(root, loc[:-1])
    known = list(record.fields) if record else []
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"unknown field, did you mean '{close[0]}'?" if close else "unknown field"
