"""The provider that fails as its script says, seen by a client that knows nothing of the relay."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import ssl
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from kong_ai_proxy.formats.anthropic import MESSAGES
from kong_ai_proxy.formats.bedrock import CONVERSE
from kong_ai_proxy.formats.codec import ChatProvider
from kong_ai_proxy.formats.deltas import Failed, TextPiece
from kong_ai_proxy.formats.gemini import GENERATE
from kong_ai_proxy.formats.openai.chat import CHAT
from kong_ai_proxy.formats.openai.responses import RESPONSES
from tests.faults import (
    CONTROL_CHARACTER,
    GARBAGE,
    Close,
    CloseAtOnce,
    Endless,
    ErrorEvent,
    Faulty,
    Good,
    HalfClose,
    Hang,
    PlainText,
    Refuse,
    Reset,
    Silent,
    Status,
    Step,
    TooShort,
    Trickle,
    Unanswered,
)
from tests.unit.relay import authorities

CODECS: dict[str, ChatProvider] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
    "/v1beta/models/x:streamGenerateContent": GENERATE,
    "/model/x/converse-stream": CONVERSE,
}


PATIENT = 20.0
QUIET = 0.1
"""Seconds after which a provider that is expected to be silent is."""


class Heard(NamedTuple):
    """All that came; `how` it ended."""

    data: bytes
    how: str

    @property
    def status(self) -> int:
        return int(self.data.split(b" ")[1])

    @property
    def body(self) -> bytes:
        """Without the framing of a chunked one."""
        head, _, rest = self.data.partition(b"\r\n\r\n")
        if b"chunked" not in head:
            return rest
        pieces = []
        while size := int(rest.partition(b"\r\n")[0], 16):
            rest = rest.partition(b"\r\n")[2]
            pieces.append(rest[:size])
            rest = rest[size + 2 :]
        return b"".join(pieces)


async def ask(
    provider: Faulty,
    path: str = "/v1/chat/completions",
    *,
    stream: bool = False,
    silent: int | None = None,
) -> Heard:
    """What a request brings until the connection ends; or, where silence is expected after so many
    bytes, until nothing has come for a while."""
    body = orjson.dumps({"model": "m", "stream": stream})
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    wait = QUIET if silent == 0 else PATIENT
    try:
        async with asyncio.timeout(wait):
            reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
    except TimeoutError:
        return Heard(b"", "unanswered")
    except ConnectionRefusedError:
        return Heard(b"", "refused")
    writer.write(head + body)
    data, how = b"", "closed"
    try:
        while True:
            async with asyncio.timeout(wait):
                piece = await reader.read(4096)
            if not piece:
                break
            data += piece
            wait = QUIET if silent is not None and len(data) >= silent else PATIENT
    except TimeoutError:
        how = "silent"
    except ConnectionResetError:
        how = "reset"
    finally:
        writer.transport.abort()
    return Heard(data, how)


@pytest.mark.parametrize(
    ("step", "how", "received"),
    [
        (Refuse(), "refused", 0),
        (Unanswered(), "unanswered", 0),
        (CloseAtOnce(reset=True), "reset", 0),
        (Silent(), "silent", 0),
        (Close(), "closed", 1),
        (Reset(), "reset", 1),
        (Hang(), "silent", 1),
        (HalfClose(), "closed", 1),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Step) else str(each),
)
async def test_what_comes_before_any_answer(step: Step, how: str, received: int) -> None:
    async with Faulty(step) as provider:
        is_quiet = how in ("silent", "unanswered")
        assert await ask(provider, silent=0 if is_quiet else None) == (b"", how)
        async with asyncio.timeout(PATIENT):
            while len(provider.received) < received:
                await asyncio.sleep(0.001)


async def test_a_connection_that_is_closed_at_once() -> None:
    async with Faulty(CloseAtOnce()) as provider:
        heard = await ask(provider)
        assert heard.data == b""
        assert heard.how in ("closed", "reset")  # what it was sent was not read
        assert provider.received == []


async def test_the_steps_are_taken_in_order_and_the_last_one_again() -> None:
    async with Faulty(Status(503), CloseAtOnce(), Good("hello")) as provider:
        heard = [await ask(provider) for _ in range(4)]
        assert heard[0].status == 503
        assert heard[1].data == b""
        assert [each.status for each in heard[2:]] == [200, 200]
        assert len(provider.received) == 3
        assert provider.connections == 4


async def test_it_becomes_another_and_keeps_its_port() -> None:
    async with Faulty(Good()) as provider:
        for _ in range(2):
            assert (await ask(provider)).status == 200
            await provider.become(Refuse())
            assert (await ask(provider)).how == "refused"
            await provider.become(Unanswered())
            assert (await ask(provider, silent=0)).how == "unanswered"
            await provider.become(Good())
            assert provider.received == []


async def test_an_error_with_its_time_and_coding() -> None:
    async with Faulty(Status(429, retry_after="7", encoding="gzip")) as provider:
        heard = await ask(provider)
    assert b"\r\nRetry-After: 7\r\n" in heard.data
    told = orjson.loads(gzip.decompress(heard.body))
    assert told["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("step", [Reset, Close, Hang])
async def test_an_answer_stops_where_it_is_told_to(step: type[Reset | Close | Hang]) -> None:
    async with Faulty(Good()) as provider:
        head, _, _ = (await ask(provider, stream=True)).data.partition(b"\r\n\r\n")
        size = len(head) + 4
        await provider.become(step(head=9))
        assert (await ask(provider, stream=True, silent=9)).data == head[:9]
        await provider.become(step(body=5))
        assert len((await ask(provider, stream=True, silent=size + 5)).data) == size + 5
        await provider.become(step(Good("one two"), words=1))
        data = (await ask(provider, stream=True, silent=size + 300)).data
        assert b'"one"' in data
        assert data.endswith(b"\n\n\r\n")


async def test_a_body_shorter_than_its_length() -> None:
    async with Faulty(TooShort(10)) as provider:
        head, _, body = (await ask(provider)).data.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % (len(body) + 10) in head


async def test_bodies_that_take_their_time() -> None:
    async with Faulty(Trickle(Status(500, body=b"slow"), every=0.001)) as provider:
        assert (await ask(provider)).body == b"slow"
        await provider.become(Endless(500, every=0.001))
        heard = asyncio.create_task(ask(provider))
        await asyncio.wait([heard], timeout=QUIET)
        assert not heard.done()
        heard.cancel()
        await asyncio.wait([heard])


async def test_heads_that_make_no_sense() -> None:
    async with Faulty(GARBAGE, CONTROL_CHARACTER, PlainText()) as provider:
        assert (await ask(provider)).data == b"hello\r\n\r\n"
        assert b"\x01" in (await ask(provider)).data


@pytest.mark.parametrize("path", CODECS)
async def test_a_good_stream_is_read_by_the_vendors_codec(path: str) -> None:
    async with Faulty(Good("hello you")) as provider:
        reader = CODECS[path].reader()
        deltas = [*reader.feed((await ask(provider, path, stream=True)).body), *reader.end()]
    assert "".join(each.text for each in deltas if isinstance(each, TextPiece)) == "hello you"
    assert not any(isinstance(each, Failed) for each in deltas)


@pytest.mark.parametrize("path", CODECS)
async def test_a_good_answer_is_read_by_the_vendors_codec(path: str) -> None:
    one_shot = path.replace("streamGenerate", "generate").replace("-stream", "")
    async with Faulty(Good("hello you")) as provider:
        deltas = CODECS[path].parse_answer(orjson.loads((await ask(provider, one_shot)).body))
    assert "".join(each.text for each in deltas if isinstance(each, TextPiece)) == "hello you"


@pytest.mark.parametrize("status", [400, 429, 500, 503, 529])
@pytest.mark.parametrize("path", CODECS)
async def test_an_error_in_a_stream_is_read_by_the_vendors_codec(path: str, status: int) -> None:
    async with Faulty(ErrorEvent(status, message="too much")) as provider:
        reader = CODECS[path].reader()
        deltas = [*reader.feed((await ask(provider, path, stream=True)).body), *reader.end()]
    failed = deltas[-1]
    assert isinstance(failed, Failed)
    assert failed.error.message == "too much"
    assert failed.error.status in (status, 529 if status == 503 else 503 if status == 529 else 0)
    assert not any(isinstance(each, TextPiece) for each in deltas)


@pytest.mark.parametrize("path", CODECS)
async def test_an_error_after_content(path: str) -> None:
    async with Faulty(ErrorEvent(500, after="so far")) as provider:
        reader = CODECS[path].reader()
        deltas = [*reader.feed((await ask(provider, path, stream=True)).body), *reader.end()]
    assert TextPiece("so far") in deltas
    assert isinstance(deltas[-1], Failed)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there")
async def test_tls(tmp_path: Path) -> None:
    authority = authorities.make(tmp_path)
    async with Faulty(Good(), tls=authority.server, scheme="https") as provider:
        assert provider.origin.startswith("https://localhost:")
        context = ssl.create_default_context(cafile=authority.ca_file)
        reader, writer = await asyncio.open_connection("localhost", provider.port, ssl=context)
        writer.write(b"GET /v1/files HTTP/1.1\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        writer.transport.abort()
