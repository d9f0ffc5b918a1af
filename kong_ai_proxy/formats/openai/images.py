"""OpenAI's images: https://platform.openai.com/docs/api-reference/images.

An edit comes as a form with files, or as JSON with references to images
(https://platform.openai.com/docs/api-reference/images/createEdit).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import cast

import orjson

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import a_text, an_array, wrong
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.formats.images import (
    PNG,
    Image,
    ImagesAnswer,
    ImagesRequest,
    Picture,
    media_type_of_base64,
)
from kong_ai_proxy.formats.openai.pictures import FILES, picture, referred
from kong_ai_proxy.formats.usage import Usage

MAX_N = 10
MAX_IMAGES = 16

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_FORMATS = ("png", "jpeg", "webp")
_QUALITIES = frozenset({"low", "medium", "high", "xhigh", "max"})
_BACKGROUNDS = ("transparent", "opaque")

_IMAGE_FIELDS = ("image", "image[]")
_TAKEN_FILES = frozenset({*_IMAGE_FIELDS, "mask"})
_FILE_FIELDS = _TAKEN_FILES | {"images", "images[]", "markup"}
_EXTRA = "extra_body"
_NOT_EXTRA = frozenset({"model", "stream"})
_TEXT_FIELDS = frozenset(
    {
        "background",
        "input_fidelity",
        "maskPrompt",
        "mask_prompt",
        "model",
        "moderation",
        "negativePrompt",
        "negativeText",
        "negative_prompt",
        "output_format",
        "prompt",
        "quality",
        "response_format",
        "safety_identifier",
        "search_prompt",
        "select_prompt",
        "size",
        "style",
        "user",
    }
)
_NESTED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]{0,100}\]){1,8})")


def parse_generation(body: Mapping[str, object]) -> ImagesRequest:
    """A request for images made from nothing. Raises FormatError."""
    for name in sorted(_FILE_FIELDS):
        if body.get(name) is not None:
            wrong(name, "none: images to work on are sent with an edit, POST /images/edits")
    return _request(body, (), None)


def parse_edit(body: Mapping[str, object], parts: tuple[Part, ...]) -> ImagesRequest:
    """A request for images made from others: of a form its plain fields and its parts, or a JSON
    object and no parts. Raises FormatError."""
    said = {name: value for name, value in body.items() if value is not None}
    if parts:
        images, mask = _files(parts)
        return _request(_fields(said, parts), images, mask)
    images, mask = _references(said)
    rest = {name: value for name, value in said.items() if name not in _FILE_FIELDS}
    return _request(rest, images, mask)


# ---- what both have


def _request(
    body: Mapping[str, object], images: tuple[Picture, ...], mask: Picture | None
) -> ImagesRequest:
    said = {name: value for name, value in body.items() if value is not None}
    _check_not_streamed(said)
    return ImagesRequest(
        prompt=_prompt(said.pop("prompt", None)),
        model=openai.requested_model({"model": said.pop("model", None)}) or "",
        n=_number(said.pop("n", 1), "n", 1, MAX_N),
        size=_size(said.pop("size", "auto")),
        quality=_unless_auto(said.pop("quality", "auto"), "quality"),
        background=_one_of(said.pop("background", "auto"), "background", _BACKGROUNDS),
        output_format=_one_of(said.pop("output_format", "auto"), "output_format", _FORMATS),
        as_url=_as_url(said.pop("response_format", None)),
        images=images,
        mask=mask,
        settings=said,
    )


def _check_not_streamed(said: dict[str, object]) -> None:
    """No other provider than OpenAI and Azure streams images."""
    if said.pop("stream", False) not in (False, ""):
        wrong("stream", "false: this provider answers with whole images; leave `stream` out")
    if _number(said.pop("partial_images", 0), "partial_images", 0, 3):
        wrong("partial_images", "0: this provider answers with whole images")


def _prompt(value: object) -> str:
    if value is None:
        wrong("prompt", "a text that says what the image shows; it is missing")
    text = a_text(value, "prompt")
    if not text.strip():
        wrong("prompt", "a text that is not empty")
    return text


def _number(value: object, where: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        wrong(where, f"a whole number from {least} to {most}")
    return value


def _size(value: object) -> tuple[int, int] | None:
    if value == "auto":
        return None
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        wrong("size", 'width and height in pixels such as "1024x1024", or "auto"')
    return int(found[1]), int(found[2])


def _unless_auto(value: object, where: str) -> str | None:
    text = a_text(value, where)
    return None if text == "auto" else text


def _one_of(value: object, where: str, known: tuple[str, ...]) -> str | None:
    text = _unless_auto(value, where)
    if text is not None and text not in known:
        wrong(where, f"{', '.join(known)}; this provider makes no other")
    return text


def _as_url(value: object) -> bool | None:
    if value is not None and value not in ("url", "b64_json"):
        wrong("response_format", "url or b64_json")
    return None if value is None else value == "url"


# ---- forms


def _files(parts: tuple[Part, ...]) -> tuple[tuple[Picture, ...], Picture | None]:
    """The images of a form, and its mask."""
    for part in parts:
        if part.name not in _TAKEN_FILES and (_is_file(part) or part.name in _FILE_FIELDS):
            raise FormatError(f"{part.name}: this provider takes the files image, image[] and mask")
    files = [part.content for part in parts if part.name in _IMAGE_FIELDS]
    masks = [part.content for part in parts if part.name == "mask"]
    if len(masks) > 1:
        wrong("mask", "one file")
    images = tuple(picture(content, "image") for content in files)
    return _counted(images, "image"), _mask(masks[0], "mask") if masks else None


def _is_file(part: Part) -> bool:
    return part.filename is not None


def _fields(body: Mapping[str, object], parts: tuple[Part, ...]) -> dict[str, object]:
    """The plain fields of a form as the members that JSON would have: a form has texts only, and
    writes what is nested as `svg[model]` and `colors[]`."""
    fields = {
        name: _valued(name, value)
        for name, value in body.items()
        if name not in _FILE_FIELDS and not _NESTED.fullmatch(name)
    }
    for part in parts:
        found = _NESTED.fullmatch(part.name)
        if found and not _is_file(part) and part.name not in _FILE_FIELDS:
            _put(fields, found[1], found[2], part)
    return _with_extra(fields)


def _with_extra(fields: dict[str, object]) -> dict[str, object]:
    """Members of `extra_body` are fields like others, which win over them. Raises FormatError."""
    extra = fields.get(_EXTRA)
    if not isinstance(extra, dict):
        return fields
    openai.check_names(extra)
    added = {name: value for name, value in extra.items() if name not in _NOT_EXTRA}
    return {**added, **{name: value for name, value in fields.items() if name != _EXTRA}}


def _valued(name: str, value: object) -> object:
    """A number, a boolean, an object or an array where the text reads as one."""
    if not isinstance(value, str) or name in _TEXT_FIELDS:
        return value
    try:
        return cast(object, orjson.loads(value))
    except orjson.JSONDecodeError:
        return value


def _put(fields: dict[str, object], name: str, keys: str, part: Part) -> None:
    """The value of a nested field, where it belongs."""
    names = [name, *keys[1:-1].split("][")]
    try:
        value = _valued(names[-1], part.content.decode())
    except UnicodeDecodeError:
        raise FormatError(f"the field {part.name!r} is not UTF-8") from None
    place: dict[str, object] | list[object] = fields
    for key, following in zip(names, [*names[1:], None], strict=True):
        made = value if following is None else [] if following == "" else {}
        if isinstance(place, list):
            if key:
                wrong(part.name, "[] or [name] after one name, not both")
            place.append(made)
        else:
            made = made if following is None else place.get(key, made)
            place[key] = made
        if following is None:
            return
        if isinstance(made, list) == (following == "") and isinstance(made, dict | list):
            place = made
        else:
            wrong(part.name, "[] or [name] after one name, not both")


# ---- references


def _references(said: Mapping[str, object]) -> tuple[tuple[Picture, ...], Picture | None]:
    """The images that JSON refers to, and the mask: `images`, or `image` with a data URL or
    several."""
    if "markup" in said:
        raise FormatError("markup: this provider takes images and a mask")
    if "image" in said and "images" in said:
        raise FormatError("image: expected either images or image, not both")
    images = tuple(picture(content, where) for where, content in _data(said))
    mask = said.get("mask")
    found = None if mask is None else _mask(referred(mask, "mask"), "mask")
    return _counted(images, "images"), found


def _data(said: Mapping[str, object]) -> Iterator[tuple[str, bytes]]:
    name = "image" if "image" in said else "images"
    value = said.get(name, [])
    if name == "image" and not isinstance(value, list):
        value = [value]
    for index, each in enumerate(an_array(value, name)):
        where = f"{name}[{index}]"
        yield where, referred(each, where)


# ---- images


def _counted(images: tuple[Picture, ...], where: str) -> tuple[Picture, ...]:
    if not images:
        wrong(where, f"{FILES} to edit; it is missing")
    if len(images) > MAX_IMAGES:
        wrong(where, f"at most {MAX_IMAGES} images, got {len(images)}")
    return images


def _mask(content: bytes, where: str) -> Picture:
    mask = picture(content, where)
    if mask.media_type != PNG:
        wrong(where, "a PNG file, whose transparent pixels say where to edit")
    return mask


# ---- answers


def render_answer(answer: ImagesAnswer, request: ImagesRequest, now: int) -> dict[str, object]:
    """OpenAI's answer. An image that has no address, where one was asked for, gets a data URL.
    `now` is in seconds since 1970."""
    described: dict[str, object] = {
        name: answer.settings[name]
        for name in ("background", "output_format", "quality", "size")
        if answer.settings.get(name) is not None
    }
    if described.get("quality") not in _QUALITIES:
        described.pop("quality", None)
    made = _output_format(answer)
    if made and "output_format" not in described:
        described["output_format"] = made
    data = [_rendered(image, request) for image in answer.images]
    rendered: dict[str, object] = {"created": now, "data": data, **described}
    if answer.usage is not None:
        rendered["usage"] = _usage(answer.usage)
    return rendered


def _output_format(answer: ImagesAnswer) -> str:
    """What the first image is, where that can be told and OpenAI has a name for it."""
    kind = _media_type(answer.images[0]).rpartition("/")[2] if answer.images else ""
    return kind if kind in _FORMATS else ""


def _media_type(image: Image) -> str:
    return media_type_of_base64(image.base64) or image.media_type


def _rendered(image: Image, request: ImagesRequest) -> dict[str, object]:
    told: dict[str, object] = {}
    if request.as_url or not image.base64:
        told["url"] = image.url or f"data:{_media_type(image) or PNG};base64,{image.base64}"
    else:
        told["b64_json"] = image.base64
    if image.revised_prompt is not None:
        told["revised_prompt"] = image.revised_prompt
    return told


def _usage(usage: Usage) -> dict[str, object]:
    told: dict[str, object] = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "input_tokens_details": _kinds(usage.prompt_details, usage.prompt_tokens, "text_tokens"),
    }
    if usage.completion_details:
        told["output_tokens_details"] = _kinds(
            usage.completion_details, usage.completion_tokens, "image_tokens"
        )
    return told


def _kinds(details: Mapping[str, int], total: int, most: str) -> dict[str, int]:
    """Tokens of text and of images; where nobody told how many of a kind there are, all but the
    others, those of the kind `most` first."""
    kinds = {name: details.get(name, 0) for name in ("image_tokens", "text_tokens")}
    untold = [name for name in kinds if name not in details]
    if untold:
        kinds[most if most in untold else untold[0]] += max(total - sum(kinds.values()), 0)
    return kinds
