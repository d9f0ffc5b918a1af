"""A target's model with its templates: `$(headers.x)`, `$(uri_captures.x)`, `$(query_params.x)`.

Templates stand in `model.name` and in every string below `model.options`. They are found once,
when the configuration arrives; a model without any costs nothing for a request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import quote, unquote

from pydantic import BaseModel

from kong_ai_proxy.config import Model
from kong_ai_proxy.config.templating import Template, TemplateError, compile_template
from kong_ai_proxy.exchange.address import no_dot_segments, split_url
from kong_ai_proxy.exchange.errors import BAD_REQUEST, Refused
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.exchange.privacy import first_values

_M = TypeVar("_M", bound=BaseModel)
_SEGMENT_SAFE = "-._~!$&'()*+,;=:@"  # what RFC 3986 allows in a path segment
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123 section 2.1
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_HOST_PART = re.compile(_LABEL)
_WHOLE_HOST = re.compile(r".*://\$\([^)]*\)(?::[0-9]+)?", re.DOTALL)
_PATH = re.compile(r"([^?#]*)(.*)", re.DOTALL)
_MAX_HOST = 253
_URL = re.compile(r"(?P<origin>[^:/?#]+://[^/?#]*)(?P<path>[^?#]*)(?P<query>.*)", re.DOTALL)

Expand = Callable[["Sources"], str]


class Sources:
    """What a request offers to templates."""

    def __init__(self, request: ClientRequest) -> None:
        self.headers = {name: values[0] for name, values in request.headers.items() if values}
        # Kong leaves reserved characters in captures encoded: a model's ARN comes as arn%3Aaws.
        self.captures = {
            name: unquote(value, errors="surrogateescape")
            for name, value in request.captures.items()
        }
        self.query = _first_values(request.query)

    def expand(self, template: Template, encode: Callable[[str], str] = str) -> str:
        """The template with this request's values. Raises TemplateError."""
        return template.expand(self.headers, self.captures, self.query, encode)


def _first_values(query: str) -> dict[str, str]:
    try:
        return first_values(query)
    except ValueError as error:
        raise Refused(BAD_REQUEST, f"query: {error}") from None


class ModelTemplate:
    """A configured model that is completed for each request."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._tree = _compile(model)

    @property
    def sources(self) -> frozenset[str]:
        """Which of `headers`, `uri_captures` and `query_params` the templates use."""
        templates = map(compile_template, _texts(self._model))
        return frozenset().union(*(each.sources for each in templates if each))

    def resolve(self, request: ClientRequest) -> Model:
        """The model for this request. Raises Refused (400) for what the request lacks."""
        if not self._tree:
            return self._model
        try:
            return _resolve(self._model, self._tree, Sources(request))
        except TemplateError as error:
            raise Refused(BAD_REQUEST, str(error)) from None


_Tree = dict[str, "Expand | _Tree"]


def _compile(record: BaseModel) -> _Tree:
    tree: _Tree = {}
    for name in type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, BaseModel):
            if below := _compile(value):
                tree[name] = below
        elif isinstance(value, str) and (expand := _expander(name, value)):
            tree[name] = expand
    return tree


def _texts(record: BaseModel) -> Iterator[str]:
    for name in type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, BaseModel):
            yield from _texts(value)
        elif isinstance(value, str):
            yield value


def _expander(field: str, text: str) -> Expand | None:
    template = compile_template(text)
    if template is None:
        return None
    if field == "upstream_url":
        return _url_expander(text)
    if field == "upstream_path":
        return _parts_expander(_PATH.fullmatch(text), (_segment, _query_value))
    return lambda sources: sources.expand(template, _utf8)


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(BAD_REQUEST, "a templated value is not UTF-8") from None
    return text


def _url_expander(url: str) -> Expand:
    """Expands each part of a URL with values that cannot leave that part."""
    origin = url.partition("?")[0]
    host = _whole_host if _WHOLE_HOST.fullmatch(_origin(origin)) else _host_part
    expand = _parts_expander(_URL.fullmatch(url), (host, _segment, _query_value))
    return lambda sources: _checked_url(expand(sources))


def _origin(url: str) -> str:
    match = _URL.fullmatch(url)
    return match["origin"] if match else url


def _checked_url(url: str) -> str:
    try:
        host = split_url(url).host
    except Refused:
        raise _bad_host() from None
    if len(host) > _MAX_HOST:
        raise _bad_host()
    return url


def _parts_expander(
    match: re.Match[str] | None, encoders: tuple[Callable[[str], str], ...]
) -> Expand:
    parts = match.groups() if match else ()
    expands = [_part_expander(*part) for part in zip(parts, encoders, strict=True)]
    return lambda sources: "".join(expand(sources) for expand in expands)


def _part_expander(text: str, encode: Callable[[str], str]) -> Expand:
    template = compile_template(text)
    if template is None:
        return lambda _: text
    return lambda sources: sources.expand(template, encode)


def _bad_host() -> Refused:
    return Refused(
        BAD_REQUEST,
        "a templated part of a host name may have letters, digits and '-', a port digits",
    )


def _host_part(value: str) -> str:
    if not _HOST_PART.fullmatch(value):
        raise _bad_host()
    return value


def _whole_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise _bad_host()
    return value


def _segment(value: str) -> str:
    return quote(no_dot_segments(value), safe=_SEGMENT_SAFE, errors="surrogateescape")


def _query_value(value: str) -> str:
    return quote(value, safe="-._~", errors="surrogateescape")


def _resolve(record: _M, tree: _Tree, sources: Sources) -> _M:
    update: dict[str, object] = {}
    for name, node in tree.items():
        if callable(node):
            update[name] = node(sources)
        else:
            update[name] = _resolve(getattr(record, name), node, sources)
    return record.model_copy(update=update)
