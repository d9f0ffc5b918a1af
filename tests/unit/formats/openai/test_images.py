"""OpenAI's images: requests, edits as forms and as JSON, answers."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from openai.types import ImagesResponse

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.formats.images import (
    Image,
    ImagesAnswer,
    ImagesRequest,
    media_type_of,
    media_type_of_base64,
)
from kong_ai_proxy.formats.openai.images import parse_edit, parse_generation, render_answer
from kong_ai_proxy.formats.usage import Usage

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 20
WEBP = b"RIFF\x10\0\0\0WEBPVP8 " + b"\0" * 20
GIF = b"GIF89a" + b"\0" * 20
DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()


def file(name: str, content: bytes = PNG, media_type: str = "image/png") -> Part:
    return Part(name, "a.png", media_type, content)


def form(*parts: Part, **fields: str) -> tuple[dict[str, object], tuple[Part, ...]]:
    plain = tuple(Part(name, content=text.encode()) for name, text in fields.items())
    return dict(fields), (*parts, *plain)


def edit(*parts: Part, **fields: str) -> ImagesRequest:
    return parse_edit(*form(*parts, **{"prompt": "A cat", **fields}))


# ---- generations


def test_everything_that_has_a_name_of_its_own() -> None:
    # https://platform.openai.com/docs/api-reference/images/create
    request = parse_generation(
        {
            "model": "gpt-image-1.5",
            "prompt": "A cute baby sea otter",
            "n": 2,
            "size": "1536x1024",
            "quality": "high",
            "background": "transparent",
            "output_format": "webp",
            "response_format": "url",
            "user": "u",
            "negative_prompt": "dogs",
            "moderation": None,
            "image": None,
        }
    )
    assert request == ImagesRequest(
        prompt="A cute baby sea otter",
        model="gpt-image-1.5",
        n=2,
        size=(1536, 1024),
        quality="high",
        background="transparent",
        output_format="webp",
        as_url=True,
        settings={"user": "u", "negative_prompt": "dogs"},
    )


def test_auto_and_null_are_the_models_choice() -> None:
    request = parse_generation(
        {
            "prompt": "A",
            "n": None,
            "size": "auto",
            "quality": "auto",
            "background": "auto",
            "output_format": None,
            "response_format": None,
            "stream": False,
            "partial_images": 0,
        }
    )
    assert request == ImagesRequest(prompt="A")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "prompt: expected a text that says what the image shows; it is missing"),
        ({"prompt": " \n"}, "prompt: expected a text that is not empty"),
        ({"prompt": ["a"]}, "prompt: expected a string"),
        ({"prompt": "a", "n": 0}, "n: expected a whole number from 1 to 10"),
        ({"prompt": "a", "n": 11}, "n: expected a whole number from 1 to 10"),
        ({"prompt": "a", "n": True}, "n: expected a whole number from 1 to 10"),
        ({"prompt": "a", "n": "2"}, "n: expected a whole number from 1 to 10"),
        ({"prompt": "a", "n": 1.5}, "n: expected a whole number from 1 to 10"),
        ({"prompt": "a", "size": "big"}, "size: expected width and height in pixels"),
        ({"prompt": "a", "size": "0x512"}, "size: expected width and height in pixels"),
        ({"prompt": "a", "size": "-1x512"}, "size: expected width and height in pixels"),
        ({"prompt": "a", "size": "512X512 "}, "size: expected width and height in pixels"),
        ({"prompt": "a", "size": 512}, "size: expected width and height in pixels"),
        ({"prompt": "a", "response_format": "png"}, "response_format: expected url or b64_json"),
        ({"prompt": "a", "output_format": "svg"}, "output_format: expected png, jpeg, webp"),
        ({"prompt": "a", "background": "pink"}, "background: expected transparent, opaque"),
        ({"prompt": "a", "quality": 3}, "quality: expected a string"),
        ({"prompt": "a", "stream": True}, "stream: expected false"),
        ({"prompt": "a", "partial_images": 2}, "partial_images: expected 0"),
        ({"prompt": "a", "model": 5}, "expected 'model' to be a string"),
        ({"prompt": "a", "image": DATA}, "image: expected none: images to work on are sent with"),
        ({"prompt": "a", "images": [{"image_url": DATA}]}, "images: expected none"),
        ({"prompt": "a", "mask": {"image_url": DATA}}, "mask: expected none"),
    ],
)
def test_wrong_generations_are_named(body: dict[str, object], text: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_generation(body)
    assert str(caught.value).startswith(text)


# ---- forms


@pytest.mark.parametrize("name", ["image", "image[]"])
def test_a_form_with_several_images(name: str) -> None:
    request = edit(file(name), file(name, JPEG), file(name, WEBP))
    assert [image.media_type for image in request.images] == [
        "image/png",
        "image/jpeg",
        "image/webp",
    ]


def test_media_types_come_from_the_files_and_not_from_their_headers() -> None:
    request = edit(file("image", JPEG, "image/png"))
    assert request.images[0].media_type == "image/jpeg"


def test_fields_of_a_form_are_read_as_what_they_are() -> None:
    request = edit(
        file("image"),
        file("mask"),
        n="3",
        stream="false",
        partial_images="0",
        user="5",
        seed="7",
        strength="0.5",
        negative_prompt="dogs",
        imageGenerationConfig='{"cfgScale":8}',
    )
    assert (request.n, request.prompt, request.mask is not None) == (3, "A cat", True)
    assert request.settings == {
        "user": "5",
        "seed": 7,
        "strength": 0.5,
        "negative_prompt": "dogs",
        "imageGenerationConfig": {"cfgScale": 8},
    }


def test_a_prompt_that_is_a_number_stays_a_text() -> None:
    assert edit(file("image"), prompt="42").prompt == "42"
    request = edit(file("image"), negative_prompt="1984", search_prompt="true")
    assert request.settings == {"negative_prompt": "1984", "search_prompt": "true"}


def nested(**fields: str) -> ImagesRequest:
    """An edit whose plain fields have names that keywords cannot have: a__b is a[b]."""
    names = {name.replace("__", "[", 1) + "]" if "__" in name else name: name for name in fields}
    plain = tuple(Part(name, content=fields[key].encode()) for name, key in names.items())
    texts = {"prompt": "A", **{part.name: part.content.decode() for part in plain}}
    return parse_edit(texts, (file("image"), *plain))


def test_extra_body_of_a_form() -> None:
    request = nested(extra_body__seed="7", extra_body__negative_prompt="7", n="2")
    assert request.settings == {"seed": 7, "negative_prompt": "7"}
    assert nested(extra_body='{"seed": 7, "n": 3}').settings == {"seed": 7}
    assert nested(extra_body='{"seed": 7, "n": 3}').n == 3


def test_a_field_of_its_own_wins_over_extra_body() -> None:
    assert nested(extra_body__seed="7", seed="8").settings == {"seed": 8}


def test_extra_body_gets_past_no_rule() -> None:
    request = nested(extra_body__model="other", extra_body__stream="true", model="m")
    assert (request.model, request.settings) == ("m", {})
    with pytest.raises(FormatError, match="unknown member 'Model', did you mean 'model'"):
        nested(extra_body__Model="other")


def test_an_extra_body_that_is_none_is_a_setting_like_others() -> None:
    assert nested(extra_body="x").settings == {"extra_body": "x"}


def test_nested_fields_of_a_form() -> None:
    plain = [
        Part("imageGenerationConfig[cfgScale]", content=b"8"),
        Part("imageGenerationConfig[seed]", content=b"1"),
        Part("a[b][]", content=b"#ff0000"),
        Part("a[b][]", content=b"#00ff00"),
    ]
    body: dict[str, object] = {"prompt": "A", **{p.name: p.content.decode() for p in plain}}
    request = parse_edit(body, (file("image"), *plain))
    assert request.settings == {
        "imageGenerationConfig": {"cfgScale": 8, "seed": 1},
        "a": {"b": ["#ff0000", "#00ff00"]},
    }


def test_a_field_that_only_looks_nested_keeps_its_name() -> None:
    assert edit(file("image"), **{"a[": "1", "]b": "2"}).settings == {"a[": 1, "]b": 2}


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("a[]", "a[b]"), "a[b]: expected [] or [name]"),
        (("a[b]", "a[]"), "a[]: expected [] or [name]"),
        (("a[b]", "a[b][c]"), "a[b][c]: expected [] or [name]"),
    ],
)
def test_nested_fields_that_contradict_each_other(names: tuple[str, ...], text: str) -> None:
    parts = (file("image"), *(Part(name, content=b"1") for name in names))
    with pytest.raises(FormatError) as caught:
        parse_edit({"prompt": "A"}, parts)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([Part("n", content=b"1")], "image: expected a PNG, JPEG or WebP file to edit; it is miss"),
        ([file("image", b"")], "image: expected a PNG, JPEG or WebP file; it is empty"),
        ([file("image", GIF)], "image: expected a PNG, JPEG or WebP file; its first bytes"),
        ([file("image", b"\x89PN")], "image: expected a PNG, JPEG or WebP file; its first bytes"),
        ([file("image")] * 17, "image: expected at most 16 images, got 17"),
        ([file("image"), file("mask", b"")], "mask: expected a PNG, JPEG or WebP file; it is em"),
        ([file("image"), file("mask", JPEG)], "mask: expected a PNG file, whose transparent"),
        ([file("image"), file("mask"), file("mask")], "mask: expected one file"),
        ([file("image"), file("markup")], "markup: this provider takes the files image, image[]"),
        ([file("image"), file("images")], "images: this provider takes the files"),
        ([file("image"), Part("images", content=b"x")], "images: this provider takes the files"),
        ([file("image"), file("extra")], "extra: this provider takes the files"),
        ([file("image"), Part("a[b]", content=b"\xff")], "the field 'a[b]' is not UTF-8"),
    ],
)
def test_wrong_forms_are_named(parts: list[Part], text: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_edit({"prompt": "A"}, tuple(parts))
    assert str(caught.value).startswith(text)


# ---- JSON


def test_references_of_json() -> None:
    # https://platform.openai.com/docs/api-reference/images/createEdit
    body: dict[str, object] = {
        "prompt": "A",
        "images": [{"image_url": DATA}, {"image_url": DATA, "file_id": None}],
        "mask": {"image_url": DATA},
        "seed": 3,
    }
    request = parse_edit(body, ())
    assert [image.content for image in request.images] == [PNG, PNG]
    assert request.mask is not None
    assert request.mask.content == PNG
    assert request.settings == {"seed": 3}


@pytest.mark.parametrize("image", [DATA, [DATA], {"image_url": DATA}])
def test_image_in_place_of_images(image: object) -> None:
    assert len(parse_edit({"prompt": "A", "image": image}, ()).images) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "images: expected a PNG, JPEG or WebP file to edit; it is missing"),
        ({"images": []}, "images: expected a PNG, JPEG or WebP file to edit; it is missing"),
        ({"images": {}}, "images: expected an array"),
        ({"images": [1]}, "images[0]: expected an object"),
        ({"images": [{}]}, "images[0].image_url: expected a string"),
        ({"images": [{"file_id": "file-1"}]}, "images[0].file_id: this provider knows no upload"),
        ({"images": [{"image_url": "https://a.example/b.png"}]}, "images[0].image_url: expected a"),
        ({"images": [{"image_url": "data:image/png;base64,@"}]}, "images[0].image_url: expected a"),
        ({"images": [{"image_url": "data:image/png;base64,"}]}, "images[0]: expected a PNG, JPEG"),
        ({"image": "data:image/png,abc"}, "image[0]: a data URL has to be"),
        ({"image": DATA, "images": []}, "image: expected either images or image, not both"),
        ({"image": DATA, "mask": {"file_id": "f"}}, "mask.file_id: this provider knows no"),
        ({"image": DATA, "markup": {"image_url": DATA}}, "markup: this provider takes images"),
    ],
)
def test_wrong_references_are_named(body: dict[str, object], text: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_edit({"prompt": "A", **body}, ())
    assert str(caught.value).startswith(text)


# ---- answers

B64 = base64.b64encode(PNG).decode()
ASKED = ImagesRequest(prompt="A")


def rendered(*images: Image, request: ImagesRequest = ASKED, **more: Any) -> dict[str, Any]:
    answer = render_answer(ImagesAnswer(images=images, **more), request, 1700000000)
    ImagesResponse.model_validate(answer, strict=True)
    return answer


def test_base64_where_nothing_was_said() -> None:
    answer = rendered(Image(base64=B64), Image(base64=B64, revised_prompt="A cat"))
    assert answer == {
        "created": 1700000000,
        "data": [{"b64_json": B64}, {"b64_json": B64, "revised_prompt": "A cat"}],
        "output_format": "png",
    }


def test_a_data_url_where_an_url_was_asked_for() -> None:
    asked = ImagesRequest(prompt="A", as_url=True)
    image = Image(base64=base64.b64encode(JPEG).decode(), media_type="image/png")
    answer = rendered(image, request=asked)
    assert answer["data"][0]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert answer["output_format"] == "jpeg"


def test_an_url_of_the_providers() -> None:
    assert rendered(Image(url="https://a.example/b"))["data"] == [{"url": "https://a.example/b"}]


def test_what_the_answer_tells_of_itself() -> None:
    told = {"size": "512x512", "quality": "premium", "background": "opaque", "seed": 1}
    answer = rendered(Image(url="https://a.example/b"), settings=told)
    assert answer.keys() == {"created", "data", "size", "background"}


def test_usage_in_openais_words() -> None:
    details = {"image_tokens": 10}
    used = Usage(prompt_tokens=30, completion_tokens=50, total_tokens=80, prompt_details=details)
    assert rendered(Image(base64=B64), usage=used)["usage"] == {
        "input_tokens": 30,
        "input_tokens_details": {"image_tokens": 10, "text_tokens": 20},
        "output_tokens": 50,
        "total_tokens": 80,
    }


def test_usage_with_kinds_of_output() -> None:
    used = Usage(completion_tokens=50, total_tokens=50, completion_details={"text_tokens": 9})
    answer = rendered(Image(base64=B64), usage=used)
    assert answer["usage"]["output_tokens_details"] == {"image_tokens": 41, "text_tokens": 9}


def test_tokens_that_nobody_counted_are_of_the_other_kind() -> None:
    used = Usage(completion_tokens=50, completion_details={"image_tokens": 41})
    answer = rendered(Image(base64=B64), usage=used)
    assert answer["usage"]["output_tokens_details"] == {"image_tokens": 41, "text_tokens": 9}


def test_media_types_of_first_bytes() -> None:
    assert [media_type_of(each) for each in (PNG, JPEG, WEBP, GIF, b"")] == [
        "image/png",
        "image/jpeg",
        "image/webp",
        "",
        "",
    ]
    assert [media_type_of_base64(text) for text in (B64, "@", "", "é" * 16)] == [
        "image/png",
        "",
        "",
        "",
    ]
