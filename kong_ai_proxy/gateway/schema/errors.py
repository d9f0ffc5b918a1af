"""Kong's texts for a configuration it refuses: nested fields, and one line that sums them up."""

from __future__ import annotations

from typing import Any

from kong_ai_proxy.gateway.schema.checks import Errors
from kong_ai_proxy.gateway.schema.values import lua_text


class SchemaError(ValueError):
    """A configuration that Kong would refuse.

    `fields` is what Kong's Admin API puts under "fields": nested objects by field name, arrays
    where an element is wrong (null where it is right), and `@entity` lists for rules between
    fields. `message` is Kong's one-line summary; `body()` is the whole answer of the Admin API.
    """

    def __init__(self, errors: Errors) -> None:
        self.fields: dict[str, Any] = jsonable(errors)
        self.message = violation_text(errors)
        super().__init__(self.message)

    def body(self) -> dict[str, object]:
        """The answer of Kong's Admin API, which goes with status 400."""
        return {
            "code": 2,
            "name": "schema violation",
            "message": self.message,
            "fields": self.fields,
        }


def jsonable(errors: object) -> Any:
    """Errors as Kong's JSON encoder writes them: element numbers become places in an array."""
    if isinstance(errors, list):
        return [jsonable(item) for item in errors]
    if not isinstance(errors, dict):
        return errors
    if errors and all(isinstance(key, int) for key in errors):
        return [jsonable(errors.get(place)) for place in range(1, max(errors) + 1)]
    return {str(key): jsonable(value) for key, value in errors.items()}


def violation_text(errors: Errors) -> str:
    """Kong's summary: `schema violation (config.route_type: required field missing)`."""
    parts = [str(error) for error in errors.get("@entity", [])]
    for name, error in _ordered(errors):
        if isinstance(error, dict):
            parts += [
                f"{name}.{sub}: {_text(value)}" for sub, value in _ordered(error, entity=True)
            ]
        elif name != "@entity":
            parts.append(f"{name}: {error}")
    if len(parts) == 1:
        return f"schema violation ({parts[0]})"
    return f"{len(parts)} schema violations ({'; '.join(parts)})"


def _ordered(errors: Errors, *, entity: bool = False) -> list[tuple[str | int, Any]]:
    keys = sorted(errors, key=lambda key: (isinstance(key, str), key))
    return [(key, errors[key]) for key in keys if entity or key != "@entity"]


def _text(error: object) -> str:
    return error if isinstance(error, str) else lua_table(error)


def lua_table(value: object, space: str = "  ", indent: str = "") -> str:
    """Nested errors as Kong prints a Lua table, over several lines; `space` "" puts it on one."""
    end, equals = ("\n", " = ") if space else ("", "=")
    inner = indent + space
    if not isinstance(value, dict | list):
        return _lua_quoted(value) if isinstance(value, str) else lua_text(value)
    items = dict(enumerate(value, 1)) if isinstance(value, list) else value
    lines = []
    run = 0  # Lua writes the elements 1..n without their number
    while run + 1 in items:
        run += 1
        lines.append(inner + lua_table(items[run], space, inner))
    for key in sorted(key for key in items if isinstance(key, str)):
        label = key if key.isidentifier() else f'["{key}"]'
        lines.append(f"{inner}{label}{equals}{lua_table(items[key], space, inner)}")
    for place in sorted(key for key in items if isinstance(key, int) and key > run):
        lines.append(f"{inner}[{place}]{equals}{lua_table(items[place], space, inner)}")
    body = f",{end}".join(lines)
    return f"{{{end}{body}{end if lines else ''}{indent}}}"


def _lua_quoted(text: str) -> str:
    if "\n" in text:
        return f"[[{text}]]"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
