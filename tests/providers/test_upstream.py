"""What all stand-ins share: how bytes leave, and what is recorded."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import brotli
import pytest

from tests import providers
from tests.providers import Turn
from tests.providers.openai_api import OpenAI
from tests.providers.upstream import Encoding

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**CHAT, "stream": True}


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAI]:
    async with providers.openai() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": "Bearer k"}
    async with aiohttp.ClientSession(headers=headers, auto_decompress=False) as made:
        yield made


def _ask(session: aiohttp.ClientSession, upstream: OpenAI, body: Any) -> Any:
    return session.post(upstream.url + "/v1/chat/completions?a=b%20c", json=body)


@pytest.mark.parametrize("body", [CHAT, STREAM])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate", "br"])
async def test_encodings(
    upstream: OpenAI, session: aiohttp.ClientSession, body: Any, encoding: Encoding
) -> None:
    upstream.script(text="One two.", encoding=encoding)
    async with _ask(session, upstream, body) as response:
        raw = await response.read()
        assert response.headers.get("Content-Encoding", "identity") == encoding
    decode: dict[str, Any] = {
        "identity": bytes,
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "br": brotli.decompress,
    }
    assert b"One" in decode[encoding](raw)


async def test_pieces(upstream: OpenAI, session: aiohttp.ClientSession) -> None:
    upstream.script(piece=1, delay=0.0001)
    async with _ask(session, upstream, CHAT) as response:
        chunks = [chunk async for chunk, _ in response.content.iter_chunks()]
        assert len(chunks) > 1
        assert b"".join(chunks).endswith(b"}")


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_cut_answer(upstream: OpenAI, session: aiohttp.ClientSession, body: Any) -> None:
    upstream.script(cut=30)
    with pytest.raises(aiohttp.ClientPayloadError):
        async with _ask(session, upstream, body) as response:
            await response.read()
    assert upstream.failures == []


@pytest.mark.parametrize("hold_after", [0, 1])
async def test_a_client_that_leaves_is_seen(
    upstream: OpenAI, session: aiohttp.ClientSession, hold_after: int
) -> None:
    upstream.script(hold=asyncio.Event(), hold_after=hold_after)
    asking = asyncio.create_task(_whole(session, upstream, STREAM))
    await upstream.wait_for(lambda: len(upstream.requests) == 1)
    asking.cancel()
    await upstream.wait_for(lambda: upstream.disconnects == 1)


async def _whole(session: aiohttp.ClientSession, upstream: OpenAI, body: Any) -> bytes:
    async with _ask(session, upstream, body) as response:
        return bytes(await response.read())


async def test_a_held_answer_goes_on(upstream: OpenAI, session: aiohttp.ClientSession) -> None:
    held = asyncio.Event()
    upstream.script(text="One two.", hold=held, hold_after=2)
    async with _ask(session, upstream, STREAM) as response:
        await response.content.readuntil(b"One")
        held.set()
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
    assert upstream.disconnects == 0


async def test_a_body_and_headers_of_ones_own(
    upstream: OpenAI, session: aiohttp.ClientSession
) -> None:
    upstream.script(status=502, body=b"<html>", headers={"Content-Type": "text/html"})
    async with _ask(session, upstream, STREAM) as response:
        assert (response.status, response.content_type) == (502, "text/html")
        assert await response.read() == b"<html>"


async def test_turns_are_taken_in_order_and_the_last_is_kept(
    upstream: OpenAI, session: aiohttp.ClientSession
) -> None:
    upstream.script(Turn(status=503), Turn(text="Two."))
    statuses = []
    for _ in range(3):
        async with _ask(session, upstream, CHAT) as response:
            statuses.append(response.status)
    assert statuses == [503, 200, 200]


async def test_requests_are_recorded(upstream: OpenAI, session: aiohttp.ClientSession) -> None:
    await _whole(session, upstream, CHAT)
    (request,) = upstream.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert (request.query, request.params) == ("a=b%20c", {"a": "b c"})
    assert request.headers["authorization"] == "Bearer k"
    assert request.json == CHAT


async def test_a_failure_is_scripted_only_for_a_right_request(
    upstream: OpenAI, session: aiohttp.ClientSession
) -> None:
    upstream.script(status=503)
    async with _ask(session, upstream, {**CHAT, "x": 1}) as response:
        assert response.status == 400
    assert "x: Extra inputs" in upstream.failures[0]
    async with _ask(session, upstream, [CHAT]) as response:
        assert response.status == 400
    async with session.get(upstream.url + "/v1/chat/completions") as response:
        assert response.status == 405
