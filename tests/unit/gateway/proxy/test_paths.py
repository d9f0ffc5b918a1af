"""Paths, with values that a Kong 3.9.3 gave for the same requests."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.gateway import paths


@pytest.mark.parametrize(
    ("sent", "normal"),
    [
        ("/a/b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/%2e%2E/b", "/b"),
        ("/../../a", "/a"),
        ("/a//b///c", "/a/b/c"),
        ("/a/./b/.", "/a/b/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.../b", "/a/.../b"),
        ("/a%2fb", "/a%2Fb"),
        ("/..%2fb", "/..%2Fb"),
        ("/%61%7E%20", "/a~ "),
        ("/%C3%A9", "/é"),
        ("/%E9", "/\udce9"),
        ("/a%25b", "/a%25b"),
        ("/", "/"),
    ],
)
def test_normalize(sent: str, normal: str) -> None:
    assert paths.normalize(sent) == normal


@pytest.mark.parametrize(
    ("normal", "sent"),
    [
        ("/a b", "/a%20b"),
        ("/é\udce9", "/%C3%A9%E9"),
        ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/[a];b=c:@!$&'()*+,~-._", "/[a];b=c:@!$&'()*+,~-._"),
        ("/%2F", "/%2F"),
    ],
)
def test_escape(normal: str, sent: str) -> None:
    assert paths.escape(normal) == sent


_SEGMENT = st.text(string.ascii_letters + string.digits + "-_~!$&'()*+,;=:@", min_size=1)


@given(st.lists(_SEGMENT, min_size=1))
def test_a_plain_path_comes_out_as_it_went_in(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    assert paths.escape(paths.normalize(path)) == path


@given(st.binary(max_size=40))
def test_no_encoding_of_dots_and_slashes_leads_above_the_root(raw: bytes) -> None:
    path = "/" + "".join(f"%{byte:02x}" for byte in raw) + "/%2e%2e/../%2E./x"
    normal = paths.normalize(path)
    assert ".." not in normal.split("/")
    assert paths.normalize(normal.replace("%", "%25")).startswith("/")


@given(st.text(st.characters(codec="utf-8", exclude_characters="%")))
def test_what_escape_writes_normalize_reads_back(tail: str) -> None:
    path = paths.normalize("/" + tail)
    assert paths.normalize(paths.escape(path)) == path


@given(st.binary())
def test_text_loses_no_byte(data: bytes) -> None:
    assert paths.wire(paths.text(data)) == data


@pytest.mark.parametrize(
    ("base", "path", "remainder", "kept", "stripped"),
    [
        ("/base", "/cap/x", "/x", "/base/cap/x", "/base/x"),
        ("/base", "/cap", "", "/base/cap", "/base"),
        ("/base", "/cap/", "", "/base/cap/", "/base/"),
        ("/base", "/capx", "x", "/base/capx", "/base/x"),
        ("/base", "/", "", "/base", "/base"),
        ("/base/", "/cap", "", "/base/cap", "/base"),
        ("/base/", "/cap/", "", "/base/cap/", "/base/"),
        ("/base/", "/cap/x", "/x", "/base/cap/x", "/base/x"),
        ("/base/", "/capx", "x", "/base/capx", "/base/x"),
        ("/", "/cap", "", "/cap", "/"),
        ("/", "/cap/", "", "/cap/", "/"),
        ("/", "/cap/x", "/x", "/cap/x", "/x"),
    ],
)
def test_join(base: str, path: str, remainder: str, kept: str, stripped: str) -> None:
    assert paths.join(base, path, remainder, strip=False) == kept
    assert paths.join(base, path, remainder, strip=True) == stripped


@pytest.mark.parametrize(
    ("postfix", "kept"),
    [(".", ""), ("..", ""), ("./x", "x"), ("../x", "x"), (".x", ".x"), ("/../x", "/../x")],
)
def test_a_remainder_does_not_begin_with_a_dot_segment(postfix: str, kept: str) -> None:
    assert paths.sanitize_postfix(postfix) == kept
