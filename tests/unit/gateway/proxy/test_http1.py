"""HTTP/1.1 messages: what is understood, and what is refused because two readers could differ."""

from __future__ import annotations

import asyncio

import pytest
from typing_extensions import override

from kong_ai_proxy.gateway import http1
from kong_ai_proxy.gateway.stream import Stream


class _Transport(asyncio.Transport):
    """Takes no part: the test feeds the stream itself."""

    @override
    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    @override
    def is_closing(self) -> bool:
        return False

    @override
    def pause_reading(self) -> None:
        pass

    @override
    def resume_reading(self) -> None:
        pass


def _stream(*parts: bytes, end: bool = True) -> Stream:
    stream = Stream()
    stream.connection_made(_Transport())
    for part in parts:
        stream.data_received(part)
    if end:
        stream.eof_received()
    return stream


async def _read_all(reader: http1.BodyReader) -> bytes:
    body = b""
    while piece := await reader.read():
        body += piece
    return body


_REQUEST = b"\r\nPOST /a?b HTTP/1.1\r\nHost: h\r\nX-Empty:\r\nX: \t y \r\n\r\nrest"


async def test_a_head_cut_at_any_byte() -> None:
    for cut in range(len(_REQUEST)):
        stream = _stream(_REQUEST[:cut], _REQUEST[cut:])
        head = http1.parse_request(await http1.read_head(stream))
        assert (head.method, head.target, head.version) == ("POST", b"/a?b", 1.1)
        assert head.headers == [(b"Host", b"h"), (b"X-Empty", b""), (b"X", b"y")]
        assert await stream.read() == b"rest"


async def test_a_head_cut_off_is_the_end_of_the_connection() -> None:
    with pytest.raises(EOFError):
        await http1.read_head(_stream(_REQUEST[:20]))
    assert await http1.read_head(_stream(b"\r\n")) == b""


def test_names_that_nginx_ignores_are_left_out() -> None:
    head = http1.parse_request(b"GET / HTTP/1.1\r\nHost: h\r\nx.y: 1\r\nx_y: 2\r\n")
    assert head.headers == [(b"Host", b"h"), (b"x_y", b"2")]


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://other.example/p?q", b"/p?q", b"other.example"),
        (b"HTTP://other.example", b"/", b"other.example"),
        (b"http://other.example?q", b"/?q", b"other.example"),
    ],
)
def test_an_absolute_target(target: bytes, path: bytes, host: bytes) -> None:
    head = http1.parse_request(b"GET %b HTTP/1.1\r\nHost: h\r\n" % target)
    assert (head.target, http1.values(head.headers, b"host")) == (path, [host])


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 99 x", b"HTTP/1.1 2000 x", b"HTTP/2 200", b"ICY 200 OK", b""]
)
def test_a_status_line_that_is_none(line: bytes) -> None:
    with pytest.raises(http1.BadMessage):
        http1.parse_response(line + b"\r\n")


def test_a_status_line_without_a_reason() -> None:
    assert http1.parse_response(b"HTTP/1.0 200\r\n").reason == b""


_CHUNKED = b"3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n"


async def test_a_chunked_body_cut_at_any_byte() -> None:
    for cut in range(len(_CHUNKED)):
        stream = _stream(_CHUNKED[:cut], _CHUNKED[cut:] + b"next")
        reader = http1.BodyReader(stream, http1.Framing(chunked=True))
        assert await _read_all(reader) == b"abc0123456789"
        assert reader.complete
        assert await stream.read() == b"next"


async def test_a_chunked_body_that_ends_early() -> None:
    for cut in range(len(_CHUNKED)):
        reader = http1.BodyReader(_stream(_CHUNKED[:cut]), http1.Framing(chunked=True))
        with pytest.raises(EOFError):
            await _read_all(reader)
        assert not reader.complete


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n",
        b"-1\r\n",
        b"\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"1" * 2000,
        b"0\r\n" + b"X: y\r\n" * 3000,
    ],
)
async def test_broken_chunks(body: bytes) -> None:
    reader = http1.BodyReader(_stream(body), http1.Framing(chunked=True))
    with pytest.raises(http1.BadMessage):
        await _read_all(reader)


async def test_a_body_of_known_length_that_ends_early() -> None:
    reader = http1.BodyReader(_stream(b"abc"), http1.Framing(length=4))
    with pytest.raises(EOFError):
        await _read_all(reader)


async def test_a_body_to_the_end_of_the_connection() -> None:
    reader = http1.BodyReader(_stream(b"a", b"b"), http1.Framing())
    assert await _read_all(reader) == b"ab"
    assert reader.complete


def test_a_line_break_in_a_value_does_not_begin_a_header() -> None:
    rendered = http1.render_headers([(b"X", b"a\r\nEvil: 1"), (b"Y\r\nEvil", b"1")])
    assert rendered == b"X: a  Evil: 1\r\nY  Evil: 1\r\n\r\n"


async def test_reading_from_a_lost_connection_raises() -> None:
    stream = _stream(b"", end=False)
    stream.connection_lost(ConnectionResetError(104, "reset"))
    with pytest.raises(ConnectionResetError):
        await stream.read()


async def test_what_came_before_the_end_can_still_be_read() -> None:
    stream = _stream(b"last")
    stream.connection_lost(None)
    assert await stream.read() == b"last"
    assert await stream.read() == b""
    assert not stream.usable
