"""The stand-in provider's images: drawn anew for each order, and edits that only look at theirs."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from kong_ai_proxy.gateway.provider import png, text
from kong_ai_proxy.gateway.provider.files import FILES
from kong_ai_proxy.gateway.provider.form import Form, form_of
from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Route,
    each,
    json_response,
    missing,
    new_id,
    now,
    read_json,
    send_named_events,
)
from kong_ai_proxy.gateway.provider.image_order import (
    EDIT_JSON_RULES,
    EDIT_RULES,
    GENERATION_RULES,
    Order,
    order,
)
from kong_ai_proxy.gateway.provider.shelf import Shelf

PUBLIC: Final = "/images/"  # where pictures are fetched, without a key as OpenAI's are
_MOST_BYTES: Final = 50 * 1024 * 1024
_MOST_DALL_E_BYTES: Final = 4 * 1024 * 1024
_MOST_IMAGES: Final = 16
_HEAD: Final = 32
_IMAGE_TOKENS: Final = 194  # of each input image


@dataclass(frozen=True)
class Picture:
    """What must be known to draw a picture again."""

    id: str
    order: Order
    about: str

    def shown(self) -> Json:
        return {"id": self.id}

    def drawn(self, part: float = 1.0) -> bytes:
        size = self.order
        transparent = self.order.transparent
        return png.picture(size.width, size.height, self.about, transparent=transparent, drawn=part)


PICTURES: Final = web.AppKey("pictures", Shelf[Picture])


def set_up(app: web.Application) -> None:
    """Give the application its memory of pictures."""
    app[PICTURES] = Shelf("No picture '{id}'.", weigh=lambda picture: len(picture.about))


async def generations(request: web.Request) -> web.StreamResponse:
    """POST /v1/images/generations"""
    wanted = order(await read_json(request), GENERATION_RULES)
    return await _answer(request, wanted, 0, "image_generation")


async def edits(request: web.Request) -> web.StreamResponse:
    """POST /v1/images/edits"""
    if request.content_type == "application/json":
        body = await read_json(request)
        wanted = order(body, EDIT_JSON_RULES, ("images", "prompt"))
        count = _check_references(request, body)
    else:
        async with form_of(request, _MOST_BYTES) as form:
            files = ("image", "mask", "markup")
            wanted = order(form.params(EDIT_RULES, files), EDIT_RULES)
            count = _check_uploads(form, wanted)
    return await _answer(request, wanted, count, "image_edit")


async def picture(request: web.Request) -> web.StreamResponse:
    """GET /images/{id}.png, the address in an answer"""
    found = request.app[PICTURES].get(request.match_info["id"])
    return web.Response(body=found.drawn(), content_type="image/png")


ROUTES: Final[tuple[Route, ...]] = (
    ("POST", "/v1/images/generations", generations),
    ("POST", "/v1/images/edits", edits),
    ("GET", PUBLIC + "{id}.png", picture),
)


# -- inputs ----------------------------------------------------------------------------------------


def _check_uploads(form: Form, wanted: Order) -> int:
    """Look at the images of a form. Returns how many; raises ApiError 400 or 413."""
    uploads = form.uploads("image")
    if not uploads:
        raise missing("image")
    _check_count(len(uploads), 1 if wanted.model == "dall-e-2" else _MOST_IMAGES)
    for number, upload in enumerate(uploads):
        _check_image(upload.blob.read(0, _HEAD), f"image[{number}]", wanted)
        if wanted.dall_e and upload.blob.size > _MOST_DALL_E_BYTES:
            message = "Uploaded image must be a PNG and less than 4 MB."
            raise ApiError(400, message, param="image")
    for mask in form.uploads("mask"):
        _check_mask(mask.blob.read(0, _HEAD), uploads[0].blob.read(0, _HEAD))
    return len(uploads)


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise ApiError(
            400,
            f"Invalid 'image': too many images. Expected at most {most}, but got {count} instead.",
            param="image",
            code="array_above_max_length",
        )


def _check_image(head: bytes, param: str, wanted: Order | None = None) -> None:
    size = png.size_of(head)
    webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    jpeg = head.startswith(b"\xff\xd8\xff")
    if wanted is not None and wanted.dall_e:
        if size is None or size[0] != size[1]:
            message = "Uploaded image must be a square PNG and less than 4 MB."
            raise ApiError(400, message, param=param, code="invalid_image_format")
    elif size is None and not webp and not jpeg:
        raise ApiError(
            400,
            "Invalid image file: expected a PNG, WebP or JPEG file, please check your image file.",
            param=param,
            code="invalid_image_file",
        )


def _check_mask(mask: bytes, image: bytes) -> None:
    size, other = png.size_of(mask), png.size_of(image)
    if size is None or (other is not None and size != other):
        raise ApiError(
            400,
            "Invalid mask: expected a PNG file with the dimensions of the image.",
            param="mask",
            code="invalid_image_file",
        )


def _check_references(request: web.Request, body: Json) -> int:
    """Look at the images a JSON request names. Returns how many; raises ApiError 400."""
    images: list[Any] = body["images"]
    if not images:
        message = "Invalid 'images': empty array. Expected at least one image."
        raise ApiError(400, message, param="images", code="empty_array")
    _check_count(len(images), _MOST_IMAGES)
    each(images, "images", lambda image, path: _check_reference(request, image, path))
    if body.get("mask") is not None:
        _check_reference(request, body["mask"], "mask")
    return len(images)


def _check_reference(request: web.Request, image: Json, path: str) -> None:
    """Files are looked at, data URLs too; other URLs are not fetched."""
    url, key = image.get("image_url"), image.get("file_id")
    if (url is None) == (key is None) or not isinstance(url or key, str):
        message = f"Invalid '{path}': expected either 'image_url' or 'file_id'."
        raise ApiError(400, message, param=path)
    if key is not None:
        _check_image(request.app[FILES].get(key).blob.read(0, _HEAD), path)
        return
    url = str(url)
    head, comma, data = url.partition(",")
    if head.startswith("data:") and head.endswith(";base64") and comma:
        try:
            # Enough characters for the head of the file.
            _check_image(base64.b64decode(data[: _HEAD * 4], validate=True), path)
        except binascii.Error:
            message = f"Invalid '{path}.image_url': the data URL is not base64."
            raise ApiError(400, message, param=path) from None
    elif not url.startswith(("http://", "https://")):
        message = f"Invalid '{path}.image_url': expected an http, https or base64 data URL."
        raise ApiError(400, message, param=path)


# -- answers ---------------------------------------------------------------------------------------


async def _answer(
    request: web.Request, wanted: Order, inputs: int, kind: str
) -> web.StreamResponse:
    about = wanted.prompt
    pictures = [Picture(new_id("img_"), wanted, f"{about} {n}") for n in range(wanted.n)]
    if wanted.stream:
        return await send_named_events(request, _events(wanted, pictures, inputs, kind))
    data = [_shown(request, picture) for picture in pictures]
    if wanted.dall_e:
        return json_response({"created": now(), "data": data})
    head = {"created": now(), **_described(wanted)}
    return json_response({**head, "data": data, "usage": _usage(wanted, inputs)})


def _shown(request: web.Request, made: Picture) -> Json:
    out: Json = {}
    if made.order.url:
        request.app[PICTURES].add(made)
        assert request.transport is not None
        host, port = request.transport.get_extra_info("sockname")[:2]
        out["url"] = f"http://{host}:{port}{PUBLIC}{made.id}.png"
    else:
        out["b64_json"] = base64.b64encode(made.drawn()).decode()
    if made.order.model == "dall-e-3":
        out["revised_prompt"] = f"{made.order.prompt} (drawn by the stand-in provider)"
    return out


def _described(wanted: Order) -> Json:
    return {
        "background": "transparent" if wanted.transparent else "opaque",
        "output_format": "png",
        "quality": wanted.quality,
        "size": wanted.size,
    }


def _usage(wanted: Order, inputs: int) -> Json:
    words, images = text.count(wanted.prompt), inputs * _IMAGE_TOKENS
    return {
        "input_tokens": words + images,
        "input_tokens_details": {"text_tokens": words, "image_tokens": images},
        "output_tokens": wanted.tokens,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": wanted.tokens},
        "total_tokens": words + images + wanted.tokens,
    }


def _events(
    wanted: Order, pictures: list[Picture], inputs: int, kind: str
) -> Iterator[tuple[str, Json]]:
    head = {"created_at": now(), **_described(wanted)}
    for made in pictures:
        for number in range(wanted.partials):
            part = made.drawn((number + 1) / (wanted.partials + 1))
            yield _event(f"{kind}.partial_image", part, {**head, "partial_image_index": number})
        usage = _usage(wanted, inputs)
        yield _event(f"{kind}.completed", made.drawn(), {**head, "usage": usage})


def _event(name: str, image: bytes, more: Json) -> tuple[str, Json]:
    return name, {"type": name, "b64_json": base64.b64encode(image).decode(), **more}
