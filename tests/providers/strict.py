"""The vendors' own types as validators that refuse what the types do not name."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from tests.providers.upstream import Json, RefusedError

_SHOWN = 4  # of the many errors a union of block types gives


class Validator:
    """Checks JSON against a vendor's TypedDict, pydantic model or dataclass, at every level.

    The SDKs' types are written for callers in Python, and pydantic reads them more loosely than
    the APIs read JSON. So the schema made of them is tightened: members that no type names are
    refused, iterables are lists whose items are checked at once, and no value changes its type.
    `also` names top-level members that the API takes although the SDK's types lack them, with
    their types.
    """

    def __init__(self, kind: Any, also: Mapping[str, Any] | None = None) -> None:
        self._also = {name: TypeAdapter(given) for name, given in (also or {}).items()}
        schema = TypeAdapter(kind).core_schema
        # Prebuilt validators are those of the models as they are, extra members and all.
        self._validator = SchemaValidator(_tightened(copy.deepcopy(schema)), _use_prebuilt=False)

    def check(self, value: Mapping[str, Any]) -> None:
        """Raises RefusedError with the places that are wrong."""
        problems = []
        rest = dict(value)
        for name, adapter in self._also.items():
            if name in rest:
                problems += _problems(name, adapter, rest.pop(name))
        try:
            self._validator.validate_json(orjson.dumps(rest), strict=True)
        except ValidationError as error:
            problems += _lines(error)
        if problems:
            raise RefusedError("; ".join(problems))


def _problems(name: str, adapter: TypeAdapter[Any], value: object) -> list[str]:
    try:
        adapter.validate_json(orjson.dumps(value), strict=True)
    except ValidationError as error:
        return [f"{name}: {line}" for line in _lines(error)]
    return []


def _lines(error: ValidationError) -> list[str]:
    """The errors that lie deepest, which are those of the union's member that fits best."""
    errors = [
        (_place(each["loc"]), each["msg"])
        for each in error.errors(include_url=False, include_input=False)
    ]
    deepest = sorted(errors, key=lambda each: -len(each[0]))
    lines = dict.fromkeys(f"{'.'.join(place)}: {message}" for place, message in deepest)
    return list(lines)[:_SHOWN]


def _place(location: tuple[str | int, ...]) -> list[str]:
    """Where an error is, without pydantic's names for unions and lists."""
    return [str(part) for part in location if not (isinstance(part, str) and "[" in part)]


def _tightened(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return _tightened_mapping({key: _tightened(value) for key, value in schema.items()})
    if isinstance(schema, list | tuple):
        return type(schema)(_tightened(item) for item in schema)
    return schema


def _tightened_mapping(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    config = dict(schema.get("config") or {})
    if kind == "typed-dict" and "allow" in (
        schema.get("extra_behavior"),
        config.get("extra_fields_behavior"),
    ):
        return schema  # the vendor says so of this one type: a JSON schema, mostly
    if kind in ("typed-dict", "model-fields", "dataclass-args"):
        schema["extra_behavior"] = "forbid"
    if kind in ("typed-dict", "model", "dataclass"):
        schema["config"] = {**config, "extra_fields_behavior": "forbid"}
    if kind == "generator":
        schema["type"] = "list"
    if kind == "default" and schema["schema"].get("type") == "literal" and schema.get("default"):
        return dict(schema["schema"])  # what tells the members of a union apart is not left out
    if kind == "union":
        schema["choices"] = _named_choices(schema["choices"])
    return schema


def _named_choices(choices: list[Any]) -> list[Any]:
    """The choices without `Any` and mappings of anything, by which SDKs let their callers pass
    what they do not name."""
    kinds = [_kind(choice) for choice in choices]
    dropped = set()
    if {"typed-dict", "model", "definition-ref"} & set(kinds):
        dropped = {"any", "dict"}
    elif "literal" in kinds:
        dropped = {"any"}
    return [each for each, kind in zip(choices, kinds, strict=True) if kind not in dropped]


def _kind(choice: Any) -> str:
    schema = choice[0] if isinstance(choice, tuple) else choice
    kind: str = schema["type"]
    anything = kind != "dict" or schema.get("values_schema", {}).get("type", "any") == "any"
    return kind if anything else "dict of some type"


@functools.cache
def _answers(kind: Any) -> Validator:
    return Validator(kind)


def made(kind: Any, value: Json) -> Json:
    """An answer that the vendor's type takes, member by member. Raises AssertionError: a stand-in
    that would answer what its vendor cannot is broken."""
    try:
        _answers(kind).check(value)
    except RefusedError as refused:
        raise AssertionError(f"{refused.message}: {value}") from None
    return value


def parsed(body: bytes) -> Json:
    """The body as a JSON object. Raises RefusedError."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RefusedError("the body is not a JSON object")
    return value
