"""What a field is, read back from its declaration: the one source of both schema exports."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, MinLen
from pydantic.fields import FieldInfo

from kong_ai_proxy.config.fields import IS_URL, Record
from kong_ai_proxy.config.rules import Rule

Kind = Literal["string", "integer", "number", "boolean", "record", "array", "map"]

_SCALARS: Mapping[object, Kind] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
}


@dataclass(frozen=True)
class Shape:
    """A field of a Kong schema, in Kong's words.

    `default` None: there is none. `elements` are an array's, `fields` and `rules` a record's.
    """

    kind: Kind
    description: str = ""
    required: bool = False
    default: object = None
    one_of: tuple[str, ...] = ()
    url: bool = False
    between: tuple[float, float] | None = None
    gt: float | None = None
    len_min: int | None = None
    referenceable: bool = False
    encrypted: bool = False
    fields: Mapping[str, Shape] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    elements: Shape | None = None


@cache
def record_shape(model: type[Record]) -> Shape:
    """The shape of a whole record."""
    fields = {name: _field_shape(info) for name, info in sorted(model.model_fields.items())}
    # Rules of every base, in order: ai-proxy is a record of one model.
    rules = tuple(
        rule
        for base in reversed(model.__mro__)
        if issubclass(base, Record)
        for rule in vars(base).get("rules", ())
    )
    return Shape("record", fields=fields, rules=rules)


def shape_at(shape: Shape, path: tuple[object, ...]) -> Shape | None:
    """The shape of the field at `path` (names and array indexes), None when there is none."""
    found: Shape | None = shape
    for part in path:
        if found is None:
            return None
        found = found.elements if isinstance(part, int) else found.fields.get(str(part))
    return found


def _field_shape(info: FieldInfo) -> Shape:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return replace(
        _with_constraints(_type_shape(info.annotation), info.metadata),
        description=info.description or "",
        required=info.is_required(),
        default=_plain_default(info),
        referenceable=bool(extra.get("referenceable")),
        encrypted=bool(extra.get("encrypted")),
    )


def _plain_default(info: FieldInfo) -> object:
    """The default as JSON has it; a record, an empty array or map is none to Kong."""
    default = info.default
    if info.is_required() or info.default_factory or default in (None, (), {}):
        return None
    return list(default) if isinstance(default, tuple) else default


def _type_shape(annotation: Any) -> Shape:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        # A text's own minimum length is Kong's rule for every string, not worth an attribute.
        return replace(_type_shape(args[0]), url=IS_URL in args)
    if origin in (Union, types.UnionType):
        return _type_shape(next(arg for arg in args if arg is not type(None)))
    if origin is Literal:
        return Shape("string", one_of=args)
    if origin is tuple:
        return Shape("array", elements=_type_shape(args[0]))
    if origin is dict:
        return Shape("map")
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return record_shape(annotation)
    return Shape(_SCALARS[annotation])


def _with_constraints(shape: Shape, metadata: list[Any]) -> Shape:
    found: dict[type, Any] = {type(item): item for item in metadata}
    low, high = found.get(Ge), found.get(Le)
    return replace(
        shape,
        between=(low.ge, high.le) if low and high else None,
        gt=found[Gt].gt if Gt in found else None,
        len_min=found[MinLen].min_length if MinLen in found else None,
    )
