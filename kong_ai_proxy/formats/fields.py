"""Looking into parsed JSON that somebody else wrote: what is there, or an error that says where.

`where` is the path of a value in the request, such as `messages[2].content`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

import orjson

from kong_ai_proxy.formats.conversation import Media, MediaKind
from kong_ai_proxy.formats.errors import FormatError, ProviderError

_MAX_HEADER = 300  # characters of a data URL before its data
_MAX_MESSAGE = 2000


def wrong(where: str, expected: str) -> NoReturn:
    """Raise FormatError: at `where` something else was `expected`."""
    raise FormatError(f"{where}: expected {expected}")


def an_object(value: object, where: str) -> Mapping[str, object]:
    """`value`, which has to be a JSON object. Raises FormatError."""
    if not isinstance(value, dict):
        wrong(where, "an object")
    return value


def an_array(value: object, where: str) -> list[object]:
    """`value`, which has to be a JSON array. Raises FormatError."""
    if not isinstance(value, list):
        wrong(where, "an array")
    return value


def a_text(value: object, where: str) -> str:
    """`value`, which has to be a JSON string. Raises FormatError."""
    if not isinstance(value, str):
        wrong(where, "a string")
    return value


def objects(value: object, where: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Each element of an array of objects, with where it stands; of null none. Raises
    FormatError."""
    for index, element in enumerate(an_array([] if value is None else value, where)):
        place = f"{where}[{index}]"
        yield place, an_object(element, place)


def text_of(value: Mapping[str, object], name: str) -> str:
    """The member `name` where it is a string, else "": for what a provider may leave out."""
    found = value.get(name)
    return found if isinstance(found, str) else ""


def object_of(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The member `name` where it is an object, else an empty one."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def objects_of(value: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    """The objects of the array `name`; none where it is null or something else."""
    found = value.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def arguments_object(arguments: str, where: str) -> Mapping[str, object]:
    """The JSON text of a call's arguments, parsed; of "" an empty object. Raises FormatError."""
    if not arguments.strip():
        return {}
    try:
        return an_object(orjson.loads(arguments), where)
    except orjson.JSONDecodeError:
        wrong(where, "JSON text of an object")


def json_text(value: object) -> str:
    """`value` as JSON text."""
    return orjson.dumps(value).decode()


def media_of_url(kind: MediaKind, url: str, **more: str) -> Media:
    """Media of an URL, which may be a data URL (RFC 2397). Raises FormatError for a data URL that
    is not base64."""
    if url[:5].lower() != "data:":
        return Media(kind=kind, url=url, **more)
    comma = url.find(",", 0, _MAX_HEADER)
    media_type, *parameters = url[5 : max(comma, 5)].lower().split(";")
    if comma < 0 or "base64" not in parameters:
        raise FormatError("a data URL has to be data:MEDIA/TYPE;base64,...")
    own_type = {"media_type": media_type} if media_type else {}
    return Media(kind=kind, data=url[comma + 1 :], **{**more, **own_type})


def data_url(media: Media) -> str:
    """Its URL: its own one, or a data URL of what it holds."""
    if media.url:
        return media.url
    return f"data:{media.media_type or 'application/octet-stream'};base64,{media.data}"


def parsed(body: bytes) -> object:
    """The JSON value of a body; None where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def plain_error(status: int, body: bytes) -> ProviderError:
    """What an error says that is not in the provider's own shape: HTML of a proxy, plain text, or
    nothing at all."""
    text = body[: 4 * _MAX_MESSAGE].decode("utf-8", "replace").strip()
    if not text or text.startswith("<"):
        return ProviderError(f"the provider answered with status {status}", status=status)
    return ProviderError(text[:_MAX_MESSAGE], status=status)
