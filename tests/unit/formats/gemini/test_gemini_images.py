"""Images by generateContent: requests that Google's types take, answers with and without images."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from google.genai import types

from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.gemini import images
from kong_ai_proxy.formats.images import Image, ImagesAnswer, ImagesRequest, Picture
from tests.providers.gemini_images_api import GeminiImages, VertexImages, _check_content
from tests.providers.pictures import JPEG, MASK, PNG
from tests.providers.upstream import RefusedError

FIXTURES = json.loads((Path(__file__).parent / "fixtures" / "images.json").read_text())
MODEL = "gemini-3-pro-image-preview"


def fixture(name: str) -> Any:
    return FIXTURES[name]["body"]


def rendered(api: images.Api = "gemini", model: str = MODEL, **fields: Any) -> tuple[Any, Any]:
    """A request that Google's types take, and what was dropped."""
    found = images.request(ImagesRequest(prompt="A cat", model=model, **fields), api)
    standin = GeminiImages() if api == "gemini" else VertexImages()
    standin.check(json.loads(json.dumps(found.body)), model)
    _check_content(found.body, model)
    return found.body, found.dropped


def test_a_prompt() -> None:
    assert rendered() == (
        {
            "contents": [{"role": "user", "parts": [{"text": "A cat"}]}],
            "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]},
        },
        (),
    )


def test_images_to_edit_come_with_the_prompt() -> None:
    body, _ = rendered(images=(Picture(PNG, "image/png"), Picture(JPEG, "image/jpeg")))
    assert body["contents"][0]["parts"] == [
        {"text": "A cat"},
        {"inlineData": {"mimeType": "image/png", "data": b64encode(PNG).decode()}},
        {"inlineData": {"mimeType": "image/jpeg", "data": b64encode(JPEG).decode()}},
    ]


@pytest.mark.parametrize(
    ("size", "config"),
    [
        ((1024, 1024), {"aspectRatio": "1:1"}),
        ((1536, 1024), {"aspectRatio": "3:2"}),
        ((1024, 1792), {"aspectRatio": "9:16"}),
        ((2048, 2048), {"aspectRatio": "1:1", "imageSize": "2K"}),
        ((3840, 2160), {"aspectRatio": "16:9", "imageSize": "2K"}),
        ((4096, 4096), {"aspectRatio": "1:1", "imageSize": "4K"}),
    ],
)
def test_a_size_is_the_nearest_ratio(size: tuple[int, int], config: dict[str, str]) -> None:
    body, dropped = rendered(size=size)
    assert (body["generationConfig"]["imageConfig"], dropped) == (config, ())


@pytest.mark.parametrize(
    ("model", "ratio"),
    [
        ("gemini-3.1-flash-image", "8:1"),
        ("models/gemini-3.1-flash-image-preview", "8:1"),
        ("gemini-4-flash-image", "8:1"),
        ("gemini-3-pro-image", "21:9"),
        ("gemini-3-pro-image-preview", "21:9"),
        ("gemini-2.5-flash-image", "21:9"),
    ],
)
def test_newer_models_make_strips(model: str, ratio: str) -> None:
    body, _ = rendered(model=model, size=(2048, 256))
    assert body["generationConfig"]["imageConfig"] == {"aspectRatio": ratio}


@pytest.mark.parametrize(
    ("size", "ratio"), [((1024, 4096), "1:4"), ((1024, 256), "4:1"), ((100, 900), "1:8")]
)
def test_strips_of_all_kinds(size: tuple[int, int], ratio: str) -> None:
    body, _ = rendered(model="gemini-3.1-flash-image", size=size)
    assert body["generationConfig"]["imageConfig"]["aspectRatio"] == ratio


def test_older_models_know_no_image_size() -> None:
    body, _ = rendered(model="gemini-2.5-flash-image", size=(2048, 1152))
    assert body["generationConfig"]["imageConfig"] == {"aspectRatio": "16:9"}


def test_the_oldest_make_squares() -> None:
    model = "gemini-2.0-flash-preview-image-generation"
    body, dropped = rendered(model=model, size=(1024, 1536))
    assert "imageConfig" not in body["generationConfig"]
    assert dropped == ("size",)


def test_what_the_client_says_itself_wins() -> None:
    own = {
        "generationConfig": {"image_config": {"image_size": "4K"}, "temperature": 0.5},
        "safety_settings": [{"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_NONE"}],
        "tools": [{"googleSearch": {}}],
    }
    found = images.request(
        ImagesRequest(prompt="A", model=MODEL, size=(1536, 1024), settings=own), "gemini"
    ).body
    config = found["generationConfig"]
    assert isinstance(config, dict)
    assert config["responseModalities"] == ["TEXT", "IMAGE"]
    assert config["temperature"] == 0.5
    assert config["imageConfig"] == {"aspectRatio": "3:2", "imageSize": "4K"}
    assert found["safetySettings"] == own["safety_settings"]
    assert found["tools"] == own["tools"]


def test_vertex_chooses_the_file() -> None:
    settings = {"output_compression": 60}
    body, dropped = rendered("vertex", output_format="jpeg", settings=settings)
    options = {"mimeType": "image/jpeg", "compressionQuality": 60}
    assert body["generationConfig"]["imageConfig"] == {"imageOutputOptions": options}
    assert dropped == ()


def test_what_has_no_meaning_is_named() -> None:
    _, dropped = rendered(
        quality="high",
        background="transparent",
        output_format="jpeg",
        settings={"user": "u", "output_compression": 60, "moderation": "low"},
    )
    names = {"quality", "background", "output_format", "output_compression", "user", "moderation"}
    assert set(dropped) == names
    assert len(dropped) == len(names)
    assert rendered(background="opaque", output_format="png")[1] == ()


def test_a_mask_is_refused() -> None:
    with pytest.raises(FormatError, match=r"mask: .*say in the prompt"):
        rendered(images=(Picture(PNG, "image/png"),), mask=Picture(MASK, "image/png"))


def test_the_stand_in_refuses_what_google_does() -> None:
    with pytest.raises(RefusedError, match="not supported"):
        _check_content(
            {"generationConfig": {"imageConfig": {"aspectRatio": "7:4"}}, "contents": []}, MODEL
        )


# ---- answers


def test_an_image_without_what_stands_beside_it() -> None:
    value = fixture("image")
    types.GenerateContentResponse.model_validate(value)
    answer = images.answer(value)
    assert isinstance(answer, ImagesAnswer)
    assert answer.images == (Image(base64="iVBORw0KGgoAAAAA", media_type="image/png"),)
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 1304)
    assert answer.usage.completion_details == {"image_tokens": 1290}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (fixture("unsafe"), "the model made no image: IMAGE_SAFETY: Unable to show"),
        (fixture("words"), "the model made no image: I cannot draw that."),
        (
            {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}},
            "the prompt was blocked: PROHIBITED_CONTENT",
        ),
        (
            {"promptFeedback": {"blockReason": "MODEL_ARMOR", "blockReasonMessage": "No."}},
            "the prompt was blocked: MODEL_ARMOR: No.",
        ),
    ],
)
def test_no_image_tells_why(value: Any, message: str) -> None:
    error = images.answer(value)
    assert isinstance(error, ProviderError)
    assert error.message.startswith(message)
    kind = "image_generation_user_error"
    assert (error.type, error.status, error.code) == (kind, 400, "moderation_blocked")


@pytest.mark.parametrize("value", [{}, [], None, 7, {"candidates": "x"}, {"candidates": [1]}])
def test_garbage_is_the_providers_fault(value: Any) -> None:
    error = images.answer(value)
    assert isinstance(error, ProviderError)
    assert (error.status, error.code) == (502, None)


def test_an_error_in_a_good_answer() -> None:
    error = images.answer({"error": {"code": 503, "message": "Later", "status": "UNAVAILABLE"}})
    assert error == ProviderError("Later", type="UNAVAILABLE", status=503)
