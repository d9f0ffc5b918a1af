"""The two spellings of Gemini's members.

Google's servers read JSON as protojson: a member may be called `inlineData` or `inline_data`
(https://protobuf.dev/programming-guides/json/). What they send is camelCase.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from kong_ai_proxy.formats.fields import an_array, an_object

_MESSAGES = frozenset(
    {"generationConfig", "imageConfig", "thinkingConfig"} | {"toolConfig", "functionCallingConfig"}
)
"""What is put together member by member where two say something of it."""


SIGNED = "gemini:"
"""Stands before the signature of a thought that Gemini made, for as long as it is away from Gemini,
which answers signatures of other providers with a 400: those are not sent to it. No provider's own
signature has a colon. A call's signature needs no such mark: only Gemini signs calls."""


@lru_cache(maxsize=1024)
def camel(name: str) -> str:
    """`name` as Google's servers spell it."""
    first, *others = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in others)


def camelized(value: Mapping[str, object]) -> dict[str, object]:
    """The members of `value` themselves, those that are null left out."""
    return {camel(name): each for name, each in value.items() if each is not None}


def message(value: object, where: str) -> dict[str, object]:
    """`value`, an object or null, camelized. Raises FormatError."""
    return camelized({} if value is None else an_object(value, where))


def repeated(value: object, where: str) -> list[object]:
    """`value` as an array. Google's own examples leave out the brackets around a single object,
    which its servers accept. Raises FormatError."""
    if value is None:
        return []
    return [value] if isinstance(value, dict) else an_array(value, where)


def merged(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, object]:
    """Both, in camelCase; what `other` says wins."""
    found = dict(one)
    for name, value in camelized(other).items():
        before = found.get(name)
        if name in _MESSAGES and isinstance(value, dict):
            value = merged(before if isinstance(before, dict) else {}, value)
        found[name] = value
    return found
