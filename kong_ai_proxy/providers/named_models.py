"""Models that a request's body names where its path does not: they are held to the one that the
call is for, so that an operation of a provider's own format is no way past the configured model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.providers.base import Call, Change

# A foundation model or an inference profile by its id; other ARNs end with ids that anybody may
# have chosen. https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonbedrock.html
_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:[0-9]*:(?:foundation-model|inference-profile)/([^/]+)\Z"
)
# https://ai.google.dev/api/models, https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest
_GOOGLES = re.compile(
    r"(?:(?:projects/[^/]+/locations/[^/]+/)?publishers/google/)?models/([^/]+)\Z"
)


def bare(name: str) -> str:
    """A model's name without the resource that it is: `gemini-2.5-flash` for
    `publishers/google/models/gemini-2.5-flash`."""
    found = _ARN.match(name) or _GOOGLES.match(name)
    return found[1] if found else name


def held(*places: str) -> Change:
    """A last touch that changes nothing, and raises FormatError for another model than the call's;
    without a model of the call's everybody may name any.

    `places`: where models are named, such as `requests.*.params.model`: `*` is each element of an
    array or member of an object, `**` whatever is below. Google's names of members count in both of
    their spellings, all names in upper and lower case.
    """
    paths = [tuple(map(_spellings, place.split("."))) for place in places]

    def change(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
        for path in paths:
            for place, named in _named(body, path):
                _check(place, named, call.model)
        return {}

    return change


_Place = tuple["_Place | None", str | int]
"""The last step to a value, after those before it."""
_Path = tuple[tuple[str, ...], ...]
"""The steps to models, each in all its spellings."""


def _spellings(name: str) -> tuple[str, ...]:
    """Google's servers read both: https://protobuf.dev/programming-guides/json. Some servers do
    not distinguish upper and lower case either."""
    snake = re.sub(r"[A-Z]", lambda match: f"_{match[0].lower()}", name)
    return (name,) if snake == name else (name.casefold(), snake)


def _check(place: _Place | None, named: object, model: str) -> None:
    if not isinstance(named, str):
        raise FormatError(f"{_text(place)}: expected a string")
    if model and bare(named) != bare(model):
        raise FormatError(f"{_text(place)}: cannot use own model - must be: {model}")


def _text(place: _Place | None) -> str:
    steps: list[str] = []
    while place is not None:
        place, step = place
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return "".join(reversed(steps)).removeprefix(".")


def _named(body: object, path: _Path) -> Iterator[tuple[_Place | None, object]]:
    """What there is at the path's end, and where."""
    found: list[tuple[_Place | None, object, _Path]] = [(None, body, path)]
    while found:
        place, value, rest = found.pop()
        if rest:
            found += _below(place, value, rest)
        elif value is not None:
            yield place, value


def _below(
    place: _Place | None, value: object, path: _Path
) -> Iterator[tuple[_Place, object, _Path]]:
    """The next step of the path: what there is for it, where, and the steps after it."""
    anywhere = path[0] == ("**",)
    if anywhere or path[0] == ("*",):
        rest = path if anywhere else path[1:]
        yield from (((place, at), each, rest) for at, each in _members(value))
    if isinstance(value, dict) and path[0] != ("*",):
        names, rest = (path[1], path[2:]) if anywhere else (path[0], path[1:])
        found = (name for name in value if name.casefold() in names)
        yield from (((place, name), value[name], rest) for name in found)


def _members(value: object) -> Iterable[tuple[str | int, object]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()
