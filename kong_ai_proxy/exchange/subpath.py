"""Where below a collection of objects a request wants to go: `/files/{id}/content`."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from kong_ai_proxy.exchange.errors import BAD_REQUEST, NOT_FOUND, Refused
from kong_ai_proxy.exchange.messages import ClientRequest

# A slash inside an id, whichever way it is written, and what no id has.
_ODD = re.compile(r"%2f|%5c|\\|%[01][0-9a-f]|%7f", re.IGNORECASE)


class Subpath(NamedTuple):
    """The collection that the client's path names, and the rest after it."""

    collection: str
    """One of those that there are; the first one where the path names none."""
    rest: str
    """Percent-encoded; "" or starting with "/"."""


def subpath(request: ClientRequest, collections: tuple[str, ...]) -> Subpath:
    """What follows the last segment that is the name of a collection; in a path without one, what
    follows the route's own path. Raises Refused (400) for a rest that would not stay where it is.
    """
    segments = request.path.split("/")
    for index in range(len(segments) - 1, -1, -1):
        if segments[index] in collections:
            rest = "/".join(["", *segments[index + 1 :]])
            return Subpath(segments[index], _checked(rest))
    return Subpath(collections[0], _checked(_after(request.route_path, request.path)))


def _after(prefix: str, path: str) -> str:
    rest = path[len(prefix) :] if prefix and path.startswith(prefix) else ""
    if rest and not prefix.endswith("/") and rest[0] != "/":  # /filesx on the route /files
        raise Refused(NOT_FOUND, f"expected {prefix}, or a slash after it")
    return "/" + rest.lstrip("/") if rest else ""


def _checked(rest: str) -> str:
    """`rest` without a slash at its end, which OpenAI answers with 404."""
    segments = unquote(rest, errors="surrogateescape").split("/")
    if _ODD.search(rest) or any(each.partition(";")[0] in (".", "..") for each in segments):
        raise Refused(BAD_REQUEST, "the path after the collection must be made of plain ids")
    if "//" in rest:
        raise Refused(BAD_REQUEST, "the path after the collection has an empty segment")
    return rest.rstrip("/")
