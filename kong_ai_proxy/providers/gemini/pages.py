"""Google's answers to flows; its lists, which are read page by page, as OpenAI's clients know
lists."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol, TypeVar

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai.files import ListQuery
from kong_ai_proxy.providers.flow import ProviderFailed, Reply, Step, parsed, unusable

PAGE = 100
"""Objects that are asked for at once."""

MAX_PAGES = 100
"""As many are looked through in one request."""


class _Object(Protocol):
    @property
    def id(self) -> str:
        """OpenAI's."""


R = TypeVar("R")
T = TypeVar("T", bound=_Object)
Fetch = Callable[[str], Generator[Step, Any, tuple[list[T], str]]]
"""Gets the token of a page, "" for the first; returns its objects and the token of the next one,
"" for none."""


def listed(
    asked: ListQuery,
    fetch: Fetch[T],
    unknown: Callable[[str], ProviderFailed],
    wants: Callable[[T], bool] = lambda _: True,
) -> Generator[Step, Any, tuple[list[T], bool]]:
    """The objects that are asked for, in Google's own order, and whether there are more.

    Google's tokens lead on from a page, OpenAI's `after` from an object, so that the pages before
    it are read again. Raises what `unknown` makes for an `after` that is nowhere.
    """
    found: list[T] = []
    after, token = asked.after, ""
    for _ in range(MAX_PAGES):
        objects, token = yield from fetch(token)
        for each in objects:
            if after:
                after = "" if each.id == after else after
            elif wants(each):
                found.append(each)
        if len(found) > asked.limit or not token:
            break
    if after:
        raise unknown(after)
    return found[: asked.limit], len(found) > asked.limit or bool(found and token)


def read(parse: Callable[[Mapping[str, object]], R], reply: Reply) -> R:
    """What `parse` makes of a reply's JSON object. Raises ProviderFailed (502) where it raises
    FormatError."""
    value = parsed(reply)
    try:
        return parse(value)
    except FormatError as wrong:
        raise unusable(str(wrong)) from None
