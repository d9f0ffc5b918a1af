"""A multipart form is taken apart, however it arrives."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.form import MAX_PARTS, FormError, FormReader, Part, parts_of

TYPE = "multipart/form-data; boundary=frontier"


def part(disposition: str, content: bytes = b"x", more: str = "") -> bytes:
    head = f"--frontier\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n"
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--frontier--\r\n"


def read(body: bytes, *places: int) -> list[Part]:
    """The parts of a body that is cut at these places."""
    reader = FormReader(TYPE)
    found: list[Part] = []
    for start, end in pairwise([0, *places, len(body)]):
        for each in reader.feed(body[start:end]):
            if isinstance(each, Part):
                found.append(each)
            else:
                found[-1] = found[-1]._replace(content=found[-1].content + each)
    reader.end()
    return found


BODY = form(
    part('name="prompt"', "été\r\n--fronti".encode()),
    part('name="empty"', b""),
    part('name="file"; filename="a b.png"', b"\r\n\x89PNG\r\n\r\n", "Content-Type: Image/PNG\r\n"),
    part('name="last"; filename=""', b"-\r\n --frontier"),
)
PARTS = [
    Part("prompt", None, "", "été\r\n--fronti".encode()),
    Part("empty", None, "", b""),
    Part("file", "a b.png", "image/png", b"\r\n\x89PNG\r\n\r\n"),
    Part("last", "", "", b"-\r\n --frontier"),
]


def test_a_form_may_be_cut_at_every_byte() -> None:
    for at in range(len(BODY) + 1):
        assert read(BODY, at) == PARTS
    assert read(BODY, *range(1, len(BODY))) == PARTS
    assert list(parts_of(TYPE, BODY)) == PARTS


NAMES = st.text(st.characters(exclude_categories=["C"]), max_size=8)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=5), st.data())
def test_any_form_may_be_cut_anywhere(contents: list[tuple[str, bytes]], data: Any) -> None:
    body, content_type = encoded(contents)
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=5).map(sorted))
    reader = FormReader(content_type)
    heads, contents_read = [], []
    for start, end in pairwise([0, *places, len(body)]):
        for each in reader.feed(body[start:end]):
            if isinstance(each, Part):
                heads.append(each)
                contents_read.append(b"")
            else:
                contents_read[-1] += each
    reader.end()
    assert [head.filename for head in heads] == ["f"] * len(contents)
    assert contents_read == [content for _, content in contents]


def encoded(contents: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    """As httpx writes it."""
    files = [(name or "x", ("f", content)) for name, content in contents]
    if not files:
        return form(), TYPE
    request = httpx.Request("POST", "http://127.0.0.1/", files=files)
    return request.read(), request.headers["content-type"]


def test_a_head_is_told_before_its_content_has_come() -> None:
    reader = FormReader(TYPE)
    body = part('name="file"; filename="a"', b"abcdef")
    assert reader.feed(body[:-6]) == [Part("file", "a"), b"ab"]
    assert reader.feed(body[-6:-2]) == [b"cdef"]


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ("name=file; filename=a.png", "file", "a.png"),
        ('name="file"; filename="a%22b.png"', "file", "a%22b.png"),
        ('name="été"; filename="été.png"', "été", "été.png"),
        ("name=\"file\"; filename*=utf-8''a.png", "file", ""),
        ('name="file"; filename="a.png"; filename*=utf-8\'\'b.png', "file", "a.png"),
        ('NAME="file"; FileName="a.png"', "file", "a.png"),
        ('name="images[]"', "images[]", None),
        ('name=""', "", None),
    ],
)
def test_names(disposition: str, name: str, filename: str | None) -> None:
    (found,) = parts_of(TYPE, form(part(disposition)))
    assert (found.name, found.filename) == (name, filename)


def test_a_form_inside_of_a_form_is_content() -> None:
    inner = b"--in\r\nContent-Disposition: file; filename=a\r\n\r\nx\r\n--in--"
    more = "Content-Type: multipart/mixed; boundary=in\r\n"
    (found,) = parts_of(TYPE, form(part('name="files"', inner, more)))
    assert (found.media_type, found.content) == ("multipart/mixed", inner)


@pytest.mark.parametrize(
    ("disposition", "more", "says"),
    [
        ('name="prompt"', "Content-Transfer-Encoding: base64\r\n", "transfer encoding"),
        ('name="f"; filename="a"', "Content-Transfer-Encoding: base64\r\n", "transfer encoding"),
        ('name="prompt"', "Content-Transfer-Encoding: quoted-printable\r\n", "transfer encoding"),
        ('name="prompt"', "Content-Type: text/plain; charset=iso-8859-1\r\n", "another charset"),
        ('name="prompt"', "Content-Type: text/plain; charset=UTF-16\r\n", "another charset"),
    ],
)
def test_what_is_written_otherwise_is_refused(disposition: str, more: str, says: str) -> None:
    with pytest.raises(FormError, match=says):
        parts_of(TYPE, form(part(disposition, more=more)))


@pytest.mark.parametrize(
    ("disposition", "more"),
    [
        ('name="prompt"', "Content-Type: text/plain; charset=UTF-8\r\n"),
        ('name="prompt"', "Content-Transfer-Encoding: 8bit\r\n"),
        ('name="f"; filename="a"', "Content-Transfer-Encoding: Binary\r\n"),
        ('name="f"; filename="a"', "Content-Type: text/plain; charset=iso-8859-1\r\n"),
    ],
)
def test_what_is_written_plainly_is_read(disposition: str, more: str) -> None:
    (found,) = parts_of(TYPE, form(part(disposition, more=more)))
    assert found.content == b"x"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "cut short"),
        (BODY[:-4], "cut short"),
        (BODY[:40], "cut short"),
        (BODY.replace(b"frontier", b"elsewhere"), "cut short"),
        (b"x" * 9000, "no part begins"),
        (form(part('name="a"')).replace(b"\r\n", b"\n"), "expected CRLF or --"),
        (form(part('name="a"'))[:-14] + b"\n--frontier--", "got LF"),
        (BODY + BODY, "directly after the closing boundary|occurs again"),
        (form(*[part('name="a"')] * (MAX_PARTS + 1)), "more than 1000 parts"),
        (form(part('name="a"', more="X: " + "y" * 17_000 + "\r\n")), "longer than 16384 bytes"),
        (form(b"--frontier\r\nContent-Type: text/plain\r\n\r\nx\r\n"), "Content-Disposition"),
    ],
)
def test_a_form_that_is_not_one_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(FormError, match=says):
        parts_of(TYPE, body)
    with pytest.raises(FormError, match=says):
        read(body, *range(7, len(body), 7))


@pytest.mark.parametrize(
    "content_type", ["", "multipart/form-data", "multipart/mixed; boundary=frontier"]
)
def test_a_content_type_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(FormError, match="content-type: expected"):
        parts_of(content_type, BODY)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client says so of videos
def test_a_video_as_the_official_client_asks_for_it() -> None:
    seen: list[tuple[str, bytes]] = []

    def keep(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["content-type"], request.read()))
        return httpx.Response(200, json={"id": "video_1"})

    http: Any = httpx.Client(transport=httpx.MockTransport(keep))
    with http:
        client = openai.OpenAI(api_key="-", base_url="http://127.0.0.1/v1", http_client=http)
        client.videos.create(
            prompt="été",
            model="m",
            input_reference=("a.png", b"\x89PNG\r\n"),
            extra_body={"seed": 7, "shots": {"a": "b"}},
        )
    (found,) = seen
    assert {each.name: each for each in parts_of(*found)} == {
        "prompt": Part("prompt", None, "", "été".encode()),
        "model": Part("model", None, "", b"m"),
        "seed": Part("seed", None, "", b"7"),
        "shots[a]": Part("shots[a]", None, "", b"b"),
        "input_reference": Part("input_reference", "a.png", "image/png", b"\x89PNG\r\n"),
    }
