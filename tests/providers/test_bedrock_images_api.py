"""The stand-in of Bedrock's image models refuses what is wrong."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kong_ai_proxy.formats import png
from kong_ai_proxy.gateway.provider.png import picture
from tests.providers import Turn
from tests.providers.bedrock_images_api import invoked, makes_images, mask_pixels
from tests.providers.upstream import RefusedError

Json = dict[str, Any]

NOVA, TITAN = "us.amazon.nova-canvas-v1:0", "amazon.titan-image-generator-v1"
SD3, INPAINT = "stability.sd3-5-large-v1:0", "us.stability.stable-image-inpaint-v1:0"
REPLACE, OUTPAINT = "stability.stable-image-search-replace-v1:0", "stability.stable-outpaint-v1:0"
IMAGE = base64.b64encode(picture(64, 64, "a cat")).decode()
SMALL = base64.b64encode(picture(32, 64, "a cat")).decode()


def mask(width: int = 64) -> str:
    steps = png.black_and_white(picture(width, 64, "x", transparent=True), white=True)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return base64.b64encode(end.value).decode()


def text(**config: object) -> Json:
    params = {"textToImageParams": {"text": "A cat"}, "imageGenerationConfig": config}
    return {"taskType": "TEXT_IMAGE", **params}


def painted(**params: object) -> Json:
    asked = {"image": IMAGE, "text": "A hat", **params}
    return {"taskType": "INPAINTING", "inPaintingParams": asked}


@pytest.mark.parametrize("model", [NOVA, TITAN])
def test_images_are_of_the_size_asked_for(model: str) -> None:
    answer = invoked(text(width=512, height=512, numberOfImages=2), model, Turn())
    assert [png.size_of(base64.b64decode(each)) for each in answer["images"]] == [(512, 512)] * 2


def test_an_edit_is_as_large_as_its_image() -> None:
    answer = invoked(painted(maskImage=mask()), NOVA, Turn())
    assert png.size_of(base64.b64decode(answer["images"][0])) == (64, 64)


def test_which_models_it_has() -> None:
    models = (NOVA, TITAN, SD3, INPAINT, "amazon.nova-lite-v1:0", "amazon.titan-text-lite-v1")
    assert [makes_images(model) for model in models] == [True] * 4 + [False] * 2


def test_masks_are_read() -> None:
    rows = mask_pixels(mask())
    assert (rows[0], rows[32][32:33]) == (b"\xff" * 64, b"\0")


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        (NOVA, {"taskType": "DRAW"}, "DRAW is not supported"),
        (TITAN, {"taskType": "VIRTUAL_TRY_ON"}, "VIRTUAL_TRY_ON is not supported"),
        (NOVA, {"taskType": "TEXT_IMAGE"}, "textToImageParams is missing"),
        (NOVA, {**text(), "extra": 1}, "extra: Extra inputs"),
        (NOVA, text(width=500, height=500), "unsupported image size"),
        (TITAN, text(width=1536, height=1024), "not a supported size"),
        (NOVA, text(numberOfImages=6), "numberOfImages"),
        (NOVA, text(quality="high"), "quality"),
        (NOVA, text(seed=-1), "seed"),
        (NOVA, painted(), "one of maskImage and maskPrompt"),
        (NOVA, painted(maskImage=mask(), maskPrompt="x"), "one of maskImage and maskPrompt"),
        (NOVA, painted(maskImage=mask(32)), "as large as the image"),
        (NOVA, painted(maskImage=IMAGE), "pure black and pure white"),
        (NOVA, painted(maskPrompt="x", image="@"), "not base64"),
        (NOVA, painted(maskPrompt="x", image="R0lGODlh"), "none of png, jpeg"),
        (NOVA, {**painted(maskPrompt="x"), "imageGenerationConfig": {"width": 64}}, "width"),
        (SD3, {}, "prompt: Field required"),
        (SD3, {"prompt": "A", "aspect_ratio": "4:3"}, "aspect_ratio"),
        (SD3, {"prompt": "A", "output_format": "webp"}, "output_format"),
        (
            SD3,
            {"prompt": "A", "mode": "image-to-image", "image": IMAGE},
            "strength: Field required",
        ),
        (REPLACE, {"prompt": "A", "image": IMAGE}, "search_prompt: Field required"),
        (INPAINT, {"prompt": "A", "image": SMALL}, "at least 64 pixels"),
        (OUTPAINT, {"image": IMAGE}, "at least one outpaint direction"),
        ("stability.none-v1:0", {"prompt": "A"}, "model identifier is invalid"),
    ],
)
def test_what_is_wrong_is_refused(model: str, body: Json, expected: str) -> None:
    with pytest.raises(RefusedError) as caught:
        invoked(body, model, Turn())
    assert expected in caught.value.message
