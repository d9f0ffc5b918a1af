"""Images in Dashscope's own format."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from kong_ai_proxy.formats import dashscope
from kong_ai_proxy.formats.dashscope import images
from kong_ai_proxy.formats.dashscope.images import Way
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.images import Image, ImagesAnswer, ImagesRequest, Picture
from kong_ai_proxy.formats.usage import Usage
from tests.providers import dashscope_images_api
from tests.providers.pictures import MASK, PNG, WHITE_MASK

FIXTURES = json.loads((Path(__file__).parent / "fixtures" / "images.json").read_text())
PICTURE = Picture(PNG, "image/png")
DATA_URL = f"data:image/png;base64,{b64encode(PNG).decode()}"
SIZES = [(1024, 1024), (1536, 1024), (1024, 1536), (1792, 1024), (1024, 1792), (256, 256)]
MAKERS = [
    "qwen-image",
    "qwen-image-2.0",
    "qwen-image-plus",
    "wan2.2-t2i-flash",
    "wan2.5-t2i-preview",
    "wan2.6-t2i",
]
EDITORS = ["qwen-image-2.0", "qwen-image-edit", "qwen-image-edit-plus", "wan2.5-i2i-preview"]


def fixture(name: str) -> Any:
    return FIXTURES[name]["body"]


def rendered(model: str, count: int = 1, **fields: Any) -> tuple[Any, tuple[str, ...]]:
    """A request that the stand-in takes where it is called, and what was dropped."""
    request = ImagesRequest(prompt="A cat", model=model, **fields)
    way = images.way(model, is_edit=bool(request.images))
    found = images.request(request, count, way)
    assert dashscope_images_api.check(found.body, way.value) == count
    return found.body, found.dropped


@pytest.mark.parametrize(
    ("model", "generates", "edits"),
    [
        ("qwen-image-plus", Way.MESSAGE, Way.MESSAGE),
        ("qwen-image-edit-max-2026-01-16", Way.MESSAGE, Way.MESSAGE),
        ("wan2.6-t2i", Way.MESSAGE, Way.MESSAGE),
        ("wan2.7-image-pro", Way.MESSAGE, Way.MESSAGE),
        ("wan2.50-t2i", Way.MESSAGE, Way.MESSAGE),
        ("z-image-turbo", Way.MESSAGE, Way.MESSAGE),
        ("wan2.5-t2i-preview", Way.TEXT_TASK, Way.IMAGE_TASK),
        ("wanx2.1-t2i-turbo", Way.TEXT_TASK, Way.IMAGE_TASK),
        ("wanx2.1-imageedit", Way.TEXT_TASK, Way.IMAGE_TASK),
        ("flux-schnell", Way.TEXT_TASK, Way.IMAGE_TASK),
    ],
)
def test_the_model_says_how_it_is_called(model: str, generates: Way, edits: Way) -> None:
    assert images.way(model, is_edit=False) is generates
    assert images.way(model, is_edit=True) is edits


def test_a_message() -> None:
    settings = {"negative_prompt": "dogs", "prompt_extend": False, "seed": 7}
    assert rendered("qwen-image-plus", size=(1792, 1024), settings=settings) == (
        {
            "model": "qwen-image-plus",
            "input": {"messages": [{"role": "user", "content": [{"text": "A cat"}]}]},
            "parameters": {"size": "1664*928", "n": 1, **settings},
        },
        (),
    )


def test_a_task() -> None:
    settings = {"negative_prompt": "dogs", "watermark": True}
    assert rendered("wan2.5-t2i-preview", 4, size=(1024, 1024), settings=settings) == (
        {
            "model": "wan2.5-t2i-preview",
            "input": {"prompt": "A cat", "negative_prompt": "dogs"},
            "parameters": {"size": "1280*1280", "n": 4, "watermark": True},
        },
        (),
    )


def test_images_in_a_message() -> None:
    body, _ = rendered("qwen-image-edit-plus", 6, images=(PICTURE, PICTURE))
    content = body["input"]["messages"][0]["content"]
    assert content == [{"image": DATA_URL}, {"image": DATA_URL}, {"text": "A cat"}]


def test_images_of_a_task() -> None:
    body, _ = rendered("wan2.5-i2i-preview", images=(PICTURE, PICTURE), size=(1024, 1024))
    assert body["input"] == {"prompt": "A cat", "images": [DATA_URL, DATA_URL]}
    assert body["parameters"] == {"size": "1024*1024", "n": 1}


def test_an_image_and_its_mask() -> None:
    model = "wanx2.1-imageedit"
    body, dropped = rendered(
        model, images=(PICTURE,), size=(1024, 1024), settings={"strength": 1.0}
    )
    base = {"prompt": "A cat", "base_image_url": DATA_URL}
    assert body["input"] == {"function": "description_edit", **base}
    assert body["parameters"] == {"n": 1, "strength": 1.0}
    assert dropped == ("size",)
    body, _ = rendered(model, images=(PICTURE,), mask=Picture(WHITE_MASK, "image/png"))
    assert body["input"] == {
        "function": "description_edit_with_mask",
        "mask_image_url": f"data:image/png;base64,{b64encode(WHITE_MASK).decode()}",
        **base,
    }


def test_a_function_of_the_clients_choice() -> None:
    body, _ = rendered(
        "wanx2.1-imageedit", images=(PICTURE,), settings={"function": "stylization_all"}
    )
    assert body["input"]["function"] == "stylization_all"


@pytest.mark.parametrize("model", EDITORS)
def test_a_mask_is_refused_by_models_that_have_none(model: str) -> None:
    with pytest.raises(FormatError, match=f"mask: {model} takes none"):
        rendered(model, images=(PICTURE,), mask=Picture(MASK, "image/png"))


def test_only_one_image_beside_a_mask() -> None:
    with pytest.raises(FormatError, match=r"image: wanx2\.1-imageedit edits one image"):
        rendered("wanx2.1-imageedit", images=(PICTURE, PICTURE))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model", MAKERS)
def test_openais_sizes_become_those_that_a_model_makes(model: str, size: tuple[int, int]) -> None:
    body, dropped = rendered(model, size=size)
    width, height = map(int, body["parameters"]["size"].split("*"))
    assert (width > height, width == height) == (size[0] > size[1], size[0] == size[1])
    assert dropped == ()


@pytest.mark.parametrize("size", [(4096, 256), (1400, 200), (300, 3000), (9999, 1), (5000, 5000)])
@pytest.mark.parametrize("model", ["wan2.2-t2i-flash", "wan2.5-t2i-preview", "wan2.6-t2i"])
def test_sizes_that_a_model_has_not_become_the_nearest(model: str, size: tuple[int, int]) -> None:
    body, _ = rendered(model, size=size)
    width, height = map(int, body["parameters"]["size"].split("*"))
    assert (width > height, width == height) == (size[0] > size[1], size[0] == size[1])


@pytest.mark.parametrize("size", [(3000, 300), (256, 256), (2048, 512), (600, 1300)])
def test_an_edits_sides_have_limits(size: tuple[int, int]) -> None:
    body, _ = rendered("qwen-image-edit-plus", images=(PICTURE,), size=size)
    width, height = map(int, body["parameters"]["size"].split("*"))
    assert 512 <= min(width, height) <= max(width, height) <= 2048


@pytest.mark.parametrize(
    ("model", "fields", "made"),
    [
        ("wan2.7-image-pro", {}, "4096*4096"),
        ("wan2.7-image-pro", {"images": (PICTURE,)}, "2048*2048"),
        ("wan2.7-image-pro", {"settings": {"enable_sequential": True}}, "2048*2048"),
        (
            "wan2.7-image-pro",
            {"settings": {"parameters": {"enable_sequential": True}}},
            "2048*2048",
        ),
        ("wan2.7-image", {}, "2048*2048"),
        ("wan3.0-image", {}, "2048*2048"),
    ],
)
def test_the_largest_images(model: str, fields: Any, made: str) -> None:
    body, _ = rendered(model, size=(4096, 4096), **fields)
    assert body["parameters"]["size"] == made


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model", EDITORS)
def test_edits_have_sizes_too(model: str, size: tuple[int, int]) -> None:
    body, dropped = rendered(model, images=(PICTURE,), size=size)
    assert ("size" in body["parameters"]) != (dropped == ("size",))


def test_the_clients_own_parameters() -> None:
    settings = {
        "parameters": {"size": "1440*1440", "n": 9, "seed": 1, "callback": "https://x.example"},
        "user": "u",
        "style": "vivid",
    }
    body, dropped = rendered("wan2.6-t2i", size=(1024, 1024), settings=settings, quality="hd")
    assert body["parameters"] == {"size": "1440*1440", "seed": 1, "n": 1}
    assert set(dropped) == {"quality", "callback", "user", "style"}


def test_what_has_no_meaning_is_named() -> None:
    _, dropped = rendered("qwen-image", background="transparent", output_format="webp")
    assert dropped == ("background", "output_format")
    assert rendered("qwen-image", background="opaque", output_format="png")[1] == ()


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("qwen-image-plus", 1),
        ("qwen-image-edit", 1),
        ("qwen-image-edit-2025", 1),
        ("qwen-image-edit-plus-2025-12-15", 6),
        ("qwen-image-max-2025-12-30", 1),
        ("qwen-image-2.0-pro", 6),
        ("qwen-image-3.0-pro", 6),
        ("qwen-image-of-tomorrow", 6),
        ("wan2.2-t2i-plus", 4),
        ("unheard-of", 1),
    ],
)
def test_how_many_at_once(model: str, most: int) -> None:
    assert images.most(model) == most


# ---- answers


def test_an_answer_to_a_message() -> None:
    url = "https://dashscope-result-sz.oss-cn-shenzhen.aliyuncs.com/"
    assert images.answer(fixture("message")) == ImagesAnswer(
        images=(Image(url=f"{url}1.png?Expires=1"), Image(url=f"{url}2.png?Expires=1"))
    )


def test_tokens_where_they_are_told() -> None:
    answer = images.answer(fixture("message_with_tokens"))
    assert isinstance(answer, ImagesAnswer)
    usage = Usage(prompt_tokens=18790, completion_tokens=2, total_tokens=18792)
    assert answer.usage == usage


def test_a_task_from_its_making_to_its_end() -> None:
    made, done = fixture("made"), fixture("succeeded")
    assert images.task_id(made) == "0385dc79-5ff8-4d82-bcb6-xxxxxx"
    assert not images.is_over(made)
    assert images.is_over(done)
    answer = images.answer(done)  # of two, one failed
    assert isinstance(answer, ImagesAnswer)
    url = "https://dashscope-result-sh.oss-cn-shanghai.aliyuncs.com/xxx.png?Expires=xxx"
    prompt = "Replace the pink pleated dress with a vintage-style lace long dress."
    assert answer.images == (Image(url=url, revised_prompt=prompt),)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (
            fixture("failed"),
            ProviderError(
                "The size is not match xxxxxx",
                type="InvalidParameter",
                status=400,
                code="InvalidParameter",
            ),
        ),
        (
            {
                "output": {
                    "task_status": "SUCCEEDED",
                    "results": [{"code": "InternalError.Timeout"}],
                }
            },
            ProviderError(
                "InternalError.Timeout",
                type="InternalError.Timeout",
                status=500,
                code="InternalError.Timeout",
            ),
        ),
        (
            {"output": {"task_status": "UNKNOWN"}},
            ProviderError("the task ended without images: UNKNOWN", status=502),
        ),
        ({}, ProviderError("the provider's answer is not usable: it has no image", status=502)),
        (
            {"output": {"choices": [{"message": {"content": [{"text": "No."}]}}]}},
            ProviderError(
                "the model made no image: No.",
                type="image_generation_user_error",
                status=400,
                code="moderation_blocked",
            ),
        ),
    ],
)
def test_no_image_tells_why(value: Any, error: ProviderError) -> None:
    assert images.answer(value) == error


@pytest.mark.parametrize("output", [None, 1, [], {"results": 1}, {"choices": [1, {"message": 2}]}])
def test_garbage_is_the_providers_fault(output: Any) -> None:
    error = images.answer({"output": output, "usage": {"input_tokens": -1}})
    assert isinstance(error, ProviderError)
    assert error.status == 502


def test_errors() -> None:
    value = fixture("error")
    assert dashscope.parse_error(400, json.dumps(value).encode()) == ProviderError(
        "Input or output data may contain inappropriate content.",
        type="DataInspectionFailed",
        status=400,
        code="DataInspectionFailed",
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b'{"error": {"message": "x"}}', b"\xff"])
def test_errors_of_any_content(body: bytes) -> None:
    error = dashscope.parse_error(503, body)
    assert (error.status, bool(error.message)) == (503, True)
