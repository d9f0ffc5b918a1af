"""What all flows of images share."""

from __future__ import annotations

import base64
import re
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.images import Image, ImagesAnswer, ImagesRequest
from kong_ai_proxy.formats.openai import IMAGE_GENERATIONS
from kong_ai_proxy.formats.openai.errors import parse_error
from kong_ai_proxy.formats.usage import Usage
from kong_ai_proxy.providers import images
from kong_ai_proxy.providers.flow import MAX_MEDIA, ProviderFailed, Reply, Result, Send, Wanted

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
B64 = base64.b64encode(PNG).decode()
HOSTS = re.compile(r"[a-z0-9-]+\.images\.example")


def driven(flow: Generator[Any, Any, Any], *replies: Reply) -> tuple[Any, list[Any]]:
    """What a generator returns, and what it yielded."""
    left, yielded = list(replies), []
    try:
        step = next(flow)
        while True:
            yielded.append(step)
            step = flow.send(left.pop(0))
    except StopIteration as end:
        return end.value, yielded


def wanted(**body: object) -> Wanted:
    options = ModelOptions()
    return Wanted(IMAGE_GENERATIONS, options, "m-1", body={"prompt": "A", **body}, now=17.9)


def _make(answer: ImagesAnswer, seen: list[ImagesRequest]) -> images.Make:
    def make(request: ImagesRequest, _: Wanted) -> Generator[Any, Any, images.Made]:
        seen.append(request)
        yield from ()
        return images.Made(answer, ("user",))

    return make


@pytest.mark.parametrize(("more", "is_refused"), [(0, False), (1, True)])
def test_the_images_of_one_request_are_bounded(more: int, is_refused: bool) -> None:
    half = Image(base64="A" * (images.MAX_HELD // 2))
    made = [half, half, Image(base64="A" * more)]
    if not is_refused:
        images.check_held(made)
        return
    with pytest.raises(FormatError, match="n: the images are more than 67108864 bytes"):
        images.check_held(made)


def test_images_are_not_fetched_beyond_what_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_HELD", 2 * len(B64))
    told = tuple(Image(url=f"https://a.images.example/{name}") for name in range(5))
    request = ImagesRequest(prompt="A", as_url=False)
    flow = images.downloaded(ImagesAnswer(images=told), request, HOSTS, parse_error)
    with pytest.raises(FormatError, match="ask for fewer"):
        driven(flow, *[Reply(200, PNG)] * 3)  # a fourth one is not asked for


def test_a_flow_from_request_to_answer() -> None:
    seen: list[ImagesRequest] = []
    flow = images.generation(_make(ImagesAnswer(images=(Image(base64=B64),)), seen))
    result, _ = driven(flow.run(wanted(model="other", n=2)))
    assert isinstance(result, Result)
    assert result.body == {"created": 17, "data": [{"b64_json": B64}], "output_format": "png"}
    assert result.dropped == ("user",)
    assert (seen[0].model, seen[0].n) == ("m-1", 2)


JPEG_B64 = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(20)).decode()
IS_URL = Image(url="https://a.images.example/x")


@pytest.mark.parametrize(
    ("asked", "made", "dropped", "told"),
    [
        (None, [Image(base64=JPEG_B64)], ("user",), ("user",)),
        ("png", [Image(base64=B64)], ("user", "output_format"), ("user",)),
        ("jpeg", [Image(base64=JPEG_B64)] * 2, ("output_format", "user"), ("user",)),
        ("png", [Image(base64=JPEG_B64)], ("user",), ("user", "output_format")),
        ("webp", [Image(base64=B64)], ("output_format",), ("output_format",)),
        ("png", [Image(base64=B64), Image(base64=JPEG_B64)], (), ("output_format",)),
        ("png", [IS_URL], (), ()),
        ("jpeg", [IS_URL], ("output_format",), ("output_format",)),
        ("png", [Image(base64="@@@@")], (), ()),
    ],
)
def test_a_format_is_dropped_where_the_files_are_of_another(
    asked: str | None, made: list[Image], dropped: tuple[str, ...], told: tuple[str, ...]
) -> None:
    def make(request: ImagesRequest, _: Wanted) -> Generator[Any, Any, images.Made]:
        yield from ()
        return images.Made(ImagesAnswer(images=tuple(made)), dropped)

    result, _ = driven(images.generation(make).run(wanted(output_format=asked)))
    assert result.dropped == told


def test_an_answer_without_images_is_none() -> None:
    flow = images.generation(_make(ImagesAnswer(images=()), []))
    with pytest.raises(ProviderFailed, match="it has no image"):
        driven(flow.run(wanted()))


def test_an_edit_needs_an_image() -> None:
    flow = images.edit(_make(ImagesAnswer(images=()), []))
    with pytest.raises(FormatError, match="images: expected"):
        driven(flow.run(wanted()))


# ---- several calls


def _called(answer: ImagesAnswer | ProviderError) -> Generator[Any, Any, ImagesAnswer]:
    yield from ()
    return images.unless_told(answer)


ONE = ImagesAnswer(images=(Image(base64=B64),))
STOPPED = ProviderError("No.", status=400, code="moderation_blocked")


def test_what_a_filter_stops_is_left_out() -> None:
    used = ImagesAnswer(images=ONE.images, usage=Usage(prompt_tokens=1, total_tokens=1))
    calls = [_called(each) for each in (STOPPED, used, ONE, STOPPED, used)]
    answer, _ = driven(images.gathered(calls))
    assert answer.images == ONE.images * 3
    assert answer.usage.total_tokens == 2


def test_an_error_where_a_filter_stops_all() -> None:
    with pytest.raises(ProviderFailed, match=r"No\.") as failed:
        driven(images.gathered([_called(STOPPED), _called(STOPPED)]))
    assert failed.value.error == STOPPED


def test_another_failure_is_an_error_at_once() -> None:
    failure = ProviderError("Slow down", status=429)
    answers: list[ImagesAnswer | ProviderError] = [STOPPED, ONE, failure, ONE]
    asked: list[int] = []

    def calls() -> Iterator[Generator[Any, Any, ImagesAnswer]]:
        for number, each in enumerate(answers):
            asked.append(number)
            yield _called(each)

    with pytest.raises(ProviderFailed, match="Slow down"):
        driven(images.gathered(calls()))
    assert asked == [0, 1, 2]


# ---- images at an address


def test_an_image_is_fetched_without_credentials() -> None:
    url = "https://a-1.images.example/x/y%20z.png?sig=a%2Fb&e=1"
    image, sends = driven(images.fetched(url, HOSTS, parse_error), Reply(200, PNG))
    assert image == Image(base64=B64, media_type="image/png")
    assert sends == [
        Send(
            "GET",
            "/x/y%20z.png",
            "sig=a%2Fb&e=1",
            {"accept": "image/*"},
            base_url="https://a-1.images.example",
            most=MAX_MEDIA,
            is_own=False,
        )
    ]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/x.png",
        "http://a.images.example:8080/x.png",
        "http://a.images.example:443/x.png",
        "http://user@a.images.example/x.png",
        "ftp://a.images.example/x.png",
        "https://a.images.example:80/x.png",
        "https://a.images.example:8443/x.png",
        "https://a.images.example@evil.example/x.png",
        "https://user@a.images.example/x.png",
        "https://evil.example/a.images.example",
        "https://a.images.example.evil.example/x",
        "https://a.images.example\\@evil.example/x",
        "https://a.images.example/x y",
        "https://a.images.example/\r\nx",
        "https://[::1/x",
        "https://a.images.example:99999/x",
        "https://127.0.0.1/x",
        "file:///etc/passwd",
        "https://a.images.example/" + "x" * 9000,
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ProviderFailed, match="not the provider's own") as caught:
        driven(images.fetched(url, HOSTS, parse_error), Reply(200, PNG))
    assert caught.value.error.status == 502


@pytest.mark.parametrize("origin", ["http://A.images.example", "https://a.images.example:443"])
def test_an_image_is_fetched_by_https_whatever_the_address_says(origin: str) -> None:
    _, sends = driven(images.fetched(f"{origin}/x?sig=1", HOSTS, parse_error), Reply(200, PNG))
    assert [(send.base_url, send.path, send.query) for send in sends] == [
        ("https://a.images.example", "/x", "sig=1")
    ]


def test_the_operators_own_address_is_good() -> None:
    own = "http://127.0.0.1:8080/v1"
    url = "http://127.0.0.1:8080/files/x.png"
    image, _ = driven(images.fetched(url, HOSTS, parse_error, own), Reply(200, PNG))
    assert image.base64 == B64
    with pytest.raises(ProviderFailed, match="not the provider's own"):
        driven(images.fetched("http://127.0.0.1:8081/x", HOSTS, parse_error, own))


@pytest.mark.parametrize("reply", [Reply(200, b"<html>"), Reply(200, b""), Reply(403, b"no")])
def test_what_is_no_image(reply: Reply) -> None:
    with pytest.raises(ProviderFailed):
        driven(images.fetched("https://a.images.example/x", HOSTS, parse_error), reply)


@pytest.mark.parametrize(("as_url", "fetches"), [(None, 0), (True, 0), (False, 2)])
def test_images_are_fetched_where_base64_was_asked_for(as_url: bool | None, fetches: int) -> None:
    url = "https://a.images.example/x"
    answer = ImagesAnswer(images=(Image(url=url, revised_prompt="R"), Image(url=url)))
    request = ImagesRequest(prompt="A", as_url=as_url)
    flow = images.downloaded(answer, request, HOSTS, parse_error)
    made, sends = driven(flow, *[Reply(200, PNG)] * fetches)
    assert len(sends) == fetches
    assert made.images[0].revised_prompt == "R"
    assert bool(made.images[0].base64) is bool(fetches)
