"""Images of Bedrock: each model in its own format, checked by the stand-in's types, and what goes
wrong."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from openai.types import ImagesResponse

from kong_ai_proxy.formats import openai, png
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.providers import images as shared
from kong_ai_proxy.providers.bedrock.images import EDIT, GENERATE
from kong_ai_proxy.providers.flow import ProviderFailed, Reply, Result, Send
from tests.flows import NOW, Driven, reply, run, wanted
from tests.golden import exchanges
from tests.providers import Turn, bedrock_images_api

Json = dict[str, Any]

CASES: dict[str, Json] = orjson.loads(
    (Path(__file__).parents[1] / "formats/bedrock/fixtures/images.json").read_bytes()
)
TITAN, NOVA = "amazon.titan-image-generator-v2:0", "amazon.nova-canvas-v1:0"
SD3, CORE = "stability.sd3-5-large-v1:0", "stability.stable-image-core-v1:1"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def picture(width: int = 64, height: int = 64, clear: int = 0) -> bytes:
    """A PNG file whose first `clear` columns are transparent."""
    row = b"\0" + b"\1\2\3\0" * clear + b"\1\2\3\xff" * (width - clear)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return png.SIGNATURE + head + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")


IMAGE = picture()
MASK = picture(clear=16)
WEBP = b"RIFF\x10\0\0\0WEBPVP8 "


def files(images: int, mask: bytes | None = None, content: bytes = IMAGE) -> tuple[Part, ...]:
    parts = [Part("image[]", "a.png", "image/png", content)] * images
    return (*parts, *([Part("mask", "m.png", "image/png", mask)] if mask else []))


def stand_in(turn: Turn = Turn()) -> Any:  # noqa: B008 - frozen
    def answer(send: Send) -> Reply:
        model = send.path.split("/")[2].replace("%3A", ":").replace("%2F", "/")
        assert (send.method, send.path.rsplit("/", 1)[1]) == ("POST", "invoke")
        assert send.is_own
        assert send.service == "bedrock"
        body = orjson.loads(send.body or b"")
        return reply(bedrock_images_api.invoked(body, model, turn))

    return answer


def made(model: str, body: Json, images: int = 0, mask: bytes | None = None, **more: Any) -> Driven:
    """A flow driven against the stand-in; numbers of `body` are texts in a form."""
    if not images:
        asked = wanted(model=model, body=body)
        return run(GENERATE, asked, more.get("replies") or stand_in())
    fields = {
        name: value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in body.items()
    }
    parts = files(images, mask, more.get("content", IMAGE))
    asked = wanted(openai.IMAGE_EDITS, model=model, body=fields, parts=parts)
    return run(EDIT, asked, more.get("replies") or stand_in())


@pytest.mark.parametrize("name", CASES)
def test_requests_of_the_reference(name: str) -> None:
    case = CASES[name]
    mask = MASK if case.get("mask") else None
    driven = made(case["model"], case["asked"], case.get("images", 0), mask)
    image = base64.b64encode(IMAGE).decode()
    assert _marked(driven.sent(), image) == case["body"]
    assert isinstance(driven.result, Result)
    assert sorted(driven.result.dropped) == sorted(case.get("dropped", []))
    ImagesResponse.model_validate(driven.value, strict=True)
    assert driven.value["created"] == int(NOW)


GOLDEN = [name for name in exchanges.names() if name.startswith(("bedrock/im", "bedrock/ed"))]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_requests_are_what_the_models_take(name: str) -> None:
    for exchange in exchanges.load(name).exchanges:
        upstream = exchange["upstream"]
        model = upstream["url"].split("/model/")[1].replace("%3A", ":")
        bedrock_images_api.invoked(upstream["json"], model.removesuffix("/invoke"), Turn())


def _marked(value: Any, image: str) -> Any:
    """With marks in place of images."""
    if isinstance(value, dict):
        return {name: _marked(each, image) for name, each in value.items()}
    if isinstance(value, list):
        return [_marked(each, image) for each in value]
    if value == image:
        return "<image>"
    return "<mask>" if isinstance(value, str) and value.startswith("iVBOR") else value


def test_the_path_has_the_model_as_one_segment() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-canvas-v1:0"
    assert made(arn, {"prompt": "A"}).sends[0].path == (
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2F"
        "us.amazon.nova-canvas-v1%3A0/invoke"
    )


def test_an_answer_in_openais_words() -> None:
    value = made(NOVA, {"prompt": "A", "size": "512x320", "quality": "high"}).value
    assert value.keys() == {"created", "data", "output_format", "quality", "size"}
    assert (value["size"], value["quality"], value["output_format"]) == ("512x320", "high", "png")
    assert png.size_of(base64.b64decode(value["data"][0]["b64_json"])) == (512, 320)


def test_a_data_url_where_an_url_was_asked_for() -> None:
    value = made(NOVA, {"prompt": "A", "response_format": "url"}).value
    assert value["data"][0]["url"].startswith("data:image/png;base64,iVBOR")


# ---- models that are not known here

ARN = "arn:aws:bedrock:us-east-1:123456789012:"
AMAZONS = {
    "taskType": "TEXT_IMAGE",
    "textToImageParams": {"text": "A"},
    "imageGenerationConfig": {"numberOfImages": 1, "width": 512, "height": 320},
}
STABILITYS = {"prompt": "A", "aspect_ratio": "3:2"}
MADE = {"images": ["iVBORw0KGgo="], "finish_reasons": [None]}


@pytest.mark.parametrize(
    ("model", "body", "sent"),
    [
        ("amazon.nova-2-canvas-v1:0", {}, AMAZONS),
        ("eu.amazon.nova-canvas-v2:0", {}, AMAZONS),
        ("amazon.new-image-generator-v3:0", {}, AMAZONS),
        ("stability.stable-image-5-v1:0", {}, STABILITYS),
        ("us.stability.sd5-large-v1:0", {}, STABILITYS),
        (f"{ARN}inference-profile/us.stability.sd5-large-v1:0", {}, STABILITYS),
        (f"{ARN}provisioned-model/abc123def456", {}, AMAZONS),
        (f"{ARN}custom-model-deployment/abc123def456", {}, AMAZONS),
        (f"{ARN}application-inference-profile/abc123def456", {}, STABILITYS),
        (
            f"{ARN}application-inference-profile/abc123def456",
            {"imageGenerationConfig": {}},
            AMAZONS,
        ),
        (
            "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:provisioned-model/abc123def456",
            {},
            AMAZONS,
        ),
    ],
)
def test_a_model_that_came_later_is_asked_as_the_newest_is(
    model: str, body: Json, sent: Json
) -> None:
    driven = made(model, {"prompt": "A", "size": "512x320", **body}, replies=[reply(MADE)])
    assert driven.sent() == sent


def test_an_edit_by_a_model_that_came_later() -> None:
    body = {"prompt": "A", "search_prompt": "a cat", "creativity": 0.5, "user": "u"}
    driven = made("stability.new-edit-v1:0", body, 1, MASK, replies=[reply(MADE)])
    assert _marked(driven.sent(), base64.b64encode(IMAGE).decode()) == {
        "prompt": "A",
        "image": "<image>",
        "mask": "<mask>",
        "search_prompt": "a cat",
        "creativity": 0.5,
    }
    assert isinstance(driven.result, Result)
    assert driven.result.dropped == ("user",)


def test_an_edit_by_a_diffusion_model_that_came_later() -> None:
    driven = made("us.stability.sd5-large-v1:0", {"prompt": "A"}, 1, replies=[reply(MADE)])
    assert (driven.sent()["mode"], driven.sent()["strength"]) == ("image-to-image", 0.7)


@pytest.mark.parametrize(
    "model",
    [
        f"{ARN}prompt/abc123def456",
        f"{ARN}imported-model/abc123def456",
        f"{ARN}provisioned-model/a/b",
        "arn:aws:sagemaker:us-east-1:123456789012:endpoint/abc",
        "amazon.nova-2-omni-v1:0",
        "anthropic.claude-image-v1:0",
    ],
)
def test_what_makes_no_images_is_said_to(model: str) -> None:
    with pytest.raises(FormatError, match="model: expected the id of a model of Bedrock's that"):
        made(model, {"prompt": "A"})


# ---- masks


@pytest.mark.parametrize(
    ("model", "body", "edited"),
    [
        (NOVA, {}, b"\0"),
        (TITAN, {"taskType": "OUTPAINTING"}, b"\xff"),
        ("us.stability.stable-image-inpaint-v1:0", {}, b"\xff"),
    ],
)
def test_transparent_pixels_are_what_the_model_edits(model: str, body: Json, edited: bytes) -> None:
    sent = made(model, {"prompt": "A", **body}, 1, MASK).sent()
    params = sent.get("inPaintingParams") or sent.get("outPaintingParams") or sent
    rows = bedrock_images_api.mask_pixels(params.get("maskImage") or params["mask"])
    kept = b"\0" if edited == b"\xff" else b"\xff"
    assert rows == [edited * 16 + kept * 48] * 64


def test_a_style_of_any_type_goes_to_the_model() -> None:
    driven = made(NOVA, {"prompt": "A", "style": ["x"]}, replies=[reply({"images": ["aGk="]})])
    assert driven.sent()["textToImageParams"]["style"] == ["x"]


def test_a_mask_without_transparency_is_refused() -> None:
    with pytest.raises(FormatError, match="mask: expected transparent pixels"):
        made(NOVA, {"prompt": "A"}, 1, IMAGE)


# ---- several images


def test_many_images_of_amazon_are_several_calls_that_differ() -> None:
    driven = made(TITAN, {"prompt": "A", "n": 7, "seed": 3})
    configs = [driven.sent(at)["imageGenerationConfig"] for at in range(2)]
    assert configs == [{"seed": 3, "numberOfImages": 5}, {"seed": 8, "numberOfImages": 2}]
    assert len(driven.sends) == 2
    assert len({each["b64_json"] for each in driven.value["data"]}) == 7


def test_a_seed_that_goes_on_stays_one() -> None:
    driven = made(NOVA, {"prompt": "A", "n": 10, "size": "320x320", "seed": 858993459})
    seeds = [driven.sent(at)["imageGenerationConfig"]["seed"] for at in range(2)]
    assert seeds == [858993459, 4]


def test_each_image_of_stability_is_a_call() -> None:
    driven = made(CORE, {"prompt": "A", "n": 3})
    assert [driven.sent(at) for at in range(3)] == [{"prompt": "A"}] * 3
    assert len(driven.value["data"]) == 3
    driven = made(CORE, {"prompt": "A", "n": 3, "seed": 4294967293})
    assert [driven.sent(at)["seed"] for at in range(3)] == [4294967293, 4294967294, 1]


def test_one_call_that_fails_fails_the_request() -> None:
    replies = [
        reply({"images": ["iVBORw0KGgo="]}),
        reply({"message": "Too many requests"}, status=429),
    ]
    driven, asked = Driven(), wanted(model=CORE, body={"prompt": "A", "n": 3})
    with pytest.raises(ProviderFailed, match="Too many requests") as caught:
        run(GENERATE, asked, replies, driven=driven)
    assert caught.value.error.status == 429
    assert len(driven.sends) == 2


# ---- what filters do


@pytest.mark.parametrize(
    ("model", "text"),
    [(NOVA, "blocked by our content filters"), (CORE, "Filter reason: prompt")],
)
def test_filters_are_an_error_400(model: str, text: str) -> None:
    turn = Turn(finish="content_filter")
    with pytest.raises(ProviderFailed, match=text) as caught:
        made(model, {"prompt": "A"}, replies=stand_in(turn))
    assert (caught.value.error.status, caught.value.error.code) == (400, "moderation_blocked")


def test_an_image_that_is_filtered_does_not_spoil_the_others() -> None:
    image, no = {"images": ["iVBORw0KGgo="]}, {"finish_reasons": ["Filter reason: output image"]}
    replies = [reply(each) for each in (no, image, no, image)]
    driven = made(CORE, {"prompt": "A", "n": 4}, replies=replies)
    assert driven.value["data"] == [{"b64_json": "iVBORw0KGgo="}] * 2
    blocked = [reply({"images": [], "error": "All were blocked."}), reply(image)]
    driven = made(TITAN, {"prompt": "A", "n": 6}, replies=blocked)
    assert len(driven.value["data"]) == 1
    with pytest.raises(ProviderFailed, match="Filter reason: output image"):
        made(CORE, {"prompt": "A", "n": 2}, replies=[reply(no)] * 2)


def test_images_that_are_left_by_filters_are_the_answer() -> None:
    answer = {"images": ["iVBORw0KGgo="], "error": "some were blocked"}
    driven = made(NOVA, {"prompt": "A", "n": 2}, replies=[reply(answer)])
    assert len(driven.value["data"]) == 1


@pytest.mark.parametrize(
    ("model", "answer", "status", "text"),
    [
        (CORE, {"finish_reasons": ["Inference error"]}, 502, "Inference error"),
        (CORE, {"finish_reasons": [None], "images": []}, 502, "it has no image"),
        (CORE, {"finish_reasons": "x", "images": [None]}, 502, "it has no image"),
        (CORE, {"finish_reasons": [3], "images": "x"}, 502, "it has no image"),
        (NOVA, {}, 502, "it has no image"),
        (NOVA, {"images": [1, ""], "error": None}, 502, "it has no image"),
        (NOVA, [], 502, "expected a JSON object"),
        (NOVA, b"", 502, "expected a JSON object"),
        (NOVA, b"<html>", 502, "expected a JSON object"),
    ],
)
def test_answers_that_make_no_sense(model: str, answer: Any, status: int, text: str) -> None:
    with pytest.raises(ProviderFailed, match=text) as caught:
        made(model, {"prompt": "A"}, replies=[reply(answer)])
    assert caught.value.error.status == status


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (400, {"message": "Malformed input request"}, "Malformed input request"),
        (403, {"Message": "no access to the model"}, "no access to the model"),
        (429, {"message": "Too many"}, "Too many"),
        (500, b"<html>", "answered with status 500"),
        (503, b"", "answered with status 503"),
        (302, b"", "answered with status 302"),
    ],
)
def test_errors_of_the_provider(status: int, body: Any, text: str) -> None:
    with pytest.raises(ProviderFailed, match=text) as caught:
        made(NOVA, {"prompt": "A"}, replies=[reply(body, status=status)])
    assert caught.value.error.status == status


def test_an_image_that_is_no_base64_is_passed_on_without_a_size() -> None:
    value = made(NOVA, {"prompt": "A"}, replies=[reply({"images": ["@@@"]})]).value
    assert value["data"] == [{"b64_json": "@@@"}]
    assert "size" not in value


# ---- what cannot be


DEEP = orjson.loads(b"[" * 300 + b"]" * 300)


@pytest.mark.parametrize(
    ("model", "body", "text"),
    [
        ("", {}, "model: expected the id of a model of Bedrock's that makes images"),
        ("amazon.nova-lite-v1:0", {}, "model: expected the id of a model"),
        ("my-stability.sd3-5-large", {}, "model: expected the id of a model"),
        ("stability.sd3-5-large-v1:0/../x", {}, "model: expected the id or ARN"),
        (TITAN, {"size": "1536x1024"}, "size: expected auto or one of 1024x1024, 768x768"),
        (NOVA, {"size": "1000x1000"}, "size: expected auto, or sides of 320 to 4096 pixels"),
        (NOVA, {"size": "256x256"}, "size: expected auto, or sides of 320 to 4096 pixels"),
        (NOVA, {"size": "4096x4096"}, "size: expected auto, or sides of 320 to 4096 pixels"),
        (NOVA, {"size": "2048x320"}, "size: expected auto, or sides of 320 to 4096 pixels"),
        (NOVA, {"output_format": "jpeg"}, "output_format: expected png: Nova Canvas makes no"),
        (CORE, {"output_format": "webp"}, "output_format: expected png or jpeg"),
        (NOVA, {"quality": "ultra"}, "quality: expected auto or one of low, medium"),
        (NOVA, {"taskType": "DRAW"}, "taskType: expected one of TEXT_IMAGE"),
        (NOVA, {"taskType": 1}, "taskType: expected a string"),
        (TITAN, {"taskType": "VIRTUAL_TRY_ON"}, "taskType: expected one of TEXT_IMAGE"),
        (TITAN, {"virtualTryOnParams": {}}, "taskType: expected one of TEXT_IMAGE"),
        (NOVA, {"taskType": "INPAINTING"}, "image: expected an image to work on"),
        (NOVA, {"imageVariationParams": {}}, "image: expected an image to work on"),
        (NOVA, {"imageGenerationConfig": 3}, "imageGenerationConfig: expected an object"),
        (NOVA, {"textToImageParams": "x"}, "textToImageParams: expected an object"),
        ("stability.stable-image-inpaint-v1:0", {}, "image: expected 1 for stable-image-inpaint"),
        (NOVA, {"textToImageParams": {"a": DEEP}}, "the request is nested too deeply"),
        (CORE, {"seed": DEEP}, "the request is nested too deeply"),
    ],
)
def test_wrong_generations_are_named(model: str, body: Json, text: str) -> None:
    with pytest.raises(FormatError) as caught:
        made(model, {"prompt": "A", **body})
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("model", "body", "images", "mask", "text"),
    [
        (CORE, {}, 1, None, "image: expected none: stable-image-core makes images from texts"),
        (SD3, {}, 2, None, "image: expected 1 for sd3-5-large, got 2"),
        (SD3, {}, 1, MASK, "mask: sd3-5-large takes none; stability.stable-image-inpaint"),
        ("stability.stable-style-transfer-v1:0", {}, 1, None, "image: expected 2 for stable-style"),
        ("stability.stable-image-search-replace-v1:0", {}, 1, None, "search_prompt: expected a"),
        (NOVA, {}, 2, MASK, "image: expected at most 1 for inPaintingParams, got 2"),
        (NOVA, {}, 6, None, "image: expected at most 5 for imageVariationParams, got 6"),
        (NOVA, {"taskType": "TEXT_IMAGE"}, 1, MASK, "mask: expected none for this task"),
        (NOVA, {"taskType": "INPAINTING"}, 1, None, "mask: expected a PNG file that is"),
        (NOVA, {"taskType": "BACKGROUND_REMOVAL", "n": 2}, 1, None, "n: expected 1"),
        (NOVA, {"taskType": "VIRTUAL_TRY_ON"}, 1, None, "image: expected an image to work on"),
    ],
)
def test_wrong_edits_are_named(
    model: str, body: Json, images: int, mask: bytes | None, text: str
) -> None:
    with pytest.raises(FormatError) as caught:
        made(model, {"prompt": "A", **body}, images, mask)
    assert str(caught.value).startswith(text)


def test_amazon_takes_no_webp_and_stability_does() -> None:
    with pytest.raises(FormatError, match="a PNG or JPEG file: Nova Canvas takes no WebP"):
        made(NOVA, {"prompt": "A"}, 1, content=WEBP)
    assert made(SD3, {"prompt": "A"}, 1, content=WEBP).sent()["mode"] == "image-to-image"


def test_a_model_that_is_missing_is_said_to_be() -> None:
    with pytest.raises(FormatError, match="an ARN that has it, it is missing"):
        run(GENERATE, wanted(body={"prompt": "A"}))


def test_images_beyond_what_may_be_held_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MAX_HELD", 1)
    driven = Driven()
    asked = wanted(model=SD3, body={"prompt": "A", "n": 9})
    with pytest.raises(FormatError, match="ask for fewer"):
        run(GENERATE, asked, stand_in(), driven=driven)
    assert len(driven.sends) == 1
