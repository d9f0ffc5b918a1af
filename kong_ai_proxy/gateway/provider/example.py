"""Example values that fit a JSON schema: the arguments of tool calls, and structured answers."""

from __future__ import annotations

import math
import re
from typing import Any, Final

_DEEPEST: Final = 8
_MOST_VALUES: Final = 1000
_LONGEST: Final = 1000
_FORMATS: Final = {
    "date": "2025-01-31",
    "date-time": "2025-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example(schema: Any, text: str, *, every: bool = False) -> Any:
    """A value that fits `schema`, a JSON schema.

    `text` is what the user said: free strings are taken from it (its last word with a capital
    letter that does not begin a sentence). `every` gives the optional properties too. Patterns
    and references to other documents are not followed.
    """
    return _Maker(schema, _subject(text), every).value(schema, "value", 0)


def _subject(text: str) -> str | None:
    """The name a text is about, if it has one: `What is the weather in Paris?` gives `Paris`."""
    names = re.findall(r"(?<=[^.!?\s]\s)([A-Z]\w+(?:\s[A-Z]\w+)*)", text)
    return names[-1] if names else None


class _Maker:
    def __init__(self, root: Any, subject: str | None, every: bool) -> None:
        self._root = root
        self._subject = subject
        self._every = every
        self._values = 0

    def value(self, schema: Any, name: str, depth: int) -> Any:
        self._values += 1
        if not isinstance(schema, dict) or self._values > _MOST_VALUES:
            return name
        schema = self._resolved(schema)
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        if schema.get("enum"):
            return schema["enum"][0]
        if schema.get("examples"):
            return schema["examples"][0]
        return self._by_type(schema, name, depth)

    def _by_type(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in ("integer", "number"):
            return _number(schema, kind)
        if kind == "boolean":
            return True
        return None if kind == "null" else self._string(schema, name)

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema with its reference, its first alternative and its parts merged in."""
        for _ in range(_DEEPEST):
            if isinstance(schema.get("$ref"), str):
                schema = self._pointed(schema["$ref"])
            elif schema.get("anyOf") or schema.get("oneOf"):
                options = schema.get("anyOf") or schema["oneOf"]
                first = options[0] if isinstance(options[0], dict) else {}
                schema = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")} | first
            elif schema.get("allOf"):
                schema = self._merged(schema)
            else:
                break
        return schema

    def _merged(self, schema: dict[str, Any]) -> dict[str, Any]:
        out = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            part = self._resolved(part) if isinstance(part, dict) else {}
            properties = {**out.get("properties", {}), **part.get("properties", {})}
            required = [*out.get("required", []), *part.get("required", [])]
            out = {**out, **part, "properties": properties, "required": required}
        return out

    def _pointed(self, ref: str) -> dict[str, Any]:
        found = self._root
        for step in ref.removeprefix("#").split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~"), {})
            if not isinstance(found, dict):
                return {}
        return found if ref.startswith("#") else {}

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        names = list(properties) if self._every else schema.get("required") or []
        if depth >= _DEEPEST:
            names = []
        return {name: self.value(properties.get(name, {}), name, depth + 1) for name in names}

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        length = max(schema.get("minItems", 0), min(1, schema.get("maxItems", 1)))
        if depth >= _DEEPEST:
            return []
        items = schema.get("items", {})
        return [self.value(items, name, depth + 1) for _ in range(min(length, 100))]

    def _string(self, schema: dict[str, Any], name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = self._subject or name
        text = text.ljust(min(schema.get("minLength", 0), _LONGEST), ".")
        return text[: schema.get("maxLength", len(text))]


def _number(schema: dict[str, Any], kind: str) -> float:
    """A number in the schema's range: as near to 1 as it allows."""
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf) + step)
    high = schema.get("maximum", schema.get("exclusiveMaximum", math.inf) - step)
    value = max(low, min(high, step))
    if "multipleOf" in schema:
        value = math.ceil(value / step) * step
    return int(value) if kind == "integer" else value
