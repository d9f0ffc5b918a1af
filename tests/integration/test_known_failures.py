"""Failures that users of AI gateways have met, as tests through the whole of it: from the client
over Kong and its plugin server, or the relay, to the provider."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from tests.decks import KEY, deck
from tests.gateways import GatewayFactory, Protocol, free_port
from tests.integration.known_endings import (
    AUTHS,
    CLIENTS,
    CLIENTS_IN_URL,
    CREDENTIALS,
    ENDINGS,
    ending,
    secret_deck,
)
from tests.integration.known_parts import (
    ANSWER,
    CHAT,
    DEADLINE,
    DONE,
    JSON_TYPE,
    SSE,
    STREAM,
    USAGE,
    Exchange,
    FileLog,
    Json,
    OwnGateway,
    OwnServer,
    Provider,
    RawClient,
    always,
    assert_carried_by,
    chat_deck,
    chat_route,
    chunk,
    compressed,
    event,
    fifty_megabytes,
    head,
    own_gateway,
    service,
    services_deck,
    whole,
    with_an_image,
)
from tests.integration.known_plugins import DYING, ISSUING, RAISING

MB = 1024 * 1024
PROTOCOLS = pytest.mark.parametrize("protocol", ["protobuf", "msgpack"])
BOTH_WAYS = pytest.mark.parametrize("way", ["kong", "relay"])
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])

_log = logging.getLogger(__name__)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with Provider() as scripted:
        yield scripted


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        yield client


async def status(
    http: httpx.AsyncClient, url: str, body: Json = CHAT, headers: Mapping[str, str] | None = None
) -> int:
    return (await http.post(url, json=body, headers=headers)).status_code


async def until(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait for what other processes do."""
    limit = time.monotonic() + DEADLINE
    while not await condition():
        assert time.monotonic() < limit, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.05)


# ---- 2. kong-pdk's server hangs for ever on the first exception of a handler


@PROTOCOLS
async def test_an_exception_in_a_handler_costs_one_request_and_hangs_nothing(
    gateway: GatewayFactory,
    provider: Provider,
    http: httpx.AsyncClient,
    tmp_path: Path,
    protocol: Protocol,
) -> None:
    """With kong-pdk 0.36 the caller and every later request wait for ever, since the event's result
    is never put into the queue under the lock that all events take (Kong/kong-python-pdk#34)."""
    server = OwnServer(tmp_path, protocol, plugins=RAISING.write(tmp_path))
    async with own_gateway(gateway, server, chat_deck(provider.url(), "kong")) as running:
        url = f"{running.url}/chat"
        raising = [status(http, url, headers={"x-raise": "this handler fails"}) for _ in range(20)]
        serving = [status(http, url) for _ in range(20)]
        mixed = [each for pair in zip(raising, serving, strict=True) for each in pair]
        assert await asyncio.gather(*mixed) == [500, 200] * 20
        assert await status(http, url) == 200
    assert len(provider.received) == 21
    assert "this handler fails" not in running.log()


@PROTOCOLS
async def test_a_configuration_that_cannot_be_served_does_not_disturb_the_others(
    gateway: GatewayFactory, provider: Provider, http: httpx.AsyncClient, protocol: Protocol
) -> None:
    """A worker went to 100 % of a CPU where an instance could not be created, since Kong starts it
    again for each request (Kong/kong#9301)."""
    routes = [chat_route(f"/good/{number}", provider.url(), "kong") for number in range(4)]
    unserved = chat_route("/unserved", provider.url(), "kong")
    wrong = {"model": {"provider": "openai"}, "metadata": {"max_tokens": "many"}}
    targets = [{"route_type": "llm/v1/chat", **wrong}]
    unserved["plugins"] = [{"name": "ai-proxy-advanced", "config": {"targets": targets}}]
    running = await gateway(deck(unserved, *routes), protocol=protocol)
    urls = [f"{running.url}/good/{number}" for number in range(4)] + [f"{running.url}/unserved"]
    found = await asyncio.gather(*(status(http, url) for _ in range(15) for url in urls))
    assert found == [200, 200, 200, 200, 500] * 15
    assert len(provider.received) == 60
    starts = [line for line in running.log().splitlines() if "max_tokens: expected" in line]
    assert 1 <= len(starts) <= 15


# ---- 3. Kong lets a request through when its plugin server is dead


def both_ways_deck(url: str) -> str:
    """A gateway's file with /kong and /relay, named after who carries."""
    return deck(*(chat_route(f"/{way}", url, way) for way in ("kong", "relay")))


@PROTOCOLS
async def test_a_dead_plugin_server_means_refused_and_never_proxied(
    gateway: GatewayFactory,
    provider: Provider,
    http: httpx.AsyncClient,
    tmp_path: Path,
    protocol: Protocol,
) -> None:
    """Kong goes on without the plugin where its server does not answer (Kong/kong#8293, #8508):
    without the documented Service the provider would get the client's request as it is."""
    server = OwnServer(tmp_path, protocol)
    async with own_gateway(gateway, server, both_ways_deck(provider.url())) as running:
        urls = [f"{running.url}/{way}" for way in ("kong", "relay")]
        assert [await status(http, url) for url in urls] == [200, 200]
        server.dead.touch()
        running.kill_plugin_server()
        found = [await status(http, url) for url in urls]
        found += await asyncio.gather(*(status(http, url, STREAM) for url in urls * 10))
        assert set(found) <= {500, 502, 503}
        assert len(provider.received) == 2
        server.dead.unlink()
        for url in urls:
            await until(partial(is_served, http, url), "the plugin server is there again")


@pytest.mark.parametrize("protocol", ["protobuf", "msgpack"])
async def test_a_plugin_server_that_dies_after_any_call_sends_nothing_half_done(
    gateway: GatewayFactory,
    provider: Provider,
    http: httpx.AsyncClient,
    tmp_path: Path,
    protocol: Protocol,
) -> None:
    """The same in the middle of an event: over MsgPack Kong has done some of the calls by then, and
    goes on with what it has. Its connection ends after the first call, the second, and so on."""
    server = OwnServer(tmp_path, protocol, plugins=DYING.write(tmp_path))
    url, changed = provider.url("/x?a=b"), {"max_tokens": 64}
    routes = [chat_route(f"/{way}", url, way, options=changed) for way in ("kong", "relay")]
    found = []
    async with own_gateway(gateway, server, deck(*routes)) as running:
        for way in ("kong", "relay"):
            for calls in range(1, 20):
                headers = {"x-calls": f"{calls} {way}", "authorization": "Bearer the-clients-own"}
                found.append(await status(http, f"{running.url}/{way}", CHAT, headers))
    assert set(found) <= {200, 403, 500, 502, 503}  # 403: the relay, without a ticket
    assert found[-1] == 200
    for seen in provider.received:
        assert (seen.target, seen.header("authorization")) == ("/x?a=b", f"Bearer {KEY}")
        assert json.loads(seen.body) == {**CHAT, **changed}


async def is_served(http: httpx.AsyncClient, url: str) -> bool:
    return await status(http, url) == 200


# ---- 4. after a restart of the plugin server requests ran another Service's configuration

SERVICES = range(6)


def mixed_deck(url: str, generation: int) -> str:
    """Six Services, every other one carried by the relay, each with its own path, model and key;
    the keys change with `generation`."""
    return services_deck(*(mixed_service(url, number, generation) for number in SERVICES))


def mixed_service(base: str, number: int, generation: int) -> Json:
    made = chat_route(f"/chat/{number}", f"{base}/{number}", ("kong", "relay")[number % 2])
    changed = made["plugins"][0]["config"]
    changed["model"]["name"] = f"model-{number}"
    changed["auth"] = {"header_name": "x-key", "header_value": f"{number}/{generation}"}
    return service(f"service-{number}", made)


class MixedLoad:
    """Clients of all Services, each asking one after the other."""

    def __init__(self, url: str) -> None:
        self._stopped = False
        self.served = dict.fromkeys(SERVICES, 0)
        self._tasks = [asyncio.create_task(self._run(f"{url}/chat/{n}", n)) for n in SERVICES]

    async def _run(self, url: str, number: int) -> None:
        body = {"messages": CHAT["messages"], "user": str(number)}
        async with httpx.AsyncClient(timeout=DEADLINE) as http:
            while not self._stopped:
                with contextlib.suppress(httpx.TransportError):
                    found = await status(http, url, body)
                    assert found in (200, 500, 502, 503)
                    self.served[number] += found == 200

    async def more(self, amount: int = 5) -> None:
        """Until each Service was served so many times more."""
        wanted = {number: count + amount for number, count in self.served.items()}

        async def reached() -> bool:
            return all(self.served[number] >= count for number, count in wanted.items())

        await until(reached, f"each Service is served {amount} times more")

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("protocol", ["protobuf", "msgpack"])
async def test_a_restarted_plugin_server_never_runs_another_services_configuration(
    gateway: GatewayFactory, provider: Provider, protocol: Protocol
) -> None:
    """Instances were numbered from 0 again after a restart, while Kong went on with the numbers it
    knew (Kong/kong#8370). The client says which Service it means, and the provider sees which key,
    path and model it got."""
    running = await gateway(mixed_deck(provider.url(""), 1), protocol=protocol)
    load = MixedLoad(running.url)
    await load.more()
    running.kill_plugin_server()
    await load.more()
    await running.reload(mixed_deck(provider.url(""), 2))
    since = len(provider.received)
    await load.more()
    running.kill_plugin_server()
    await load.more()
    await load.stop()
    seen = [what_is_mixed(request) for request in provider.received]
    assert {number for number, _, _, _ in seen} == {str(number) for number in SERVICES}
    for user, path, model, key in seen:
        assert (path, model, key.partition("/")[0]) == (f"/{user}", f"model-{user}", user)
    # Those under way during the reload may still have the older key.
    assert {key.partition("/")[2] for _, _, _, key in seen[since + len(SERVICES) :]} == {"2"}


def what_is_mixed(request: Any) -> tuple[str, str, str, str]:
    body = json.loads(request.body)
    return body["user"], request.target, body["model"], request.header("x-key")


# ---- 5. slow events wait for each other


@PROTOCOLS
@BOTH_WAYS
async def test_events_that_wait_do_not_hold_up_others(
    gateway: GatewayFactory,
    provider: Provider,
    http: httpx.AsyncClient,
    protocol: Protocol,
    way: str,
) -> None:
    """kong-pdk runs one handler at a time: eight that work for 0.2 s take 1.6 s together
    (Kong/kong-python-pdk, the lock `e_lock` in server.py). Here handlers wait for the rest of
    uploads, which is to come in the order in which it is wanted last."""
    body = json.dumps(CHAT).encode()
    made = {**chat_route("/chat", provider.url(), way), "request_buffering": False}
    running = await gateway(deck(made), protocol=protocol)
    async with contextlib.AsyncExitStack() as stack:
        uploads = [await stack.enter_async_context(RawClient.to(running.url)) for _ in range(24)]
        for upload in uploads:
            upload.begin(body, headers=b"Expect: 100-continue\r\n")
        for upload in uploads:  # this is asked for by whoever waits for the body
            assert (await upload.head()).startswith(b"HTTP/1.1 100 ")
            upload.send(body[:20])
        quick = await asyncio.gather(*(status(http, f"{running.url}/chat") for _ in range(10)))
        assert quick == [200] * 10
        assert len(provider.received) == 10
        for upload in reversed(uploads):
            upload.send(body[20:])
            assert (await upload.head()).startswith(b"HTTP/1.1 200 ")
    assert [request.body for request in provider.received[10:]] == [body] * 24
    await assert_carried_by(way, running)


# ---- 6. compressed answers: streams of nothing, or compressed events

ACCEPTED = {
    "gzip, deflate, br": {"gzip", "deflate", "br"},
    "br": {"br"},
    "gzip": {"gzip"},
    "identity": set[str](),
    "*;q=0.5, br;q=0": {"gzip", "deflate"},
}
"""What a client may say, and what it takes then."""


@STREAMED
@BOTH_WAYS
@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity"])
async def test_answers_in_every_coding_arrive_whole_and_their_usage_is_known(
    gateway: GatewayFactory,
    provider: Provider,
    http: httpx.AsyncClient,
    tmp_path: Path,
    coding: str,
    way: str,
    streamed: bool,
) -> None:
    """Streams with gzip came as 0 bytes under `Content-Encoding: gzip` (Kong/kong#14893, #13155),
    also where each chunk got a decoder of its own (envoyproxy/ai-gateway#1894), and Brotli where
    the client had asked for it (Kong Gateway 3.15.0.4). The provider answers in one coding,
    whatever it is asked for, and cuts its bytes anywhere."""
    events = [*(event(f"word {number} ") for number in range(5)), event(None), DONE]
    parts = events if streamed else [json.dumps(ANSWER).encode()]
    sent = b"".join(compressed(coding, parts))
    encoding = b"" if coding == "identity" else b"Content-Encoding: %b\r\n" % coding.encode()
    media_type = SSE if streamed else b"Content-Type: application/json\r\n"

    async def script(exchange: Exchange) -> None:
        if not streamed:
            await exchange.send(whole(sent, headers=media_type + encoding))
            return
        await exchange.send(head(headers=media_type + encoding))
        for start in range(0, len(sent), 11):
            await exchange.send(chunk(sent[start : start + 11]))
        await exchange.send(chunk(b""))

    provider.script = script
    log = FileLog(gateway, tmp_path)
    running = await gateway(chat_deck(provider.url(), way, *log.plugins))
    for accepted, codings in ACCEPTED.items():
        headers = {"accept-encoding": accepted}
        body = STREAM if streamed else CHAT
        answer = await http.post(f"{running.url}/chat", json=body, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"".join(parts))
        got = answer.headers.get("content-encoding", "identity")
        assert got in ("identity", coding)
        if way == "relay":
            assert got == (coding if coding in codings and not streamed else "identity")
    await assert_carried_by(way, running)
    if way == "relay":
        for record in await log.records(running, len(ACCEPTED)):
            assert USAGE.items() <= record["ai"]["proxy"]["usage"].items()


# ---- 7. streams arrive in one piece


@BOTH_WAYS
@pytest.mark.parametrize("coding", ["identity", "gzip", "br", "deflate"])
async def test_a_streams_chunk_is_with_the_client_before_the_next_is_made(
    gateway: GatewayFactory, provider: Provider, coding: str, way: str
) -> None:
    """Streams arrived in one piece (Kong/kong#12680, #14425). This provider sends nothing before
    its client has what was sent before: whoever holds anything back never gets more."""
    words = [b"a", b"word" * 10, b"x" * 100_000, b"", b"b", b"long" * 2000, b"c" * 16_384, b"d"]
    events = [event(word.decode()) for word in words * 3] + [event(None), DONE]
    encoding = b"" if coding == "identity" else b"Content-Encoding: %b\r\n" % coding.encode()
    arrived: asyncio.Queue[None] = asyncio.Queue()
    sent_at: list[float] = []
    seconds: list[float] = []

    async def script(exchange: Exchange) -> None:
        await exchange.send(head(headers=SSE + encoding))
        for sent in compressed(coding, events):
            sent_at.append(time.perf_counter())
            await exchange.send(chunk(sent))
            if len(sent_at) <= len(events):
                await arrived.get()
        await exchange.send(chunk(b""))

    provider.script = script
    running = await gateway(chat_deck(provider.url(), way))
    got = b""
    headers = {"accept-encoding": coding}
    async with (
        asyncio.timeout(DEADLINE),
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/chat", json=STREAM, headers=headers) as answer,
    ):
        for count in range(1, len(events) + 1):
            while len(got) < sum(map(len, events[:count])):
                got += await answer.content.readany()
            seconds.append(time.perf_counter() - sent_at[-1])
            assert got == b"".join(events[:count])
            arrived.put_nowait(None)
        assert await answer.content.read() == b""
    await assert_carried_by(way, running)
    median = sorted(seconds)[len(seconds) // 2]
    _log.info("%s, %s: %.2f ms from provider to client", way, coding, median * 1000)


# ---- 12. the client leaves, and the provider goes on generating


@BOTH_WAYS
@STREAMED
@pytest.mark.parametrize("moment", ["before the first byte", "in the middle"])
async def test_the_provider_is_left_when_the_client_leaves(
    gateway: GatewayFactory,
    provider: Provider,
    http: httpx.AsyncClient,
    way: str,
    streamed: bool,
    moment: str,
) -> None:
    """The upstream request went on, and was billed, after the client had left: BerriAI/litellm
    #13774 and #37140; for answers in one piece too."""
    asked, left = asyncio.Event(), asyncio.Event()
    first = event("first")

    async def script(exchange: Exchange) -> None:
        if moment == "in the middle" and streamed:
            await exchange.send(head(headers=SSE) + chunk(first))
        elif moment == "in the middle":
            await exchange.send(head(length=10_000_000) + b"x" * 500_000)
        asked.set()
        await exchange.gone()
        left.set()
        exchange.writer.close()

    provider.script = script
    running = await gateway(chat_deck(provider.url(), way))
    body = json.dumps(STREAM if streamed else CHAT).encode()
    async with asyncio.timeout(DEADLINE):
        async with RawClient.to(running.url) as client:
            client.begin(body)
            client.send(body)
            await asked.wait()
            if moment == "in the middle":
                await client.head()
                await client.reader.readuntil(first if streamed else b"x" * 1000)
            assert not left.is_set()
        since = time.perf_counter()
        await left.wait()
    passed = time.perf_counter() - since
    _log.info("%s, %s, %s: %.1f ms until the provider is left", way, streamed, moment, passed * 1e3)
    provider.script = always(whole())
    assert await status(http, f"{running.url}/chat") == 200
    await assert_carried_by(way, running)


# ---- 13. what a provider answers in case of an error

# To text without a charset Kong's nginx adds one by itself.
ERRORS = {
    "400 Bad Request": (JSON_TYPE, b'{"error":{"message":"no","param":"messages.0","code":7}}'),
    "401 Unauthorized": (JSON_TYPE + b'WWW-Authenticate: Bearer realm="x"\r\n', b'{"error":{}}'),
    "403 Forbidden": (b"Content-Type: text/html; charset=ISO-8859-1\r\n", b"<p>caf\xe9</p>"),
    "404 Not Found": (b"Content-Type: application/problem+json\r\n", b'{"title":"no model"}'),
    "413 Content Too Large": (b"Content-Type: text/plain; charset=utf-8\r\n", b"too large"),
    "422 Unprocessable": (JSON_TYPE, b' {"detail" : [ ] }\n'),
    "429 Too Many Requests": (
        JSON_TYPE + b"Retry-After: 17\r\nX-RateLimit-Remaining-Tokens: 0\r\n",
        b'{"error":{"message":"slow down","type":"tokens"}}',
    ),
    "500 Internal Server Error": (b"Content-Type: application/octet-stream\r\n", b"\x00\xff\x1e"),
    "502 Bad Gateway": (b"Content-Type: text/html; charset=utf-8\r\n", b"<html>nginx</html>"),
    "503 Unavailable": (
        JSON_TYPE + b"Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n",
        b'{"error":{"message":"overloaded"}}',
    ),
    "529 Overloaded": (JSON_TYPE, b""),
}


@BOTH_WAYS
@STREAMED
@pytest.mark.parametrize("error", ERRORS)
async def test_a_providers_error_keeps_status_body_type_and_retry_after(
    gateway: GatewayFactory,
    provider: Provider,
    http: httpx.AsyncClient,
    way: str,
    streamed: bool,
    error: str,
) -> None:
    """Bodies of 429 and 5xx were replaced (apache/apisix#13501), and an error's content type became
    text/event-stream where a stream had been asked for (Kong Gateway 3.14)."""
    headers, body = ERRORS[error]
    provider.script = always(whole(body, error, headers))
    running = await gateway(chat_deck(provider.url(), way))
    answer = await http.post(f"{running.url}/chat", json=STREAM if streamed else CHAT)
    assert (answer.status_code, answer.content) == (int(error[:3]), body)
    for line in headers.decode().splitlines():
        name, _, value = line.partition(": ")
        assert answer.headers.get_list(name) == [value]
    assert "x-kong-llm-model" not in answer.headers or gateway.kind == "standin" or way == "kong"
    assert len(provider.received) == 1
    await assert_carried_by(way, running)


@BOTH_WAYS
@STREAMED
async def test_a_compressed_error_can_be_read(
    gateway: GatewayFactory, provider: Provider, http: httpx.AsyncClient, way: str, streamed: bool
) -> None:
    """The same where the body is compressed though nobody asked for it."""
    body = json.dumps({"error": {"message": "no " * 100}}).encode()
    sent = b"".join(compressed("gzip", [body]))
    headers = JSON_TYPE + b"Content-Encoding: gzip\r\nRetry-After: 3\r\n"
    provider.script = always(whole(sent, "429 Too Many Requests", headers))
    running = await gateway(chat_deck(provider.url(), way))
    for accepted in ("gzip", "identity"):
        answer = await http.post(
            f"{running.url}/chat",
            json=STREAM if streamed else CHAT,
            headers={"accept-encoding": accepted},
        )
        assert (answer.status_code, answer.content) == (429, body)
        assert answer.headers["retry-after"] == "3"
    await assert_carried_by(way, running)


# ---- 21. large requests


LARGE: dict[str, Callable[[], bytes]] = {
    "50 MB of JSON": fifty_megabytes,
    "an image of 20 MB": partial(with_an_image, 20),
}


@BOTH_WAYS
@pytest.mark.parametrize(("what", "limit"), [("50 MB of JSON", 0), ("an image of 20 MB", 64 * MB)])
async def test_large_requests_arrive_byte_for_byte(
    gateway: GatewayFactory,
    provider: Provider,
    http: httpx.AsyncClient,
    way: str,
    what: str,
    limit: int,
) -> None:
    """A body over nginx's buffer is on disk, where Kong's PDK does not see it: Kong/kong#8088,
    #13211, #11840."""
    body = LARGE[what]()
    running = await gateway(chat_deck(provider.url(), way, max_request_body_size=limit))
    answer = await http.post(f"{running.url}/chat", content=body)
    assert (answer.status_code, answer.json()) == (200, ANSWER)
    assert digest(provider.received[0].body) == digest(body)
    await assert_carried_by(way, running)


@BOTH_WAYS
@pytest.mark.parametrize("what", LARGE)
async def test_large_requests_arrive_with_just_their_change(
    gateway: GatewayFactory, provider: Provider, http: httpx.AsyncClient, way: str, what: str
) -> None:
    """The same where the configuration adds something to the body."""
    await assert_changed_only(gateway, provider, http, LARGE[what](), way, "protobuf")


@BOTH_WAYS
async def test_a_spooled_request_arrives_with_just_its_change_over_msgpack(
    gateway: GatewayFactory, provider: Provider, http: httpx.AsyncClient, way: str
) -> None:
    """Over MsgPack the plugin server gets the body itself and not the path of Kong's file, and a
    Kong that had none died of its length (Kong/kong#8088). Kong's MessagePack is slow: 1 MB."""
    await assert_changed_only(gateway, provider, http, with_an_image(1), way, "msgpack")


async def assert_changed_only(
    gateway: GatewayFactory,
    provider: Provider,
    http: httpx.AsyncClient,
    body: bytes,
    way: str,
    protocol: Protocol,
) -> None:
    options = {"max_tokens": 64}
    made = chat_route("/chat", provider.url(), way, options=options, max_request_body_size=0)
    running = await gateway(deck(made), protocol=protocol)
    answer = await http.post(f"{running.url}/chat", content=body)
    assert (answer.status_code, answer.json()) == (200, ANSWER)
    assert digest(provider.received[0].body) == digest(body[:-1] + b',"max_tokens":64}')
    await assert_carried_by(way, running)


def digest(data: bytes) -> str:
    """Short where pytest would show the difference of 50 MB."""
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


# ---- 23. keys in logs


@pytest.mark.parametrize(
    "way",
    ["kong", "relay"],
)
async def test_keys_and_tickets_are_in_no_log_however_a_request_ends(
    gateway: GatewayFactory, provider: Provider, http: httpx.AsyncClient, tmp_path: Path, way: str
) -> None:
    """Providers' credentials were in access logs (Kong Gateway 3.14.0.10 and 3.15.0.4)."""
    provider.script = ending
    tickets = tmp_path / "tickets"
    log = FileLog(gateway, tmp_path)
    server = OwnServer(tmp_path, plugins=ISSUING.write(tmp_path, tickets=str(tickets)))
    made = secret_deck(provider, free_port(), way, *log.plugins)
    async with own_gateway(gateway, server, made) as running:
        ends = [ended(http, running.url, place, how) for place in AUTHS for how in ENDINGS]
        await asyncio.gather(*ends)
        await asyncio.gather(*(misspelt(http, running.url, place) for place in AUTHS))
        texts = await logged(running, log, len(AUTHS) * (len(ENDINGS) + 1), way)
    for place in AUTHS:
        (seen,) = (each for each in provider.received if f"/{place}/answered" in each.target)
        assert KEY in repr(seen)
    issued = tickets.read_text().split()
    assert len(issued) >= len(ENDINGS)
    secrets = [KEY, CLIENTS, CLIENTS_IN_URL, *issued]
    assert not [told for name, text in texts.items() for told in leaks(name, text, secrets)]


def leaks(name: str, text: str, secrets: Iterable[str]) -> Iterator[str]:
    """Where secrets are in a log. In what Kong itself says of a request is the client's URL."""
    for secret in secrets:
        at = text.find(secret)
        if at >= 0 and not (secret == CLIENTS_IN_URL and name in ("nginx", "file-log")):
            yield f"{name}: {text[max(0, at - 200) : at + 60]}"


async def ended(http: httpx.AsyncClient, base: str, place: str, how: str) -> None:
    """One request to its end."""
    url = f"{base}/{place}/{how}?apikey={CLIENTS_IN_URL}"
    try:
        answer = await http.post(url, json=CHAT, headers=CREDENTIALS)
    except httpx.RemoteProtocolError:
        assert how in ("broken-off", "garbage")
        return
    expected = [500, 502, 503] if how == "not-found" else [ENDINGS[how]]
    assert answer.status_code in expected, (place, how, answer.text)


async def misspelt(http: httpx.AsyncClient, base: str, place: str) -> None:
    """A request that is refused on this side."""
    url = f"{base}/{place}/answered?apikey={CLIENTS_IN_URL}"
    body = f'{{"api_key":"{CLIENTS}"'.encode()
    assert (await http.post(url, content=body, headers=CREDENTIALS)).status_code == 400


async def logged(running: OwnGateway, log: FileLog, count: int, way: str) -> dict[str, str]:
    """Every log there is, once it tells of all requests."""
    if running.prefix is None:
        lines = len(AUTHS) * len(ENDINGS) if way == "relay" else 0
        await log.records(running, lines)
        return {"plugin server": running.log()}
    await log.records(running, count)
    lines_of_nginx = running.log() + (running.prefix / "logs" / "access.log").read_text()
    own = [line for line in lines_of_nginx.splitlines() if "] [ai-proxy:" in line]
    return {"file-log": log.text(), "nginx": lines_of_nginx, "plugin server": "\n".join(own)}
