"""OpenAI's videos: requests in JSON and as forms, ids, and jobs."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.formats.openai import videos
from kong_ai_proxy.formats.videos import Listed, Page, Video, VideoError
from tests.video_jobs import BAD_NAMES, PNG, WEBP

DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def file(content: bytes, name: str = "input_reference") -> Part:
    return Part(name, "frame.png", "image/png", content)


def test_a_request_in_json() -> None:
    request = videos.parse_request(
        {
            "prompt": "a river",
            "model": "veo",
            "seconds": "8",
            "size": "1280x720",
            "seed": 7,
            "input_reference": {"image_url": DATA_URL},
            "absent": None,
        }
    )
    assert (request.prompt, request.model) == ("a river", "veo")
    assert (request.seconds, request.size) == (8, (1280, 720))
    assert request.image == (PNG, "image/png")
    assert request.settings == {"seed": 7}


def test_a_request_as_a_form() -> None:
    fields = {"prompt": "a river", "seconds": "4", "extra_body[fps]": "24"}
    request = videos.parse_request(fields, (Part("prompt", None), file(PNG)))
    assert request.image == (PNG, "image/png")
    assert request.seconds == 4
    assert request.settings == {"fps": "24"}


def test_a_reference_in_nested_fields_of_a_form() -> None:
    request = videos.parse_request({"prompt": "x", "input_reference[image_url]": DATA_URL})
    assert request.image == (PNG, "image/png")
    assert request.settings == {}


def test_nested_fields_of_a_form() -> None:
    fields = {"prompt": "x", "parameters[seed]": "7", "extra_body[parameters][fps]": "24"}
    assert videos.parse_request(fields).settings == {"parameters": {"seed": "7", "fps": "24"}}


def test_seconds_may_be_a_number() -> None:
    assert videos.parse_request({"prompt": "x", "seconds": 8}).seconds == 8


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "prompt: expected a text .* missing"),
        ({"prompt": " "}, "prompt: .* not empty"),
        ({"prompt": 1}, "prompt: expected a string"),
        ({"prompt": "x", "seconds": "08"}, "seconds: "),
        ({"prompt": "x", "seconds": "8.5"}, "seconds: "),
        ({"prompt": "x", "seconds": True}, "seconds: "),
        ({"prompt": "x", "seconds": -1}, "seconds: "),
        ({"prompt": "x", "size": "1280X720"}, "size: "),
        ({"prompt": "x", "size": "0x720"}, "size: "),
        ({"prompt": "x", "size": 720}, "size: "),
        ({"prompt": "x", "model": 1}, "model"),
        ({"prompt": "x", "extra_body[model]": "other"}, "expected model on its own"),
        ({"prompt": "x", "a": "1", "a[b]": "2"}, r"a\[b\]: a has a value of its own"),
        ({"prompt": "x", "a": "1", "extra_body[a]": "2"}, "it occurs twice"),
        ({"prompt": "x", "input_reference": {"file_id": "file-1"}}, "no uploaded files"),
        ({"prompt": "x", "input_reference": {}}, "image_url: expected a string"),
        ({"prompt": "x", "input_reference": 5}, "input_reference: expected an object"),
        ({"prompt": "x", "input_reference": {"image_url": "https://a.example/"}}, "a data URL"),
        ({"prompt": "x", "input_reference": {"image_url": "data:image/png,x"}}, "data URL"),
        ({"prompt": "x", "input_reference": {"image_url": "data:;base64,$"}}, "in base64"),
        ({"prompt": "x", "input_reference": {"image_url": "data:;base64,"}}, "it is empty"),
        ({"prompt": "x", "input_reference": {"image_url": "data:;base64,AAAA"}}, "first bytes"),
    ],
)
def test_bad_requests_say_where(body: dict[str, Any], text: str) -> None:
    with pytest.raises(FormatError, match=text):
        videos.parse_request(body)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((file(b""),), "it is empty"),
        ((file(b"GIF89a"),), "first bytes"),
        ((file(PNG), file(WEBP)), "expected one file"),
        ((file(PNG, "video"),), "video: this provider takes one file"),
    ],
)
def test_bad_files_say_where(parts: tuple[Part, ...], text: str) -> None:
    with pytest.raises(FormatError, match=text):
        videos.parse_request({"prompt": "x"}, parts)


def test_an_image_twice_is_one_too_many() -> None:
    data = "data:image/png;base64,iVBORw0KGgo="
    for said in ({"input_reference": data}, {"input_reference[image_url]": data}):
        with pytest.raises(FormatError, match="input_reference: expected one image"):
            videos.parse_request({"prompt": "x", **said}, (file(PNG),))


@given(st.from_regex(r"[!-~]{1,375}", fullmatch=True))
def test_a_name_is_read_back_from_its_id(name: str) -> None:
    made = videos.video_id(name)
    assert len(made) < 512
    assert videos.name_of(made) == name


@given(st.text(max_size=40))
def test_other_ids_hold_no_name_or_exactly_their_own(given_id: str) -> None:
    for text in (given_id, f"video_{given_id}"):
        name = videos.name_of(text)
        assert name is None or videos.video_id(name) == text


@pytest.mark.parametrize("text", ["video_YQ==", "video_YR", "video_YWI=", "video_Y", "file-YQ"])
def test_ids_written_otherwise_are_none(text: str) -> None:
    assert videos.name_of(text) is None


def test_a_name_that_is_too_long_makes_no_id() -> None:
    with pytest.raises(FormatError):
        videos.video_id("x" * 376)
    assert [videos.name_of(videos.video_id(name)) for name in BAD_NAMES] == list(BAD_NAMES)


def test_queries_of_lists() -> None:
    assert videos.parse_page({}) == Page(20)
    after = videos.video_id("x")
    asked = {"limit": "5", "after": after, "order": "asc"}
    assert videos.parse_page(asked) == Page(5, "x", ascending=True)


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"order": "up"}, {"after": "x"}]
)
def test_bad_queries_say_where(query: dict[str, str]) -> None:
    (name,) = query
    with pytest.raises(FormatError, match=f"^{name}: "):
        videos.parse_page(query)


def test_a_variant_that_openai_has_not() -> None:
    assert videos.parse_variant({}) == "video"
    with pytest.raises(FormatError, match="variant: expected video, thumbnail or spritesheet"):
        videos.parse_variant({"variant": "gif"})


def test_a_list_names_its_ends() -> None:
    jobs = [Video(name=name, status="queued", created_at=1) for name in "ab"]
    listed = videos.render_list(Listed(jobs, has_more=True))
    assert (listed["first_id"], listed["last_id"]) == (videos.video_id("a"), videos.video_id("b"))
    empty = videos.render_list(Listed([]))
    assert (empty["data"], empty["first_id"], empty["has_more"]) == ([], None, False)


def test_a_job_that_failed() -> None:
    error = VideoError("moderation_blocked", "no")
    shown = videos.render_video(Video(name="a", status="failed", created_at=1, error=error))
    assert shown["error"] == {"code": "moderation_blocked", "message": "no"}
    assert (shown["progress"], shown["seconds"], shown["size"]) == (0, "", "")
