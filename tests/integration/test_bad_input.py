"""What is not a proper request gets its documented answer and never reaches the provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from tests.decks import config, deck, route
from tests.gateways import GatewayFactory, RunningGateway
from tests.recorder import Recorder

CHAT = {"messages": [{"role": "user", "content": "hello"}]}

WRONG_FOR_US = {
    "route_type": "llm/v1/chat",
    "model": {"provider": "openai"},
    "metadata": {"max_tokens": "many"},
}
"""Kong's schema cannot tell."""


@pytest.fixture
async def running(gateway: GatewayFactory, provider: Recorder) -> RunningGateway:
    url = provider.url("/v1/chat/completions")
    open_model = config(url, name=None)
    return await gateway(
        deck(
            route("/chat", config(url)),
            route("/open", open_model),
            route("/completions", config(url, "llm/v1/completions")),
            route("/embeddings", config(url, "llm/v1/embeddings")),
            route("/deny", config(url, response_streaming="deny")),
            route("/preserve", config(url, "preserve", None)),
            route("/metadata", {"targets": [WRONG_FOR_US]}, "ai-proxy-advanced"),
            route("/dotted", {**open_model, "auth": {"header_name": "x.key", "header_value": "s"}}),
        )
    )


async def post(
    running: RunningGateway, path: str, content: bytes | None, **more: Any
) -> httpx.Response:
    headers = {"content-type": "application/json", **more.pop("headers", {})}
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
        return await client.request(
            more.pop("method", "POST"), path, content=content, headers=headers, **more
        )


PROMPTS = "request body doesn't contain valid prompts"


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"hello", 400, f"{PROMPTS}: not valid JSON"),
        (b"", 400, f"{PROMPTS}: not valid JSON"),
        (b'{"messages":[{"role":"user","content":"\xff"}]}', 400, f"{PROMPTS}: not valid JSON"),
        (b'[{"role":"user"}]', 400, f"{PROMPTS}: expected a JSON object, got an array"),
        (b"{}", 400, f"{PROMPTS}: expected a non-empty array 'messages'"),
        (b'{"messages":' + b"[" * 1500 + b"]" * 1500 + b"}", 400, f"{PROMPTS}: not valid JSON"),
        (b'{"model":"gpt-4o","model":"x","messages":[1]}', 400, "'model' occurs twice"),
        (orjson.dumps({**CHAT, "model": "gpt-3"}), 400, "cannot use own model - must be: gpt-4o"),
        (orjson.dumps({**CHAT, "model": 7}), 400, "expected 'model' to be a string"),
        (orjson.dumps({"prompt": "hi"}), 400, "[llm/v1/completions] message format"),
        (orjson.dumps({**CHAT, "prompt": "hi"}), 400, "matches multiple LLM request formats"),
        (b'{"user":"' + b"x" * 1_100_000 + b'"}', 413, "Request body too large"),
    ],
    ids=lambda value: value[:30].decode("latin-1") if isinstance(value, bytes) else None,
)
async def test_a_body_that_is_no_chat_request(
    running: RunningGateway, provider: Recorder, content: bytes, status: int, says: str
) -> None:
    answer = await post(running, "/chat", content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert says in answer.json()["error"]["message"]
    assert provider.received == []


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ({"content-type": "text/plain"}, 415, "application/json"),
        ({"content-type": "multipart/form-data; boundary=x"}, 415, "application/json"),
        ({"content-encoding": "gzip"}, 415, "uncompressed"),
    ],
)
async def test_a_content_type_that_is_not_json(
    running: RunningGateway, provider: Recorder, headers: dict[str, str], status: int, says: str
) -> None:
    answer = await post(running, "/chat", orjson.dumps(CHAT), headers=headers)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]
    assert provider.received == []


async def test_a_chunked_body_over_the_limit(running: RunningGateway, provider: Recorder) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"user":"'
        for _ in range(20):
            yield b"x" * 65536
        yield b'"}'

    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(f"{running.url}/chat", content=chunks())
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        413,
        "Request body too large",
    )
    assert provider.received == []


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
async def test_a_request_without_a_body(
    running: RunningGateway, provider: Recorder, method: str
) -> None:
    answer = await post(running, "/chat", None, method=method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert provider.received == []


async def test_without_any_model(running: RunningGateway, provider: Recorder) -> None:
    answer = await post(running, "/open", orjson.dumps(CHAT))
    assert answer.status_code == 400
    assert "model parameter not found in request" in answer.json()["error"]["message"]
    assert provider.received == []


async def test_streaming_where_it_is_denied(running: RunningGateway, provider: Recorder) -> None:
    answer = await post(running, "/deny", orjson.dumps({**CHAT, "stream": True}))
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        400,
        "response streaming is not enabled for this LLM",
    )
    assert provider.received == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/metadata", "config.targets[0].metadata.max_tokens: expected an integer"),
        (
            "/dotted",
            "auth.header_name 'x.key': a name with a '.' cannot be kept out of Kong's logs",
        ),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(
    running: RunningGateway, provider: Recorder, path: str, says: str
) -> None:
    answer = await post(running, path, orjson.dumps({**CHAT, "model": "gpt-4o"}))
    assert answer.status_code == 500
    assert says in answer.json()["error"]["message"]
    assert provider.received == []


async def raw(running: RunningGateway, request: bytes, status: int = 200) -> bytes:
    """The answer to a request as bytes: all of it, or its head where the connection stays."""
    host, port = running.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        answer = reader.read() if status == 200 else reader.readuntil(b"\r\n\r\n")
        return await asyncio.wait_for(answer, 20)
    finally:
        writer.close()


async def test_header_and_query_bytes_that_are_not_utf8_pass_unchanged(
    running: RunningGateway, provider: Recorder
) -> None:
    body = orjson.dumps({**CHAT, "model": "gpt-4o"})
    answer = await raw(
        running,
        b"POST /chat?q=%%E9&r=\xe9 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nX-Name: caf\xe9\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
    )
    assert answer.startswith(b"HTTP/1.1 200")
    assert provider.last.header("x-name") == "caf\udce9"
    assert provider.last.target.startswith("/v1/chat/completions?q=%E9")


async def test_a_path_that_climbs_does_not_reach_the_provider(
    running: RunningGateway, provider: Recorder
) -> None:
    answer = await raw(
        running,
        b"GET /preserve/a%2f..%2f..%2fsecret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 400")
    assert provider.received == []


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Connection: close, content-length\r\n", 400),
        (b"Connection: close\r\nConnection: authorization\r\n", 400),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\n", 400),
        (b"Connection: close\r\nContent-Encoding: identity, gzip\r\n", 415),
    ],
)
async def test_a_head_that_would_change_what_the_provider_reads(
    running: RunningGateway, provider: Recorder, lines: bytes, status: int
) -> None:
    """Kong removes what `Connection` names after the plugins, the body's length included."""
    body = orjson.dumps({**CHAT, "model": "gpt-4o"})
    head = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    answer = await raw(
        running, head + lines + b"Content-Length: %d\r\n\r\n%b" % (len(body), body), status
    )
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert provider.received == []


async def test_too_many_headers(running: RunningGateway, provider: Recorder) -> None:
    lines = b"".join(b"h%d:1\r\n" % number for number in range(1001))
    body = orjson.dumps(CHAT)
    answer = await raw(
        running,
        b"POST /chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"%bContent-Length: %d\r\n\r\n%b" % (lines, len(body), body),
    )
    # nginx itself refuses so many with a 400 where its own limit is lower
    assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
    assert provider.received == []
