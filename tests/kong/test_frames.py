"""What the shim does with the relay's answers inside a real Kong, the relay's bytes being the
test's."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.decks import deck
from tests.gateways import GatewayError, chosen_kinds, wait_until
from tests.kong.scripted import (
    MARKER,
    TICKET,
    Log,
    ScriptedKong,
    ScriptedUpstream,
    chunk,
    frame,
    head,
    relayed,
)
from tests.recorder import Received

Json = dict[str, Any]
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
BODY = b'{"object":"chat.completion"}'
VALUES = {
    "ai.proxy.meta": {
        "plugin_id": "00000000-0000-0000-0000-000000000001",
        "provider_name": "openai",
        "request_model": "gpt-4o",
        "response_model": "gpt-4o-2024-08-06",
        "llm_latency": 12,
    },
    "ai.proxy.usage": {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {},
        "cost": 0.5,
    },
    "ai.proxy.payload": {"request": "{}", "response": None},
    "ai.proxy.tried_targets": [],
}
RECORDED = {
    "meta": VALUES["ai.proxy.meta"],
    "usage": VALUES["ai.proxy.usage"],
    "cache": {},
    "payload": {"request": "{}"},
    "tried_targets": [],
}


@pytest.fixture(scope="module")
def kong(request: pytest.FixtureRequest) -> Iterator[ScriptedKong]:
    """One Kong for all tests here; each loads its own routes."""
    if "installed" not in chosen_kinds(request.config.getoption("--gateway")):
        pytest.skip("the plugin server of these tests runs beside a Kong on this machine")
    started = ScriptedKong()
    try:
        started.start()
        wait_until(started.accepts, "the plugin server")
        yield started
    finally:
        started.stop()


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedUpstream]:
    """Plays the relay, or the provider where there is no ticket."""
    async with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


async def load(kong: ScriptedKong, *routes: Json, **top: Any) -> None:
    kong.begin()
    await kong.reload(deck(*routes, **top))


def pieces(*parts: bytes) -> bytes:
    """A whole chunked body."""
    return b"".join(map(chunk, (*parts, b"")))


def answering(
    *headers: str, status: str = "200 OK", body: bytes = BODY, announced: str | int | None = None
) -> Callable[[Received, asyncio.StreamWriter], Awaitable[None]]:
    """A script: the answer and its frame in one write."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        length = len(body) if announced is None else announced
        start = head(*headers, status=status, announced=length)
        writer.write(start + pieces(body + frame(request, VALUES)))

    return script


# ---- the log


@pytest.mark.parametrize("advanced", [False, True])
async def test_the_frame_becomes_the_logs_ai_proxy_and_the_client_sees_an_answer_without_it(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient, log: Log, advanced: bool
) -> None:
    relay.script = answering("Content-Type: application/json")
    ai_route = relayed("/chat", relay.url("/x"), advanced=advanced)
    ai_route["plugins"].append(log.plugin)
    await load(kong, ai_route)
    answer = await http.post(f"{kong.url}/chat", json=CHAT)
    assert (answer.status_code, answer.content) == (200, BODY)
    assert answer.headers["content-length"] == str(len(BODY))
    assert "transfer-encoding" not in answer.headers
    assert "x-kong-ai-proxy-frame" not in answer.headers
    record = await log.record()
    assert record["ai"]["proxy"] == RECORDED
    assert record["request"]["headers"][MARKER] == "REDACTED"
    marker = relay.last.header(MARKER)
    assert marker is not None
    assert len(marker) == 32
    assert marker not in json.dumps(record)


async def test_http_log_sends_it_with_its_empty_array(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    relay.script = answering()
    async with ScriptedUpstream() as collector:
        received = asyncio.Event()

        async def collect(_: Received, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            received.set()

        collector.script = collect
        ai_route = relayed("/chat", relay.url("/x"))
        ai_route["plugins"].append(
            {"name": "http-log", "config": {"http_endpoint": collector.url("/log")}}
        )
        await load(kong, ai_route)
        assert (await http.post(f"{kong.url}/chat", json=CHAT)).content == BODY
        async with asyncio.timeout(10):
            await received.wait()
    assert json.loads(collector.last.body)["ai"]["proxy"] == RECORDED


async def test_prometheus_counts_requests_tokens_cost_and_latency(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    relay.script = answering()
    ai_route = relayed("/chat", relay.url("/x"))
    ai_route["plugins"].append({"name": "prometheus", "config": {"ai_metrics": True}})
    try:
        await load(kong, ai_route)
    except GatewayError as error:
        if "unknown field" not in str(error):
            raise
        pytest.skip("the prometheus plugin before Kong 3.8 knows no ai_metrics")
    for _ in range(2):
        await http.post(f"{kong.url}/chat", json=CHAT)
    async with asyncio.timeout(15):  # it counts on a timer
        while 'token_type="total_tokens"' not in (metrics := await metrics_of(kong, http)):
            await asyncio.sleep(0.1)
    values = sorted(
        (line.partition("{")[0], line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if 'ai_provider="openai",ai_model="gpt-4o"' in line and "bucket" not in line
    )
    assert values == [
        ("kong_ai_llm_cost_total", "1"),
        ("kong_ai_llm_provider_latency_ms_count", "2"),
        ("kong_ai_llm_provider_latency_ms_sum", "24"),
        ("kong_ai_llm_requests_total", "2"),
        ("kong_ai_llm_tokens_total", "14"),
        ("kong_ai_llm_tokens_total", "6"),
        ("kong_ai_llm_tokens_total", "8"),
    ]


async def metrics_of(kong: ScriptedKong, http: httpx.AsyncClient) -> str:
    return (await http.get(f"{kong.admin_url}/metrics")).text


async def test_an_answer_that_the_upstream_breaks_off_after_its_frame_is_recorded(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient, log: Log
) -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head(announced="chunked") + chunk(b"data: 1\n\n"))
        writer.write(chunk(frame(request, VALUES)))
        await writer.drain()
        writer.close()

    relay.script = script
    ai_route = relayed("/chat", relay.url("/x"))
    ai_route["plugins"].append(log.plugin)
    await load(kong, ai_route)
    with pytest.raises(httpx.RemoteProtocolError):  # the client is told that something is missing
        await http.post(f"{kong.url}/chat", json=CHAT)
    assert (await log.record())["ai"]["proxy"] == RECORDED


async def test_a_frame_that_cannot_be_read_costs_the_record_and_nothing_else(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient, log: Log
) -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head(announced=len(BODY)) + pieces(BODY, frame(request, b"{NaN")))

    relay.script = script
    ai_route = relayed("/chat", relay.url("/x"))
    ai_route["plugins"].append(log.plugin)
    await load(kong, ai_route)
    assert (await http.post(f"{kong.url}/chat", json=CHAT)).content == BODY
    assert "ai" not in await log.record()
    assert kong.log().count("dropped the relay's record of this request") == 1


# ---- the client's answer


@pytest.mark.parametrize("body", [b"", BODY, gzip.compress(bytes(range(256)) * 400)])
async def test_the_frame_is_found_wherever_the_relay_cuts_the_answer(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient, body: bytes
) -> None:
    """Nginx gives each piece that it reads to the filter as it comes."""
    steps: list[int] = []

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        whole, cut = body + frame(request, VALUES), max(len(body) - 10 + steps[-1], 0)
        writer.write(head(announced=len(body)))
        for part in (whole[:cut], whole[cut : cut + 7], whole[cut + 7 :]):
            if part:
                writer.write(chunk(part))
                await writer.drain()
                await asyncio.sleep(0)
        writer.write(chunk(b""))

    relay.script = script
    await load(kong, relayed("/chat", relay.url("/x")))
    for step in range(0, 70, 3):
        steps.append(step)
        answer = await http.post(f"{kong.url}/chat", json=CHAT)
        assert (answer.content, answer.headers["content-length"]) == (body, str(len(body)))


async def test_events_reach_the_client_one_by_one(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient, log: Log
) -> None:
    """The next is sent only when the client has the one before."""
    arrived: asyncio.Queue[None] = asyncio.Queue()
    events = [b"data: %d\n\n" % number for number in range(20)]

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Type: text/event-stream", announced="chunked"))
        for event in events:
            writer.write(chunk(event))
            await writer.drain()
            await arrived.get()
        writer.write(pieces(frame(request, VALUES)))

    relay.script = script
    ai_route = relayed("/chat", relay.url("/x"))
    ai_route["plugins"].append(log.plugin)
    await load(kong, ai_route)
    received = []
    async with http.stream("POST", f"{kong.url}/chat", json=CHAT) as answer:
        assert "content-length" not in answer.headers
        async for event in answer.aiter_raw():
            received.append(event)
            arrived.put_nowait(None)
    assert received == events
    assert (await log.record())["ai"]["proxy"] == RECORDED


async def test_connections_to_client_and_relay_are_used_again(
    kong: ScriptedKong, relay: ScriptedUpstream
) -> None:
    relay.script = answering()
    await load(kong, relayed("/chat", relay.url("/x")))
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    ports = set()
    async with httpx.AsyncClient(timeout=20, limits=limits) as http:
        for _ in range(10):
            answer = await http.post(f"{kong.url}/chat", json=CHAT)
            assert answer.content == BODY
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(ports) == 1
    assert relay.connections == 1
    assert len({received.header(MARKER) for received in relay.received}) == 10


async def test_a_client_of_http_1_0_gets_a_length_and_no_frame(
    kong: ScriptedKong, relay: ScriptedUpstream
) -> None:
    relay.script = answering()
    await load(kong, relayed("/chat", relay.url("/x")))
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(kong.url).port)
    writer.write(b"POST /chat HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    start, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert body == BODY
    assert f"content-length: {len(BODY)}".encode() in start.lower()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("201 Created", BODY),
        ("400 Bad Request", b'{"error":{"message":"no"}}'),
        ("429 Too Many Requests", b"{}"),
        ("500 Internal Server Error", b"{}"),
        ("502 Bad Gateway", b"{}"),
    ],
)
async def test_an_error_passes_with_its_body_and_is_recorded(
    kong: ScriptedKong,
    relay: ScriptedUpstream,
    http: httpx.AsyncClient,
    log: Log,
    status: str,
    body: bytes,
) -> None:
    relay.script = answering(status=status, body=body)
    ai_route = relayed("/chat", relay.url("/x"))
    ai_route["plugins"].append(log.plugin)
    await load(kong, ai_route)
    answer = await http.post(f"{kong.url}/chat", json=CHAT)
    assert (answer.status_code, answer.content) == (int(status[:3]), body)
    assert (await log.record())["ai"]["proxy"] == RECORDED


@pytest.mark.parametrize(
    ("method", "status", "header"),
    [
        ("HEAD", "200 OK", "Content-Length: 12"),
        ("HEAD", "200 OK", "X-Kong-AI-Proxy-Frame: 12"),
        ("GET", "204 No Content", "X-Any: thing"),
        ("GET", "304 Not Modified", 'ETag: "x"'),
    ],
)
async def test_an_answer_without_a_body_leaves_the_connection_usable(
    kong: ScriptedKong,
    relay: ScriptedUpstream,
    http: httpx.AsyncClient,
    method: str,
    status: str,
    header: str,
) -> None:
    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\n{header}\r\n\r\n".encode())

    relay.script = script
    await load(kong, relayed("/chat", relay.url("/x")))
    for _ in range(3):
        answer = await http.request(method, f"{kong.url}/chat")
        assert (answer.status_code, answer.content) == (int(status[:3]), b"")
        assert answer.headers.get("content-length") == ("12" if method == "HEAD" else None)
    assert relay.connections == 1


async def test_a_websockets_bytes_pass_as_they_are(
    kong: ScriptedKong, relay: ScriptedUpstream
) -> None:
    sent = b"\x82\x02\x1e0" + b"\x82\x01\x1e"

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n")
        writer.write(b"Upgrade: websocket\r\n\r\n" + sent)
        await writer.drain()
        writer.close()

    relay.script = script
    await load(kong, relayed("/chat", relay.url("/x")))
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(kong.url).port)
    writer.write(b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n")
    writer.write(b"Upgrade: websocket\r\n\r\n")
    start, _, received = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert start.startswith(b"HTTP/1.1 101")
    assert received == sent
    assert relay.last.header(TICKET) == "a ticket"


@pytest.mark.parametrize("how", ["refuses", "closes", "breaks off its head"])
async def test_a_relay_that_is_gone_is_an_error_of_kongs_own(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient, log: Log, how: str
) -> None:
    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        if how == "breaks off its head":
            writer.write(head(announced=3)[:-4])
            await writer.drain()
        writer.close()

    relay.script = script
    url = "http://127.0.0.1:1/x" if how == "refuses" else relay.url("/x")
    ai_route = relayed("/chat", url)
    ai_route["plugins"].append(log.plugin)
    await load(kong, ai_route)
    answer = await http.post(f"{kong.url}/chat", json=CHAT)
    assert answer.status_code == 502
    assert answer.headers["content-length"] == str(len(answer.content))
    assert "ai" not in await log.record()
    assert len(relay.received) <= 1


async def test_a_client_that_leaves_is_gone_for_the_relay_too(
    kong: ScriptedKong, relay: ScriptedUpstream
) -> None:
    gone = asyncio.Event()

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head(announced="chunked") + chunk(b"data: 1\n\n"))
        with contextlib.suppress(ConnectionError):
            while not writer.transport.is_closing():
                writer.write(chunk(b": \n\n"))
                await writer.drain()
                await asyncio.sleep(0.005)
        gone.set()

    relay.script = script
    await load(kong, relayed("/chat", relay.url("/x")))
    async with (
        httpx.AsyncClient(timeout=20) as http,
        http.stream("POST", f"{kong.url}/chat", json=CHAT) as answer,
    ):
        await anext(answer.aiter_raw())
    async with asyncio.timeout(5):
        await gone.wait()


# ---- other plugins on the route


async def test_plugins_before_it_see_the_answer_without_frame_and_may_change_it(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient, log: Log
) -> None:
    """response-transformer's priority is above that of ai-proxy. It needs the JSON whole, and takes
    the length away."""
    relay.script = answering("Content-Type: application/json")
    ai_route = relayed("/chat", relay.url("/x"))
    added = {"add": {"json": ["added:yes"]}}
    ai_route["plugins"] += [{"name": "response-transformer", "config": added}, log.plugin]
    await load(kong, ai_route)
    answer = await http.post(f"{kong.url}/chat", json=CHAT)
    assert answer.json() == {**json.loads(BODY), "added": "yes"}
    assert (await log.record())["ai"]["proxy"] == RECORDED


async def test_an_answer_that_kong_buffers_is_cut_too(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient, log: Log
) -> None:
    relay.script = answering("Set-Cookie: theirs=1")
    ai_route = relayed("/chat", relay.url("/x"))
    buffering = {"access": ["kong.service.request.enable_buffering()"]}
    ai_route["plugins"] += [{"name": "pre-function", "config": buffering}, log.plugin]
    await load(kong, ai_route)
    answer = await http.post(f"{kong.url}/chat", json=CHAT)
    assert (answer.content, answer.headers["content-length"]) == (BODY, str(len(BODY)))
    assert "set-cookie" not in answer.headers
    assert (await log.record())["ai"]["proxy"] == RECORDED


async def test_an_answer_of_another_plugin_passes(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    """Before access of this plugin, and after it."""
    before, after = relayed("/before", relay.url("/x")), relayed("/after", relay.url("/x"))
    stop = {"access": ["return kong.response.exit(418, 'short', {['Set-Cookie'] = 'a=1'})"]}
    before["plugins"].append({"name": "pre-function", "config": stop})
    after["plugins"].append({"name": "post-function", "config": stop})
    await load(kong, before, after)
    for path in ("/before", "/after"):
        answer = await http.post(f"{kong.url}{path}", json=CHAT)
        assert (answer.status_code, answer.content) == (418, b"short")
        assert answer.headers["set-cookie"] == "a=1"
    assert relay.received == []


@pytest.mark.parametrize("ticket", [True, False])
async def test_cookies_of_kongs_plugins_stay_and_the_providers_go(
    kong: ScriptedKong, relay: ScriptedUpstream, ticket: bool
) -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        cookies = ("theirs=1; Path=/", "Second =; Secure", "odd", "=odder", "__cf-b.m=x=y")
        start = head(*(f"Set-Cookie: {cookie}" for cookie in cookies))
        writer.write(start + pieces(BODY))

    relay.script = script
    ai_route = relayed("/chat", relay.url("/x"), ticket=ticket)
    own = "kong.response.add_header('Set-Cookie', 'own=theirs=1; HttpOnly')"
    ai_route["plugins"] += [
        {"name": "pre-function", "config": {"header_filter": [own]}},
        {"name": "session", "config": {"secret": "s" * 32, "storage": "cookie"}},
        {"name": "post-function", "config": {"header_filter": [own.replace("own", "last")]}},
    ]
    await load(kong, ai_route)
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.post(f"{kong.url}/chat", json=CHAT)
    assert answer.headers.get_list("set-cookie") == [
        "own=theirs=1; HttpOnly",
        "last=theirs=1; HttpOnly",
    ]


# ---- the request, and what Kong carries


async def test_what_kong_carries_is_untouched_even_if_it_looks_like_a_frame(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient, log: Log
) -> None:
    body = b"\x1e" + b"0" * 32 + b' 00000002\n{"ai.proxy.meta":{}}'

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Type: x/y", announced=1) + pieces(body))

    relay.script = script
    ai_route = relayed("/chat", relay.url("/x"), ticket=False)
    ai_route["plugins"].append(log.plugin)
    await load(kong, ai_route)
    answer = await http.post(f"{kong.url}/chat", json=CHAT)
    assert answer.content == body
    assert "x-kong-ai-proxy-frame" not in answer.headers
    assert MARKER not in relay.last.names
    assert "ai" not in await log.record()


@pytest.mark.parametrize("ticket", [True, False])
async def test_a_clients_own_ticket_and_marker_go_nowhere(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient, ticket: bool
) -> None:
    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + pieces(BODY))

    relay.script = script
    await load(kong, relayed("/chat", relay.url("/x"), ticket=ticket))
    forged = {MARKER: "0" * 32, TICKET: "forged"}
    await http.post(f"{kong.url}/chat", json=CHAT, headers=forged)
    assert relay.last.header(TICKET) == ("a ticket" if ticket else None)
    assert relay.last.header(MARKER) != "0" * 32
    assert (MARKER in relay.last.names) is ticket


async def test_a_ticket_spelled_with_underscores_is_none(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    """To nginx's variables they are the same name."""

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + pieces(BODY))

    relay.script = script
    await load(kong, relayed("/chat", relay.url("/x"), ticket=False))
    answer = await http.post(
        f"{kong.url}/chat", json=CHAT, headers={"X_Kong_AI_Proxy_Ticket": "forged"}
    )
    assert answer.content == BODY
    assert MARKER not in relay.last.names


async def test_the_relay_has_the_time_of_all_its_tries(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    """Its own 504 comes after (1 + 100 + 200 ms) x 2, where one try of Kong's would have ended."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.7)
        await answering(status="504 Gateway Timeout", body=b"the relay's own")(request, writer)

    relay.script = script
    ai_route = relayed("/chat", relay.url("/x"), advanced=True)
    limits = {"connect_timeout": 1, "write_timeout": 100, "read_timeout": 200, "retries": 1}
    ai_route["plugins"][0]["config"]["balancer"] = limits
    await load(kong, ai_route)
    answer = await http.post(f"{kong.url}/chat", json=CHAT)
    assert (answer.status_code, answer.content) == (504, b"the relay's own")
    assert len(relay.received) == 1


async def test_an_upload_and_a_download_of_25_mb_pass_whole(
    kong: ScriptedKong, relay: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    block = bytes(range(256)) * 4096

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        assert request.body == block * 25
        writer.write(head(announced=len(block) * 25))
        for _ in range(25):
            writer.write(chunk(block))
            await writer.drain()
        writer.write(pieces(frame(request, VALUES)))

    relay.script = script
    await load(kong, relayed("/chat", relay.url("/x")))
    answer = await http.post(f"{kong.url}/chat", content=block * 25)
    assert answer.content == block * 25
