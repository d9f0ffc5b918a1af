"""Images by Imagen's predict."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.gemini import imagen
from kong_ai_proxy.formats.images import Image, ImagesAnswer, ImagesRequest, Picture
from tests.providers.gemini_images_api import _predicted
from tests.providers.pictures import PNG, WHITE_MASK
from tests.providers.upstream import Turn
from tests.unit.formats.gemini.test_gemini_images import fixture

MODEL = "imagen-4.0-generate-001"
CAPABLE = "imagen-3.0-capability-001"
RAW = {
    "referenceType": "REFERENCE_TYPE_RAW",
    "referenceId": 1,
    "referenceImage": {"bytesBase64Encoded": b64encode(PNG).decode()},
}


def rendered(model: str = MODEL, count: int = 1, **fields: Any) -> tuple[Any, tuple[str, ...]]:
    """A request that the stand-in takes, and what was dropped."""
    request = ImagesRequest(prompt="A cat", model=model, **fields)
    render = imagen.edit_request if request.images else imagen.request
    found = render(request, count)
    _predicted(json.loads(json.dumps(found.body)), Turn(), model)
    return found.body, found.dropped


def test_a_prompt() -> None:
    parameters = {"sampleCount": 3, "includeRaiReason": True}
    body = {"instances": [{"prompt": "A cat"}], "parameters": parameters}
    assert rendered(count=3) == (body, ())


@pytest.mark.parametrize(
    ("model", "size", "said"),
    [
        (MODEL, (1024, 1024), {"aspectRatio": "1:1"}),
        (MODEL, (1536, 1024), {"aspectRatio": "4:3"}),
        (MODEL, (1024, 1792), {"aspectRatio": "9:16"}),
        (MODEL, (2048, 2048), {"aspectRatio": "1:1", "sampleImageSize": "2K"}),
        (MODEL, (4096, 4096), {"aspectRatio": "1:1", "sampleImageSize": "2K"}),
        ("imagen-4.0-fast-generate-001", (2048, 2048), {"aspectRatio": "1:1"}),
        ("publishers/google/models/imagen-3.0-generate-002", (2048, 2048), {"aspectRatio": "1:1"}),
    ],
)
def test_a_size(model: str, size: tuple[int, int], said: dict[str, str]) -> None:
    found = imagen.request(ImagesRequest(prompt="A", model=model, size=size), 1).body
    parameters = {"sampleCount": 1, "includeRaiReason": True, **said}
    assert found["parameters"] == parameters


def test_the_file() -> None:
    body, dropped = rendered(output_format="jpeg", settings={"output_compression": 70})
    options = {"mimeType": "image/jpeg", "compressionQuality": 70}
    assert (body["parameters"]["outputOptions"], dropped) == (options, ())
    body, dropped = rendered(output_format="webp", settings={"output_compression": 70})
    assert "outputOptions" not in body["parameters"]
    assert dropped == ("output_format", "output_compression")


def test_the_clients_own_words() -> None:
    settings = {
        "negative_prompt": "dogs",
        "personGeneration": "ALLOW_ADULT",
        "parameters": {"aspectRatio": "16:9", "seed": 7, "addWatermark": False},
        "labels": {"team": "art"},
        "user": "u",
    }
    body, dropped = rendered(size=(1024, 1024), settings=settings, quality="hd")
    assert body["parameters"] == {
        "sampleCount": 1,
        "includeRaiReason": True,
        "negativePrompt": "dogs",
        "personGeneration": "ALLOW_ADULT",
        "aspectRatio": "16:9",
        "seed": 7,
        "addWatermark": False,
    }
    assert body["labels"] == {"team": "art"}
    assert set(dropped) == {"user", "quality"}


def test_a_client_does_not_choose_where_google_writes_nor_how_many() -> None:
    settings = {
        "storageUri": "gs://bucket/x",
        "parameters": {"storageUri": "gs://bucket/y", "sampleCount": 4},
    }
    body, dropped = rendered(settings=settings)
    assert "storageUri" not in body["parameters"]
    assert body["parameters"]["sampleCount"] == 1
    assert set(dropped) == {"storageUri", "parameters.storageUri", "parameters.sampleCount"}


def test_labels_that_are_none_are_named() -> None:
    body, dropped = rendered(settings={"labels": "x", "parameters": 7})
    assert set(body) == {"instances", "parameters"}
    assert dropped == ("labels", "parameters")


def test_an_edit_without_a_mask() -> None:
    picture = Picture(PNG, "image/png")
    body, dropped = rendered(CAPABLE, 2, images=(picture,), size=(1024, 1024))
    assert body["instances"] == [{"prompt": "A cat", "referenceImages": [RAW]}]
    assert body["parameters"]["editMode"] == "EDIT_MODE_DEFAULT"
    assert dropped == ("size",)


def test_an_edit_with_a_mask() -> None:
    body, _ = rendered(
        CAPABLE,
        images=(Picture(PNG, "image/png"),),
        mask=Picture(WHITE_MASK, "image/png"),
        settings={"editMode": "EDIT_MODE_INPAINT_REMOVAL"},
    )
    mask = {
        "referenceType": "REFERENCE_TYPE_MASK",
        "referenceId": 2,
        "referenceImage": {"bytesBase64Encoded": b64encode(WHITE_MASK).decode()},
        "maskImageConfig": {"maskMode": "MASK_MODE_USER_PROVIDED"},
    }
    assert body["instances"][0]["referenceImages"] == [RAW, mask]
    assert body["parameters"]["editMode"] == "EDIT_MODE_INPAINT_REMOVAL"


def test_one_image_is_edited() -> None:
    with pytest.raises(FormatError, match="image: Imagen edits one image"):
        rendered(CAPABLE, images=(Picture(PNG, "image/png"),) * 2)


# ---- answers


def test_images_and_what_was_filtered_out() -> None:
    answer = imagen.answer(fixture("predicted"))
    assert answer == ImagesAnswer(
        images=(
            Image("iVBORw0KGgoAAAAA", "", "A cat, in oil", "image/png"),
            Image("iVBORw0KGgpCQkJC", "", None, "image/png"),
        )
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (fixture("filtered"), "all images were filtered out: Unable to show"),
        ({}, "all images were filtered out"),  # without includeRaiReason
        ({"predictions": []}, "all images were filtered out"),
    ],
)
def test_all_were_filtered_out(value: Any, message: str) -> None:
    error = imagen.answer(value)
    assert isinstance(error, ProviderError)
    assert error.message.startswith(message)
    assert (error.status, error.code) == (400, "moderation_blocked")


@pytest.mark.parametrize("value", [None, [], 1, {"predictions": {}}, {"images": []}])
def test_garbage_is_the_providers_fault(value: Any) -> None:
    error = imagen.answer(value)
    assert isinstance(error, ProviderError)
    assert error.status == 502


def test_names_of_imagen() -> None:
    named = ["imagen-4.0-ultra-generate-001", "models/imagen-4", "imagegeneration@006"]
    assert all(map(imagen.is_imagen, named))
    assert not any(map(imagen.is_imagen, ["gemini-2.5-flash-image", "my-imagen"]))
