"""Converted answers in the relay: how much of them it holds, and large conversions."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import time
from functools import cache
from typing import Any

import orjson
import pytest

from tests.integration.known_text_vendors import VENDORS, Vendor
from tests.providers import Turn
from tests.relays import running
from tests.unit.exchange.known_text_exchange import Exchange
from tests.unit.relay.clients import Answer, client
from tests.unit.relay.upstreams import SSE, Connection, Upstream, always, chunk
from tests.unit.relay.upstreams import answer as answer_of

Json = dict[str, Any]

HELLO: Json = {"messages": [{"role": "user", "content": "hi"}]}
STREAM: Json = {**HELLO, "stream": True}
MB = 1 << 20

_log = logging.getLogger(__name__)


def frames(vendor: Vendor, turn: Turn) -> list[bytes]:
    """A stream of this vendor's, event by event."""
    found = Exchange(vendor, STREAM).judged(vendor, turn).frames
    assert found is not None
    return list(found)


async def test_a_slow_client_slows_the_reading_of_a_converted_stream() -> None:
    """What the client does not read stays with the provider: the sockets' buffers are full, and
    the relay holds little. The provider would send 64 MB."""
    vendor = VENDORS["anthropic"]
    start, opened, delta, *_ = frames(vendor, Turn(text="x" * 1000))
    sent = 0
    most = 64 * MB // len(delta)
    blocked, stopped = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(SSE + chunk(start) + chunk(opened))
        for _ in range(most):
            connection.writer.write(chunk(delta))
            try:
                async with asyncio.timeout(0.5):
                    await connection.writer.drain()
            except TimeoutError:
                blocked.set()
                await stopped.wait()
                return
            sent += len(delta)

    async with (
        Upstream(script) as upstream,
        running(vendor.config(upstream.url(""))) as relay,
        client(relay, limit=1 << 16) as slow,
    ):
        await slow.ask(body=orjson.dumps(STREAM))
        status, _ = await slow.answer_head()
        assert status == 200
        async with asyncio.timeout(20):
            await blocked.wait()
        assert sent < 24 * MB
        stopped.set()


@pytest.mark.parametrize("name", ["anthropic", "gemini", "bedrock", "openai"])
async def test_a_converted_stream_is_complete_however_slowly_it_is_read(name: str) -> None:
    """Nothing is lost or doubled where writing has to wait."""
    vendor, llm_format = VENDORS[name], "openai" if name != "openai" else "anthropic"
    text = " ".join(f"word-{number}" for number in range(3000))
    async with vendor.stand_in() as upstream:
        upstream.script(text=text)
        config = vendor.config(upstream.url, llm_format=llm_format)
        async with running(config) as relay, client(relay, limit=1 << 12) as slow:
            body = orjson.dumps({**STREAM, "max_tokens": 9})
            await slow.ask(target="/v1/messages", body=body)
            answer = await slow.answer()
    assert answer.complete
    assert spoken(answer.body) == text


def spoken(body: bytes) -> str:
    """The text of a stream in OpenAI's or Anthropic's format."""
    lines = (line[6:] for line in body.split(b"\n") if line.startswith(b"data: {"))
    events = map(orjson.loads, lines)
    return "".join(_text(event) for event in events)


def _text(event: Json) -> str:
    choices = event.get("choices")
    delta: Json = choices[0]["delta"] if choices else event.get("delta", {})
    return delta.get("content") or delta.get("text") or ""


@cache
def image() -> str:
    """20 MB of base64."""
    return base64.b64encode(os.urandom(15 * MB)).decode()


async def timed(vendor: Vendor, whole: bytes, body: bytes) -> tuple[Upstream, Answer]:
    """One request of an OpenAI client that the vendor answers with `whole`."""
    async with (
        Upstream(always(answer_of(whole))) as upstream,
        running(vendor.config(upstream.url(""))) as relay,
        client(relay) as asking,
    ):
        since = time.perf_counter()
        await asking.ask(body=body)
        answer = await asking.answer()
        took = (time.perf_counter() - since) * 1000
        _log.info("%s: %.0f ms for %d bytes", vendor.provider, took, len(body) + len(whole))
    return upstream, answer


@pytest.mark.parametrize("name", ["anthropic", "gemini", "bedrock"])
async def test_an_image_of_20_mb_is_converted(name: str) -> None:
    """Latency collapsed with such requests elsewhere (BerriAI/litellm#13546)."""
    vendor = VENDORS[name]
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image()}"}}
    content = [{"type": "text", "text": "What is this?"}, part]
    body = orjson.dumps({"messages": [{"role": "user", "content": content}]})
    whole = Exchange(vendor, HELLO).judged(vendor).body
    upstream, answer = await timed(vendor, whole, body)
    assert answer.status == 200
    sent = upstream.received[0].body
    assert image().encode() in sent
    assert len(sent) < len(body) + 1000


@pytest.mark.parametrize("name", ["anthropic", "gemini", "bedrock", "cohere", "ollama"])
async def test_an_answer_of_20_mb_is_converted(name: str) -> None:
    """In one piece: it has to be held, once."""
    vendor, text = VENDORS[name], "a" * (20 * MB)
    reply = Exchange(vendor, HELLO).judged(vendor, Turn(text="@@"))
    whole = reply.body.replace(b"@@", text.encode())
    _, answer = await timed(vendor, whole, orjson.dumps(HELLO))
    assert answer.status == 200
    assert orjson.loads(answer.body)["choices"][0]["message"]["content"] == text
