"""What the relay tells the shim at the end of an answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.relays import MARKER, RunningRelay, running
from tests.unit.relay.clients import FILES, JSON, Answer, Client, client, target
from tests.unit.relay.upstreams import (
    CHUNKED,
    LAST_CHUNK,
    SSE,
    Connection,
    Script,
    Upstream,
    always,
    answer,
    chunk,
    once,
)

CHAT = json.dumps(
    {"model": "gpt-4o-2024", "choices": [{"message": {"content": "hi"}}],
     "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
).encode()  # fmt: skip
LOGGED = {"logging": {"log_statistics": True, "log_payloads": False}}
FRAME = "x-kong-ai-proxy-frame"
WITH_MARKER = {**JSON, "x-kong-ai-proxy-marker": MARKER}


async def answered(
    script: Script, headers: dict[str, str] = WITH_MARKER, more: dict[str, Any] = LOGGED
) -> Answer:
    async with Upstream(script) as upstream, running(target(upstream.url(), **more)) as relay:
        return await asked(relay, headers)


async def asked(relay: RunningRelay, headers: dict[str, str]) -> Answer:
    async with client(relay) as one:
        await one.ask(headers=headers)
        return await one.answer()


def cut(body: bytes) -> tuple[bytes, dict[str, Any]]:
    """The body without its frame, and what the frame says."""
    at = body.rindex(b"\x1e" + MARKER.encode())
    head, _, fields = body[at:].partition(b"\n")
    assert int(head.rpartition(b" ")[2], 16) == len(fields)
    return body[:at], json.loads(fields)


async def test_an_answer_ends_with_a_frame_where_the_shim_asked_for_it() -> None:
    found = await answered(always(answer(CHAT)))
    body, fields = cut(found.body)
    assert (found.status, body) == (200, CHAT)
    assert found.headers[FRAME] == str(len(CHAT))
    assert fields["ai.proxy.usage"]["prompt_tokens"] == 3
    assert fields["ai.proxy.meta"]["response_model"] == "gpt-4o-2024"


@pytest.mark.parametrize(
    "raw",
    [
        CHUNKED + chunk(CHAT) + LAST_CHUNK,
        SSE + chunk(b'data: {"choices":[]}\n\ndata: [DONE]\n\n') + LAST_CHUNK,
    ],
)
async def test_the_length_is_told_only_where_it_is_known(raw: bytes) -> None:
    found = await answered(always(raw))
    cut(found.body)
    assert (found.headers[FRAME], found.complete) == ("chunked", True)


@pytest.mark.parametrize("marker", [None, "", "short", MARKER.upper(), MARKER + "0"])
async def test_there_is_no_frame_without_a_marker(marker: str | None) -> None:
    headers = JSON if marker is None else {**JSON, "x-kong-ai-proxy-marker": marker}
    found = await answered(always(answer(CHAT)), headers)
    assert (found.body, found.headers["content-length"]) == (CHAT, str(len(CHAT)))
    assert FRAME not in found.headers


async def test_there_is_no_frame_where_nothing_is_logged() -> None:
    found = await answered(always(answer(CHAT)), more={})
    assert found.body == CHAT
    assert FRAME not in found.headers


async def test_a_body_that_looks_like_a_frame_is_not_touched() -> None:
    likeness = b"\x1e" + MARKER.encode() + b' 00000002\n{}\x1e and "more"'
    found = await answered(always(answer(likeness)))
    assert cut(found.body)[0] == likeness
    found = await answered(always(answer(likeness)), JSON)
    assert found.body == likeness


async def test_a_provider_that_sends_the_header_itself_is_not_believed() -> None:
    raw = answer(CHAT, headers=f"{FRAME}: 1\r\nContent-Type: application/json\r\n")
    found = await answered(always(raw), JSON)
    assert FRAME not in found.headers
    assert (await answered(always(raw))).headers[FRAME] == str(len(CHAT))


async def test_errors_of_the_provider_carry_a_frame() -> None:
    found = await answered(always(answer(b'{"error":{}}', "429 Too Many Requests")))
    assert (found.status, cut(found.body)[0]) == (429, b'{"error":{}}')


async def test_a_provider_that_cannot_be_reached_is_told_with_a_frame() -> None:
    async with Upstream(always()) as upstream:
        url = upstream.url()
    async with running(target(url, **LOGGED)) as relay:
        found = await asked(relay, WITH_MARKER)
    body, fields = cut(found.body)
    assert (found.status, json.loads(body)["error"]["message"]) == (
        502,
        "the provider cannot be reached",
    )
    assert fields["ai.proxy.meta"]["provider_name"] == "openai"


async def test_a_provider_that_is_late_is_told_with_a_frame() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.gone()

    async with Upstream(script) as upstream:
        own = {"targets": [target(upstream.url(), **LOGGED)], "balancer": {"read_timeout": 100}}
        async with running(own, "ai-proxy-advanced") as relay:
            found = await asked(relay, WITH_MARKER)
    assert found.status == 504
    cut(found.body)


async def test_a_refusal_before_any_attempt_has_no_frame() -> None:
    found = await answered(always(answer(CHAT)), {**WITH_MARKER, "content-type": "text/plain"})
    assert found.status == 415
    assert FRAME not in found.headers


@pytest.mark.parametrize("raw", [answer(CHAT)[:-9], CHUNKED + chunk(CHAT), SSE + chunk(b"data: ")])
async def test_the_frame_comes_before_an_abrupt_end(raw: bytes) -> None:
    found = await answered(once(raw))
    body, _ = cut(found.body)
    assert not found.complete
    assert found.status == 200
    assert body


@contextlib.asynccontextmanager
async def logged(raw: bytes, route_type: str) -> AsyncIterator[Client]:
    async with Upstream(always(raw)) as upstream:
        own = target(upstream.url("/v1/files"), route_type, **LOGGED)
        async with running(own) as relay, client(relay) as one:
            yield one


async def test_answers_without_a_body_have_no_frame() -> None:
    async with logged(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", FILES) as one:
        for _ in range(2):
            await one.ask("HEAD", "/v1/files/x", b"", WITH_MARKER)
            found = await one.answer("HEAD")
            assert (found.headers["content-length"], FRAME in found.headers) == ("5", False)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_a_status_without_a_body_has_no_frame(status: str) -> None:
    async with logged(f"HTTP/1.1 {status}\r\n\r\n".encode(), "llm/v1/chat") as one:
        for _ in range(2):
            await one.ask(headers=WITH_MARKER)
            found = await one.answer()
            assert (found.status, FRAME in found.headers) == (int(status[:3]), False)
            assert "transfer-encoding" not in found.headers
