"""Inputs that may be text or tokens, one or many: a completion's prompt, an embedding's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kong_ai_proxy.gateway.provider import text
from kong_ai_proxy.gateway.provider.http import ApiError, kind_of

_MOST: Final = 2048


@dataclass(frozen=True)
class Input:
    """One input as text, and how many tokens it has."""

    text: str
    tokens: int


def inputs(value: object, param: str) -> list[Input]:
    """The inputs in a string, an array of strings, of tokens, or of arrays of tokens.

    Tokens are numbers of a vocabulary nobody has here: they are taken as words. Raises ApiError
    400 for anything else and for more than 2,048 inputs.
    """
    if isinstance(value, str):
        return [_words(value)]
    if not isinstance(value, list) or not value:
        raise _wrong(value, param)
    if all(_is_token(item) for item in value):
        return [_tokens(value)]
    if len(value) > _MOST:
        raise ApiError(
            400,
            f"Invalid '{param}': array too long. Expected an array with maximum length {_MOST}, "
            f"but got an array with length {len(value)} instead.",
            param=param,
            code="array_above_max_length",
        )
    if all(isinstance(item, str) for item in value):
        return [_words(item) for item in value]
    if all(isinstance(item, list) and item and all(map(_is_token, item)) for item in value):
        return [_tokens(item) for item in value]
    raise _wrong(value, param)


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _words(value: str) -> Input:
    return Input(value, text.count(value))


def _tokens(value: list[int]) -> Input:
    return Input(" ".join(map(str, value)), len(value))


def _wrong(value: object, param: str) -> ApiError:
    got = "an empty array" if value == [] else kind_of(value)
    return ApiError(
        400,
        f"Invalid '{param}': expected a string, an array of strings, an array of tokens or an "
        f"array of token arrays, but got {got} instead.",
        param=param,
        code="invalid_type",
    )
