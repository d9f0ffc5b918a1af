"""Placeholders in a model's name and options.

They are `$(headers.x)`, `$(uri_captures.x)` and `$(query_params.x)`. A placeholder reaches from
`$(` to the next `)` and is `source.key`, both without a dot. The error texts are Kong's, because
clients see them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SOURCES = ("headers", "uri_captures", "query_params")

_PLACEHOLDER = re.compile(r"\$\((.*?)\)", re.DOTALL)


class TemplateError(ValueError):
    """A placeholder that cannot be read, or whose value the request does not have."""


@dataclass(frozen=True, slots=True)
class _Placeholder:
    source: str
    key: str


@dataclass(frozen=True, slots=True)
class Template:
    """Text with at least one placeholder."""

    text: str
    parts: tuple[str | _Placeholder, ...]

    @property
    def sources(self) -> frozenset[str]:
        """Which of SOURCES the placeholders read."""
        return frozenset(part.source for part in self.parts if not isinstance(part, str))

    def expand(
        self,
        headers: Mapping[str, str],
        captures: Mapping[str, str],
        query: Mapping[str, str],
        encode: Callable[[str], str] = str,
    ) -> str:
        """The text with every placeholder replaced by its value, passed through `encode`.

        `headers` have lower-case names, `captures` are the Route's named captures. Raises
        TemplateError when the request lacks a value.
        """
        values = dict(zip(SOURCES, (headers, captures, query), strict=True))
        return "".join(
            part if isinstance(part, str) else encode(_value(part, values[part.source]))
            for part in self.parts
        )


def compile_template(text: str) -> Template | None:
    """The template that `text` is, or None when it has no placeholder.

    Raises TemplateError for a placeholder that is not `source.key`, or of an unknown source.
    """
    parts: list[str | _Placeholder] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        parts += [text[end : match.start()], _placeholder(match[1], text)]
        end = match.end()
    if not parts:
        return None
    parts.append(text[end:])
    return Template(text, tuple(part for part in parts if part != ""))


def _placeholder(expression: str, text: str) -> _Placeholder:
    source, _, key = expression.partition(".")
    if not source or not key or "." in key:
        shown = "upstream_url" if "://" in text else text  # a URL may hold a key
        raise TemplateError(f"cannot parse expression for field '{shown}'")
    if source not in SOURCES:
        raise TemplateError(f"source '{source}' is not supported")
    return _Placeholder(source, key)


def _value(part: _Placeholder, values: Mapping[str, str]) -> str:
    value = values.get(part.key.lower() if part.source == "headers" else part.key)
    if not value:
        raise TemplateError(f"{part.source} key {part.key} was not provided")
    return value
