"""Records of a Kong schema: reading a document's fields, filling in defaults, checking values.

A missing key is Lua's nil and None is Kong's null, as in `checks`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from kong_ai_proxy.gateway.schema import checks
from kong_ai_proxy.gateway.schema.checks import MISSING, Errors, Field, is_reference
from kong_ai_proxy.gateway.schema.values import RULES, broken_rule, lua_text

_REQUIRED = "required field missing"
_UNKNOWN = "unknown field"

# Words that describe a field and change nothing here.
_DESCRIPTIVE = {
    "type", "required", "default", "referenceable", "encrypted", "description", "deprecation",
    "err", "fields", "elements", "keys", "values", "entity_checks", "reference", "on_delete",
    "immutable", "unique", "indexed", "examples",
}  # fmt: skip


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    return value.is_integer() if isinstance(value, float) else _is_number(value)


def _is_sequence(value: object) -> bool:
    return isinstance(value, list) or value == {}


def _is_table(value: object) -> bool:
    return isinstance(value, list | dict)


# For each type: what its values are, and what Kong says of others.
_TYPES: Final[dict[str, tuple[Callable[[object], bool], str]]] = {
    "array": (_is_sequence, "expected an array"),
    "set": (_is_sequence, "expected a set"),
    "map": (_is_table, "expected a map"),
    "record": (_is_table, "expected a record"),
    "string": (lambda value: isinstance(value, str), "expected a string"),
    "number": (_is_number, "expected a number"),
    "integer": (_is_integer, "expected an integer"),
    "boolean": (lambda value: isinstance(value, bool), "expected a boolean"),
    "foreign": (lambda _: True, ""),
    "any": (lambda _: True, ""),
}


def compiled(field: Mapping[str, Any], where: str) -> Field:
    """A copy of a field with its subfields by name, or ValueError for what is not understood."""
    known = _DESCRIPTIVE | RULES.keys()
    unknown = [key for key in field if key not in known]
    if unknown or field.get("type") not in _TYPES:
        what = f"attribute {unknown[0]!r}" if unknown else f"type {field.get('type')!r}"
        raise ValueError(f"schema field {where}: {what} is not known to the stand-in")
    out = dict(field)
    if out["type"] == "string":
        out.setdefault("len_min", 1)  # Kong refuses empty strings unless told otherwise
    for part in ("elements", "keys", "values"):
        if part in out:
            out[part] = {**compiled(out[part], f"{where}.{part}"), "required": True}
    if "fields" in out:
        out["fields"] = named(out["fields"], where)
    for check in out.get("entity_checks", ()):
        (name,) = check
        if name not in checks.CHECKERS:
            raise ValueError(f"schema field {where}: entity check {name!r} is not known")
    return out


def named(fields: list[dict[str, Any]], where: str) -> dict[str, Field]:
    """A document's list of fields by name, in its order."""
    pairs = [pair for entry in fields for pair in entry.items()]
    return {name: compiled(field, f"{where}.{name}") for name, field in pairs}


def require_records(field: Field) -> None:
    """Records below a plugin's configuration are required unless they say otherwise."""
    field.setdefault("required", True)
    for sub in field.get("fields", {}).values():
        if sub["type"] == "record":
            require_records(sub)


# -- defaults ------------------------------------------------------------------------------------


def _default(field: Field) -> Any:
    """The value of an absent field: its default, null when it may be absent, else MISSING."""
    if "default" in field:
        return copy.deepcopy(field["default"])
    if not field.get("required"):
        return None
    return {} if field["type"] == "record" else MISSING


def fill_fields(fields: dict[str, Field], data: Any) -> dict[Any, Any]:
    """A record's values with the defaults of what is absent; an array is taken by place."""
    out = dict(enumerate(data, 1)) if isinstance(data, list) else dict(data)
    for name, field in fields.items():
        value = _fill(field, out.get(name, MISSING))
        if value is not MISSING:
            out[name] = value
    return out


def _fill(field: Field, value: Any) -> Any:
    """`value` with defaults at every depth; duplicates of a set dropped."""
    kind = field["type"]
    if value is MISSING or (kind == "record" and value is False):  # false: as Kong has it
        value = _default(field)
        if kind != "record" or not field.get("required"):
            return value
    if kind == "record":
        return fill_fields(field["fields"], value) if _is_table(value) else value
    if kind in ("array", "set") and isinstance(value, list):
        items = [_fill(field["elements"], item) for item in value]
        return _unique(items) if kind == "set" else items
    if kind == "map" and isinstance(value, dict):
        return {key: _fill(field["values"], item) for key, item in value.items()}
    return value


def _unique(items: list[Any]) -> list[Any]:
    seen: set[Any] = set()
    out = []
    for item in items:
        key = (isinstance(item, bool), item) if not _is_table(item) else id(item)
        if key not in seen:
            seen.add(key)
            out.append(item)
    return out


# -- validation ----------------------------------------------------------------------------------


def _validate(field: Field, value: Any) -> str | Errors | None:
    """What is wrong with one value; None when nothing is."""
    if value is None:
        return _validate_null(field)
    if field.get("eq", MISSING) is None:
        return str(field.get("err") or "value must be null")
    belongs, message = _TYPES[field["type"]]
    if value is MISSING or not belongs(value):
        return message
    inner = _validate_inside(field, value)
    if inner is not None:
        return inner
    if field.get("referenceable") and field["type"] == "string" and is_reference(value):
        return None
    return broken_rule(field, value)


def _validate_null(field: Field) -> str | None:
    if field.get("ne", MISSING) is None:
        return str(field.get("err") or "value must not be null")
    if field.get("eq") is not None:
        return f"value must be {lua_text(field['eq'])}"
    return _REQUIRED if field.get("required") else None


def _validate_inside(field: Field, value: Any) -> str | Errors | None:
    kind = field["type"]
    if kind == "record":
        return validate_record(field, value) or None
    if kind in ("array", "set"):
        found = {n: _validate(field["elements"], item) for n, item in enumerate(value, 1)}
        return {n: error for n, error in found.items() if error is not None} or None
    if kind == "map":
        pairs = value.items() if isinstance(value, dict) else enumerate(value, 1)
        for key, item in pairs:
            error = _validate(field["keys"], key)
            error = _validate(field["values"], item) if error is None else error
            if error is not None:
                return error
    if kind == "foreign":
        return _validate_foreign(value)
    return None


_ID: Field = {"type": "string", "uuid": True}


def _validate_foreign(value: Any) -> Errors | None:
    key = value.get("id") if isinstance(value, dict) else None
    if not key:
        return {"id": "missing primary key"}
    error = _validate(_ID, key)
    return {"id": error} if error else None


def validate_record(record: Field, data: Any) -> Errors:
    """What is wrong with a record, by field; empty when nothing is."""
    fields = record["fields"]
    values = dict(enumerate(data, 1)) if isinstance(data, list) else data
    errors: Errors = {}
    for name, value in values.items():
        error = _validate(fields[name], value) if name in fields else _UNKNOWN
        if error is not None:
            errors[name] = error
    for name, field in fields.items():
        if field.get("required") and values.get(name) is None:
            errors[name] = _REQUIRED
    for check in record.get("entity_checks", ()):
        checks.run(check, values, fields, errors, _validate)
    return errors


def stored(field: Field, value: Any) -> Any:
    """A valid value as Kong keeps it: unset fields absent, whole numbers as integers."""
    kind = field["type"]
    if kind == "record":
        return {
            name: stored(sub, value[name])
            for name, sub in field["fields"].items()
            if value.get(name) is not None
        }
    if kind in ("array", "set"):
        return [stored(field["elements"], item) for item in value or []]
    if kind == "map":
        return {key: stored(field["values"], item) for key, item in dict(value or {}).items()}
    return int(value) if kind == "integer" else value
