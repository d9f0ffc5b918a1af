"""Images of the stand-in provider: real pictures, through OpenAI's own client and its models."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import httpx
import openai
import pytest
from openai.types import image_edit_params, image_generate_params

from kong_ai_proxy.gateway.provider import image_order, png
from tests.unit.gateway.provider_client import client, plain

_PNG = png.picture(64, 64, "a")
_GPT: Any = {"model": "gpt-image-1", "prompt": "A red house"}


def _pixels(data: bytes) -> tuple[int, int, int]:
    """Width, height and bytes a pixel, after checking every chunk and row."""
    assert data.startswith(png.SIGNATURE)
    at, packed, head = 8, b"", b""
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            kind + body
        )
        head, packed = (body if kind == b"IHDR" else head), packed + body * (kind == b"IDAT")
        at += 12 + size
    width, height, _, colour = struct.unpack(">IIBB", head[:10])
    depth = {2: 3, 6: 4}[colour]
    assert len(zlib.decompress(packed)) == height * (1 + width * depth)
    return width, height, depth


def test_images_know_every_parameter_of_the_official_client() -> None:
    made = image_generate_params.ImageGenerateParamsBase.__annotations__
    edited = image_edit_params.ImageEditParamsBase.__annotations__
    assert made.keys() | {"stream"} == image_order.GENERATION_RULES.keys()
    uploads = {"image", "mask", "markup"}
    assert edited.keys() - uploads | {"stream"} == image_order.EDIT_RULES.keys()


@pytest.mark.parametrize(
    ("model", "size", "measured"),
    [
        ("gpt-image-1", None, (1024, 1024)),
        ("gpt-image-1", "auto", (1024, 1024)),
        ("gpt-image-1", "1536x1024", (1536, 1024)),
        ("gpt-image-2", "1536x864", (1536, 864)),
        ("anything", "64x64", (64, 64)),
    ],
)
async def test_an_image_has_the_size_that_was_asked_for(
    model: str, size: Any, measured: tuple[int, int]
) -> None:
    async with client() as official:
        answer = await official.images.generate(
            model=model, prompt="A house", **({"size": size} if size else {})
        )
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    assert _pixels(base64.b64decode(answer.data[0].b64_json)) == (*measured, 3)
    assert answer.size == f"{measured[0]}x{measured[1]}"


async def test_an_answer_describes_itself_and_its_usage() -> None:
    async with client() as official:
        answer = await official.images.generate(
            **_GPT, n=2, quality="low", background="transparent"
        )
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.text_tokens == 3
    assert answer.usage.output_tokens == 2 * 272
    assert (answer.background, answer.output_format) == ("transparent", "png")
    assert answer.quality == "low"
    images = [base64.b64decode(image.b64_json or "") for image in answer.data or []]
    assert images[0] != images[1]
    assert _pixels(images[0])[2] == 4


async def test_dall_e_answers_with_an_address_that_needs_no_key() -> None:
    async with client(api_key="k", given="k") as official:
        answer = await official.images.generate(model="dall-e-2", prompt="x", size="256x256", n=2)
        async with httpx.AsyncClient(verify=False) as http:
            fetched = [await http.get(image.url or "") for image in answer.data or []]
    assert [_pixels(image.content) for image in fetched] == [(256, 256, 3)] * 2
    assert fetched[0].headers["content-type"] == "image/png"
    assert answer.usage is None


async def test_dall_e_can_answer_with_the_image_itself() -> None:
    async with client() as official:
        answer = await official.images.generate(
            model="dall-e-3",
            prompt="x",
            response_format="b64_json",
            size="1792x1024",
            style="vivid",
        )
    assert answer.data is not None
    assert _pixels(base64.b64decode(answer.data[0].b64_json or ""))[:2] == (1792, 1024)
    assert answer.data[0].revised_prompt is not None


async def test_a_stream_shows_parts_and_then_the_whole() -> None:
    async with client() as official:
        stream = await official.images.generate(**_GPT, stream=True, partial_images=2)
        events = [event async for event in stream]
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    images = [base64.b64decode(event.b64_json) for event in events]
    assert len({_pixels(image) for image in images}) == 1
    assert len(set(images)) == 3
    last = events[-1]
    assert last.type == "image_generation.completed"
    assert last.usage.total_tokens == last.usage.input_tokens + last.usage.output_tokens


async def test_an_address_of_no_picture_is_not_found() -> None:
    async with plain() as http:
        assert (await http.get("/images/x.png")).status_code == 404
        assert (await http.get("/images/..%2fx.png")).status_code == 404


# -- edits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
async def test_images_are_edited(count: int) -> None:
    image: Any = ("a.png", _PNG) if count == 1 else [(f"{n}.png", _PNG) for n in range(count)]
    async with client() as official:
        answer = await official.images.edit(**_GPT, image=image, mask=("m.png", _PNG))
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.image_tokens == count * 194
    assert answer.data is not None
    assert _pixels(base64.b64decode(answer.data[0].b64_json or ""))[:2] == (1024, 1024)


async def test_an_edit_can_be_streamed() -> None:
    async with client() as official:
        stream = await official.images.edit(
            **_GPT, image=("a.png", _PNG), stream=True, partial_images=1
        )
        kinds = [event.type async for event in stream]
    assert kinds == ["image_edit.partial_image", "image_edit.completed"]


async def test_an_edit_by_dall_e() -> None:
    async with client() as official:
        answer = await official.images.edit(
            model="dall-e-2", prompt="x", image=("a.png", _PNG), size="256x256"
        )
    assert answer.data is not None
    assert answer.data[0].url is not None


async def test_an_edit_can_be_json() -> None:
    data = f"data:image/png;base64,{base64.b64encode(_PNG).decode()}"
    async with client() as official:
        file = await official.files.create(file=("a.png", _PNG), purpose="vision")
        images = [{"image_url": data}, {"file_id": file.id}, {"image_url": "https://x/a.png"}]
        answer: Any = await official.post(
            "/images/edits", body={**_GPT, "images": images}, cast_to=object
        )
    assert answer["usage"]["input_tokens_details"]["image_tokens"] == 3 * 194


@pytest.mark.parametrize(
    ("images", "param"),
    [
        ([], "images"),
        ([{}], "images[0]"),
        ([{"image_url": "a", "file_id": "b"}], "images[0]"),
        ([{"image_url": "ftp://a"}], "images[0]"),
        ([{"image_url": "data:image/png;base64,***"}], "images[0]"),
        ([{"image_url": "data:image/png;base64,AAAA"}], "images[0]"),
        ([{"image_url": "https://x"}] * 17, "image"),
        (["https://x"], "images[0]"),
        (None, "images"),
    ],
)
async def test_wrong_images_in_json(images: Any, param: str) -> None:
    async with plain() as http:
        answer = await http.post("/v1/images/edits", json={**_GPT, "images": images})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ({}, "image"),
        ({"image": ("a.png", b"no picture")}, "image[0]"),
        ({"image": ("a.png", b"")}, "image[0]"),
        ({"image": ("a.png", _PNG), "mask": ("m.png", png.picture(32, 32, "a"))}, "mask"),
        ({"image": ("a.png", _PNG), "mask": ("m.jpg", b"\xff\xd8\xff")}, "mask"),
        ({"image": ("a.png", _PNG), "n": (None, b"11")}, "n"),
        ({"image": ("a.png", _PNG), "n": (None, b"many")}, "n"),
        ({"image": (None, b"text")}, "image"),
        (
            {"image": ("a.png", _PNG), "model": (None, b"dall-e-2"), "stream": (None, b"true")},
            "stream",
        ),
        ({"image": ("a.png", png.picture(64, 32, "a")), "model": (None, b"dall-e-2")}, "image[0]"),
    ],
)
async def test_wrong_edits(parts: dict[str, Any], param: str) -> None:
    base = {"model": (None, b"gpt-image-1"), "prompt": (None, b"x")}
    async with plain() as http:
        answer = await http.post("/v1/images/edits", files={**base, **parts})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 32001}, "prompt"),
        ({"model": "dall-e-2", "prompt": "x" * 1001}, "prompt"),
        ({"size": "1x1"}, "size"),
        ({"model": "gpt-image-2", "size": "1000x1000"}, "size"),
        ({"model": "gpt-image-2", "size": "16x1600"}, "size"),
        ({"model": "gpt-image-2", "size": "9600x9600"}, "size"),
        ({"model": "gpt-image-2", "size": "0x0"}, "size"),
        ({"model": "dall-e-2", "size": "1792x1024"}, "size"),
        ({"model": "dall-e-3", "n": 2}, "n"),
        ({"model": "dall-e-3", "quality": "low"}, "quality"),
        ({"model": "dall-e-3", "background": "opaque"}, "background"),
        ({"quality": "hd"}, "quality"),
        ({"n": 0}, "n"),
        ({"partial_images": 4}, "partial_images"),
        ({"response_format": "url"}, "response_format"),
        ({"style": "vivid"}, "style"),
        ({"output_format": "jpeg"}, "output_format"),
        ({"output_compression": 50}, "output_compression"),
        ({"colour": "red"}, None),
    ],
)
async def test_wrong_orders(change: dict[str, Any], param: str | None) -> None:
    async with plain() as http:
        answer = await http.post("/v1/images/generations", json={**_GPT, **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_an_image_over_fifty_megabytes_gets_413() -> None:
    large = _PNG.ljust(50 * 1024 * 1024 + 1, b"\0")
    async with client() as official:
        with pytest.raises(openai.APIStatusError) as raised:
            await official.images.edit(**_GPT, image=("a.png", large))
    assert raised.value.status_code == 413
