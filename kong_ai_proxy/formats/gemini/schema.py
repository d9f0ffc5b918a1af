"""Gemini's two kinds of schemas.

`parameters` and `responseSchema` hold Google's Schema object, a part of OpenAPI 3.0 with its own
names for types (https://ai.google.dev/api/caching#Schema); the servers answer any other keyword
with a 400. `parametersJsonSchema` and `responseJsonSchema` take JSON Schema, but came later: not
every model has them. So the first is used wherever it can say the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.gemini.names import camelized

_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object"})
_FORMATS = {
    "string": frozenset({"enum", "date-time"}),
    "number": frozenset({"float", "double"}),
    "integer": frozenset({"int32", "int64"}),
}
_PLAIN = frozenset(
    {
        "type",
        "format",
        "title",
        "description",
        "nullable",
        "enum",
        "maxItems",
        "minItems",
        "properties",
        "required",
        "minProperties",
        "maxProperties",
        "minLength",
        "maxLength",
        "pattern",
        "example",
        "anyOf",
        "propertyOrdering",
        "default",
        "items",
        "minimum",
        "maximum",
    }
)
_COUNTS = ("maxItems", "minItems", "minProperties", "maxProperties", "minLength", "maxLength")
_MAX_DEPTH = 32


def is_plain(schema: object, depth: int = 0) -> bool:
    """Whether a JSON Schema is, as it stands, a Schema object of Google's that says the same.

    It is not with keywords such as `$ref`, `const` or `additionalProperties`, several types at
    once, an `enum` of numbers, a `format` that the servers refuse, or an object or array that does
    not say what is in it, which they refuse as well.
    """
    if not isinstance(schema, dict) or depth > _MAX_DEPTH or not schema.keys() <= _PLAIN:
        return False
    kind = schema.get("type")
    return (
        _has_plain_type(schema, kind)
        and _has_plain_values(schema, kind)
        and all(is_plain(each, depth + 1) for each in _inner(schema))
    )


def _has_plain_type(schema: Mapping[str, object], kind: object) -> bool:
    if kind is None:
        return "anyOf" in schema
    if kind == "object":
        return bool(schema.get("properties"))
    if kind == "array":
        return "items" in schema
    return isinstance(kind, str) and kind in _TYPES


def _has_plain_values(schema: Mapping[str, object], kind: object) -> bool:
    if "format" in schema and schema["format"] not in _FORMATS.get(str(kind), ()):
        return False
    enum = schema.get("enum", [])
    if not isinstance(enum, list) or not all(isinstance(each, str) for each in enum):
        return False
    return kind == "string" or not enum


def _inner(schema: Mapping[str, object]) -> list[object]:
    found: list[object] = []
    properties, any_of = schema.get("properties", {}), schema.get("anyOf", [])
    found += properties.values() if isinstance(properties, dict) else [None]
    found += any_of if isinstance(any_of, list) else [None]
    return [*found, schema["items"]] if "items" in schema else found


def json_schema(schema: object) -> dict[str, object]:
    """A Schema object of Google's as JSON Schema."""
    if not isinstance(schema, dict):
        return {}
    found = camelized(schema)
    kind = found.pop("type", None)
    nullable = found.pop("nullable", False) is True
    found.pop("propertyOrdering", None)
    if isinstance(kind, str) and kind.lower() in _TYPES:
        found = {"type": [kind.lower(), "null"] if nullable else kind.lower(), **found}
    for name in _COUNTS:  # 64 bits wide, which protojson writes as texts
        value = found.get(name)
        if isinstance(value, str) and value.isascii() and value.isdecimal():
            found[name] = int(value)
    properties = found.get("properties")
    if isinstance(properties, dict):
        found["properties"] = {name: json_schema(each) for name, each in properties.items()}
    if "items" in found:
        found["items"] = json_schema(found["items"])
    any_of = found.get("anyOf")
    if isinstance(any_of, list):
        found["anyOf"] = [json_schema(each) for each in any_of]
    if isinstance(any_of, list) and nullable:
        found["anyOf"] = [*[json_schema(each) for each in any_of], {"type": "null"}]
    return found
