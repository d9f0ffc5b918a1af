"""The plugins' configurations as JSON Schema 2020-12, for editors and linters of decK files.

It describes the `config` object of a plugin. Rules between fields that JSON Schema can say
readably are in it; `kong-ai-proxy validate` checks all of them.
"""

from __future__ import annotations

from kong_ai_proxy.config import shape
from kong_ai_proxy.config.rules import AllOrNone
from kong_ai_proxy.config.shapes import Shape

_TYPES = {"record": "object", "map": "object"}
_REFERENCE = {"pattern": r"^\{vault://.*\}$"}


def export(plugin: str) -> dict[str, object]:
    """The JSON Schema of `plugin`'s `config`."""
    title = f"Configuration of the Kong plugin {plugin}"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **_object(shape(plugin)),
    }


def _object(record: Shape) -> dict[str, object]:
    """A record. Null stands for a field's default, so only required fields refuse it."""
    properties = {name: _field(field) for name, field in record.fields.items()}
    required = [name for name, field in record.fields.items() if field.required]
    document: dict[str, object] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    if required:
        document["required"] = required
    together = _dependent(record)
    return document | ({"dependentRequired": together} if together else {})


def _dependent(record: Shape) -> dict[str, list[str]]:
    groups = [rule.paths for rule in record.rules if isinstance(rule, AllOrNone)]
    return {
        path: [other for other in group if other != path]
        for group in groups
        for path in group
        if not any("." in name for name in group)
    }


def _field(field: Shape) -> dict[str, object]:
    document = _value(field)
    if field.referenceable and (field.one_of or field.kind != "string"):
        document = {"anyOf": [document, {"type": "string", **_REFERENCE}]}
    if not field.required:
        document = _or_null(document)
    note = " May be a vault reference." if field.referenceable else ""
    if field.description:
        document = {"description": field.description + note, **document}
    if field.default is not None:
        document["default"] = field.default
    return document


def _or_null(document: dict[str, object]) -> dict[str, object]:
    if "anyOf" in document or "enum" in document:
        options = document.get("anyOf", [document])
        assert isinstance(options, list)
        return {"anyOf": [*options, {"type": "null"}]}
    return document | {"type": [document["type"], "null"]}


def _value(field: Shape) -> dict[str, object]:
    if field.kind == "record":
        return _object(field)
    document: dict[str, object] = {"type": _TYPES.get(field.kind, field.kind)}
    if field.one_of:
        document["enum"] = list(field.one_of)
    elif field.kind == "string":
        document["minLength"] = 1
    if field.url:
        document["pattern"] = "^(https?|wss?)://[^/?#]"
    if field.between:
        document["minimum"], document["maximum"] = field.between
    if field.gt is not None:
        document["exclusiveMinimum"] = field.gt
    if field.elements:
        document["items"] = _value(field.elements)
        if field.len_min:
            document["minItems"] = field.len_min
    return document
