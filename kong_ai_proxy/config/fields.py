"""How the fields of a configuration are declared, and what Kong's JSON may look like.

A record is a frozen pydantic model. Everything that the exports need (ranges, defaults, vault
flags) is read back from the same declaration by `shapes`, so nothing is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WrapValidator,
    model_validator,
)
from pydantic.functional_validators import AfterValidator, ModelWrapValidatorHandler
from pydantic_core import PydanticCustomError

from kong_ai_proxy.config.rules import Rule
from kong_ai_proxy.config.templating import TemplateError, compile_template

T = TypeVar("T")


class Record(BaseModel):
    """A record of Kong's schema: unknown fields are refused, null means the field's default."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        defer_build=True,  # half of the time to import, and only the whole is ever validated
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """Rules between fields of this record."""

    @model_validator(mode="before")
    @classmethod
    def _as_kong_writes_it(cls, value: object) -> object:
        """Lua knows one kind of empty table, so an empty record may arrive as `[]`."""
        if isinstance(value, list) and not value:
            return {}
        if isinstance(value, Mapping):
            # Kong puts `$refs` into each record that had vault references; null says nothing.
            return {str(k): item for k, item in value.items() if k != "$refs" and item is not None}
        return value


def setting(
    description: str,
    *,
    default: object = ...,
    between: tuple[int, int] | None = None,
    gt: int | None = None,
    len_min: int | None = None,
    referenceable: bool = False,
    encrypted: bool = False,
) -> Any:
    """One field. Without `default` it is required; `default=None` means it may be left out.

    A record's default is its class: all of its own defaults.
    `referenceable`: Kong may fill it from a vault. Such a value is kept out of repr().
    """
    low, high = between or (None, None)
    flags = {"referenceable": referenceable, "encrypted": encrypted}
    given = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return Field(
        **given,
        description=description,
        ge=low,
        le=high,
        gt=gt,
        min_length=len_min,
        repr=not (referenceable or encrypted),
        json_schema_extra={name: True for name, flag in flags.items() if flag},
    )


def secret(description: str) -> Any:
    """An optional string that Kong encrypts and may fill from a vault."""
    return setting(description, default=None, referenceable=True, encrypted=True)


def is_reference(value: object) -> bool:
    """Whether `value` is a reference into one of Kong's vaults, `{vault://...}`."""
    return isinstance(value, str) and value.startswith("{vault://") and value.endswith("}")


def _integral(value: object) -> object:
    # Lua has one kind of number: 256 may be sent as 256.0.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _sequence(value: object) -> object:
    # The other side of Lua's one kind of empty table.
    if isinstance(value, list):
        return tuple(value)
    return () if value == {} else value


def _mapping(value: object) -> object:
    return {} if value == [] else value


def _reference_passes(value: object, handler: ModelWrapValidatorHandler[Any]) -> object:
    """Kong has replaced a reference before it sends the configuration; in a file it is text."""
    return value if is_reference(value) else handler(value)


def _template(value: str) -> str:
    try:
        compile_template(value)
    except TemplateError as error:
        raise problem(str(error)) from None
    return value


_URL = re.compile(r"(?:(?P<scheme>[^:/?#]+):)?//(?P<host>[^/?#\s]+)")


def _url(value: str) -> str:
    match = _URL.match(value)
    if match is None:
        raise problem("missing host in url")
    if match["scheme"] is None:
        raise problem("missing scheme in url")
    if match["scheme"] not in ("http", "https", "ws", "wss"):
        raise problem("expected a url that begins with http:// or https://")
    return value


def problem(text: str) -> PydanticCustomError:
    """An error whose message is `text`, whatever braces are in it."""
    return PydanticCustomError("problem", "{text}", {"text": text})


Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
"""Kong refuses an empty string everywhere."""

Templated = Annotated[Text, AfterValidator(_template)]
"""Text that may hold `$(headers.x)` and its like."""

IS_URL = object()
"""Marks a text as an address, for the exports."""

Url = Annotated[Text, AfterValidator(_url), IS_URL]
TemplatedUrl = Annotated[Templated, AfterValidator(_url), IS_URL]

Integer = Annotated[int, BeforeValidator(_integral)]
Number = float

Array = Annotated[tuple[T, ...], BeforeValidator(_sequence)]
FreeMap = Annotated[dict[str, Any], BeforeValidator(_mapping)]

OrReference = Annotated[T, WrapValidator(_reference_passes)]
"""A field that is no plain text but may come from a vault."""

MILLISECONDS = (0, 2147483646)
PORT = (0, 65535)
