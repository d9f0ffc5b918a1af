"""Failures that users of AI gateways have met, in answers that change their format on the way: from
a client through a running relay to the stand-in of every provider, and back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import brotli
import orjson
import pytest
from aiohttp import web

from kong_ai_proxy.auth.tokens import Tokens
from tests.integration.known_parts import (
    Exchange,
    Provider,
    chunk,
    compressed,
    head,
)
from tests.integration.known_text_clients import CLIENTS, Client, events
from tests.integration.known_text_clouds import LIFETIME, Cloud
from tests.integration.known_text_vendors import FORMATS, SECRET_KEY, TRANSLATED, VENDORS, Vendor
from tests.providers import ToolCall, Turn, Upstream, Usage
from tests.providers.upstream import Encoding
from tests.relays import MARKER, RunningRelay, running
from tests.unit.auth.endpoints import Clock, Endpoint, Seen
from tests.unit.exchange import known_text_exchange as in_memory

Json = dict[str, Any]
DEADLINE = 20.0
CODINGS: list[Encoding] = ["identity", "gzip", "deflate", "br"]

EACH_FORMAT = pytest.mark.parametrize("vendor", FORMATS.values(), ids=FORMATS)
CONVERTED = pytest.mark.parametrize("name", TRANSLATED)
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
CLIENT = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)


@contextlib.asynccontextmanager
async def through(
    vendor: Vendor, client: Client = CLIENTS["openai"], **changes: Any
) -> AsyncIterator[tuple[Upstream, RunningRelay]]:
    """A vendor's stand-in, and a relay that has it as its target for such clients."""
    async with vendor.stand_in() as upstream:
        changes.setdefault("logging", {"log_statistics": True})
        made = vendor.config(upstream.url, llm_format=client.llm_format, **changes)
        async with asyncio.timeout(DEADLINE), running(made) as relay:
            yield upstream, relay
            assert upstream.failures == []


async def ask(
    relay: RunningRelay, vendor: Vendor, client: Client, stream: bool, **headers: str
) -> tuple[aiohttp.ClientResponse, bytes]:
    """One request of such a client, and its whole answer."""
    path, body = client.request(vendor, stream)
    async with relay.request("POST", path, json=body, headers=headers) as answer:
        return answer, await answer.read()


def masked(body: bytes) -> bytes:
    """Without what differs from one answer to the next: its time, and ids that are made here."""
    body = re.sub(rb'"created":\d+', b'"created":0', body)
    return re.sub(rb"(call_|chatcmpl-|msg_|toolu_|tooluse_)\w+", rb"\1", body)


# ---- 1. streams cut anywhere


@CONVERTED
async def test_a_stream_that_comes_byte_by_byte_gives_the_client_the_same(name: str) -> None:
    """Kong Gateway 3.11.0.2, alibaba/higress#4620; what is cut at each single place is tested
    without sockets."""
    vendor, client = VENDORS[name], CLIENTS["openai"]
    turn = Turn(text="H\u00e9llo \U0001f600", tool_calls=[ToolCall("add", {"a": [1, "\u00e9"]})])
    async with through(vendor) as (upstream, relay):
        upstream.script(turn)
        _, expected = await ask(relay, vendor, client, stream=True)
        upstream.script(Turn(text=turn.text, tool_calls=turn.tool_calls, piece=1))
        _, found = await ask(relay, vendor, client, stream=True)
    assert masked(found) == masked(expected)
    assert client.text(found) == "H\u00e9llo \U0001f600"


# ---- 6. compressed answers


@STREAMED
@pytest.mark.parametrize(
    ("name", "client"),
    [(name, "openai") for name in FORMATS] + [(name, name) for name in FORMATS if name in CLIENTS],
)
async def test_answers_in_every_coding_are_read(name: str, client: str, stream: bool) -> None:
    """A translated stream with gzip was 200 and no byte (Kong/kong#14893); Anthropic's plain text
    was taken for gzip, and br was asked for that nobody could undo (Kong Gateway 3.14, 3.15). What
    a client cannot decode never reaches it, and no stream is compressed."""
    vendor, asking, native = VENDORS[name], CLIENTS[client], name == client
    path, body = asking.request(vendor, stream)
    async with through(vendor, asking) as (upstream, relay):
        for coding, accepted in itertools.product(CODINGS, ("gzip, br", "br", "identity")):
            upstream.script(text="One two three.", encoding=coding, piece=11)
            headers = {"accept-encoding": accepted}
            async with relay.request("POST", path, json=body, headers=headers) as answer:
                got = answer.headers.get("content-encoding", "identity")
                found = decoded(got, await answer.read())
            assert got == "identity" or (native and not stream and got in accepted)
            assert asking.said(found, stream) == "One two three.", (coding, accepted)
        for seen in upstream.requests:
            wanted = seen.headers["accept-encoding"]
            assert wanted == "identity" or (not stream and wanted == "gzip, identity")


def decoded(coding: str, data: bytes) -> bytes:
    """A body without its coding."""
    if coding == "br":
        return bytes(brotli.decompress(data))
    return zlib.decompress(data, 31 if coding == "gzip" else 15) if coding != "identity" else data


# ---- 7. streams arrive in one piece


@EACH_FORMAT
@pytest.mark.parametrize("coding", CODINGS)
async def test_a_word_is_with_the_client_before_the_next_is_sent(
    vendor: Vendor, coding: Encoding
) -> None:
    """Gemini's and Bedrock's streams came as one chunk (Kong Gateway 3.10, Kong/kong#14425). This
    provider sends no word before its client has the one before."""
    client = CLIENTS["openai"]
    words = ["uno", "dos", "tres", "cuatro"]
    frames, media_type = frames_of(vendor, " ".join(words))
    arrived: asyncio.Queue[None] = asyncio.Queue()
    encoding = f"content-encoding: {coding}\r\n" if coding != "identity" else ""

    async def script(exchange: Exchange) -> None:
        await exchange.send(head(headers=f"content-type: {media_type}\r\n{encoding}".encode()))
        for frame, sent in zip(frames, compressed(coding, frames), strict=False):
            await exchange.send(chunk(sent))
            if any(word.encode() in frame for word in words):
                await arrived.get()
        exchange.writer.close()

    async with Provider() as provider:
        provider.script = script
        made = vendor.config(provider.url(""))
        path, body = client.request(vendor, stream=True)
        async with (
            asyncio.timeout(DEADLINE),
            running(made) as relay,
            relay.request("POST", path, json=body) as answer,
        ):
            got = b""
            for word in words:
                while word.encode() not in got:
                    got += await answer.content.readany()
                arrived.put_nowait(None)


def frames_of(vendor: Vendor, text: str) -> tuple[list[bytes], str]:
    """A stream of this vendor's, event by event, and its media type."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    reply = in_memory.Exchange(vendor, body).judged(vendor, Turn(text=text))
    assert reply.frames is not None
    return list(reply.frames), reply.content_type


# ---- 8. usage

TOLD = Usage(input=11, output=7)
IN_OPENAI = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


@CONVERTED
@pytest.mark.parametrize("wanted", [False, True], ids=["not asked for", "asked for"])
async def test_usage_is_told_once_and_at_its_place(name: str, wanted: bool) -> None:
    """Missing, in the wrong chunk, added up: BerriAI/litellm#9657, #15321, Kong/kong#14535, Kong
    Gateway 3.15.0.4. Anthropic's first count is provisional, Gemini repeats a running total."""
    vendor, client = VENDORS[name], CLIENTS["openai"]
    path, body = client.request(vendor, stream=True)
    body |= {"stream_options": {"include_usage": True}} if wanted else {}
    async with through(vendor) as (upstream, relay):
        upstream.script(text="One two three.", usage=TOLD)
        async with relay.request("POST", path, json=body, marker=True) as answer:
            found = await answer.read()
        assert outcome(found)["ai.proxy.usage"].items() >= IN_OPENAI.items()
    chunks = events(found.partition(b"\x1e")[0])
    told = [each["usage"] for each in chunks if each.get("usage")]
    if not wanted:
        assert told == []
        return
    assert len(told) == 1
    assert IN_OPENAI.items() <= told[0].items()
    assert chunks[-1]["usage"] == told[0]
    assert chunks[-1]["choices"] == []
    assert [each["usage"] for each in chunks[:-1]] == [None] * (len(chunks) - 1)


def outcome(body: bytes) -> Json:
    """What the frame behind an answer tells Kong's log."""
    told: Json = orjson.loads(body.partition(MARKER.encode())[2].partition(b"\n")[2])
    return told


CUMULATIVE = [
    ("prompt", {"promptTokenCount": 5, "candidatesTokenCount": 1, "totalTokenCount": 6}),
    ("One", {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}),
    (" two", None),
    (" three", {"promptTokenCount": 5, "candidatesTokenCount": 4, "thoughtsTokenCount": 3}),
    ("", None),
]


async def test_a_running_total_replaces_and_a_missing_one_resets_nothing() -> None:
    """Gemini's chunks (Kong Gateway 3.15.0.4); thoughts count as what was written."""
    vendor, client = VENDORS["gemini"], CLIENTS["openai"]
    path, body = client.request(vendor, stream=True, stream_options={"include_usage": True})
    chunks = [gemini_chunk(*each) for each in CUMULATIVE]
    async with through(vendor) as (upstream, relay):
        upstream.script(
            body=b"".join(b"data: " + orjson.dumps(each) + b"\r\n\r\n" for each in chunks)
        )
        async with relay.request("POST", path, json=body) as answer:
            usage = events(await answer.read())[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 7)
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 3


def gemini_chunk(text: str, usage: Json | None) -> Json:
    candidate: Json = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if not text:
        candidate["finishReason"] = "STOP"
    return {"candidates": [candidate], **({"usageMetadata": usage} if usage else {})}


async def test_what_the_cache_gave_counts_as_prompt() -> None:
    """Anthropic counts it apart (Kong Gateway 3.15.0.4)."""
    vendor, client = VENDORS["anthropic"], CLIENTS["openai"]
    async with through(vendor) as (upstream, relay):
        upstream.script(text="One.", usage=Usage(input=100, output=7, cached=60))
        for stream in (False, True):
            more: Json = {"stream_options": {"include_usage": True}} if stream else {}
            path, body = client.request(vendor, stream, **more)
            async with relay.request("POST", path, json=body) as answer:
                found = await answer.read()
            usage = (events(found)[-1] if stream else orjson.loads(found))["usage"]
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (100, 7)
            assert usage["prompt_tokens_details"]["cached_tokens"] == 60


# ---- 9 and 10. errors inside a 200

FOREIGN = [
    (vendor, client)
    for vendor in ("anthropic", "bedrock", "gemini", "cohere", "openai", "ollama")
    for client in CLIENTS
    if client != vendor
]
EACH_PAIR = pytest.mark.parametrize(("name", "client"), FOREIGN)


@EACH_PAIR
async def test_an_error_before_the_first_content_is_a_status(name: str, client: str) -> None:
    """Clients got 200 and an error event, and no gateway could have asked another provider any
    more: maximhq/bifrost#5395, BerriAI/litellm#38610. Also behind a head of the stream."""
    vendor, asking = VENDORS[name], CLIENTS[client]
    async with through(vendor, asking) as (upstream, relay):
        for before in (0, 1) if name not in ("gemini", "ollama") else (0,):
            upstream.script(text="One two three.", stream_error="Overloaded", error_after=before)
            answer, body = await ask(relay, vendor, asking, stream=True)
            assert answer.status >= 400
            assert answer.headers["content-type"] == "application/json"
            assert asking.error(body) == "Overloaded"
            assert "x-kong-llm-model" not in answer.headers


@EACH_PAIR
async def test_an_error_amid_a_stream_is_seen_and_no_good_end(name: str, client: str) -> None:
    """It was ignored, and the stream seemed complete: BerriAI/litellm#4562, #29223. In the
    client's words, and without [DONE] or what else says that all is well."""
    vendor, asking = VENDORS[name], CLIENTS[client]
    async with through(vendor, asking) as (upstream, relay):
        upstream.script(text="One two three four.", stream_error="Overloaded", error_after=4)
        answer, body = await ask(relay, vendor, asking, stream=True)
    assert answer.status == 200
    assert asking.text(body).startswith("One")
    assert asking.late_error(body) == "Overloaded"
    assert not ends_well(asking, body)


def ends_well(client: Client, body: bytes) -> bool:
    """Whether a client takes the stream for complete."""
    if client.llm_format == "cohere":
        return b"COMPLETE" in body
    return client.ending in body


# ---- 11. nothing is tried again that a client has seen a part of


@EACH_PAIR
async def test_a_stream_that_breaks_off_is_not_begun_again(name: str, client: str) -> None:
    """A second try doubled the text, or mixed two providers' (apache/shenyu#6647). The client sees
    the error, and that the connection ended too soon."""
    vendor, asking = VENDORS[name], CLIENTS[client]
    frames, _ = frames_of(vendor, "One two three four.")
    until = next(number for number, frame in enumerate(frames) if b"three" in frame)
    async with through(vendor, asking) as (upstream, relay):
        upstream.script(text="One two three four.", cut=len(b"".join(frames[: until + 1])))
        path, body = asking.request(vendor, stream=True)
        got = bytearray()
        with pytest.raises(aiohttp.ClientPayloadError):
            await read_into(got, relay, path, body)
        assert len(upstream.requests) == 1
    assert asking.text(bytes(got)) == "One two three"
    assert asking.late_error(bytes(got)) == "the provider's answer broke off"
    assert not ends_well(asking, bytes(got))


async def read_into(got: bytearray, relay: RunningRelay, path: str, body: Json) -> None:
    async with relay.request("POST", path, json=body) as answer:
        while piece := await answer.content.readany():
            got += piece


# ---- 12. the client leaves

MOMENTS = ("before the head", "before the first content", "amid the answer")


@EACH_FORMAT
@pytest.mark.parametrize("moment", MOMENTS)
async def test_the_provider_of_a_converted_stream_is_left(vendor: Vendor, moment: str) -> None:
    """It went on generating, and billing: BerriAI/litellm#13774, #37140."""
    frames, _ = frames_of(vendor, "One two three.")
    first = next(number for number, frame in enumerate(frames) if b"One" in frame)
    held = {"before the head": 0, "before the first content": first, "amid the answer": first + 1}
    hold = Turn(text="One two three.", hold=asyncio.Event(), hold_after=held[moment])
    await assert_left(vendor, hold, stream=True, begins=moment == "amid the answer")


@EACH_FORMAT
@pytest.mark.parametrize("pieces", [0, 1], ids=["before the head", "amid the answer"])
async def test_the_provider_of_a_converted_answer_is_left(vendor: Vendor, pieces: int) -> None:
    """The same of an answer in one piece, of which the client has nothing until all has come."""
    hold = Turn(text="One two three.", hold=asyncio.Event(), hold_after=pieces, piece=5)
    await assert_left(vendor, hold, stream=False, begins=False)


async def assert_left(vendor: Vendor, turn: Turn, *, stream: bool, begins: bool) -> None:
    """That the provider's request ends with the client's. `begins`: the client has a part."""
    client = CLIENTS["openai"]
    path, body = client.request(vendor, stream)
    async with through(vendor) as (upstream, relay):
        upstream.script(turn)
        asking = asyncio.create_task(first_byte(relay, path, body))
        await upstream.wait_for(lambda: len(upstream.requests) == 1)
        if begins:
            assert (await asking).startswith(b"data: ")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await upstream.wait_for(lambda: upstream.disconnects == 1)
        upstream.script(text="Two.")
        answer, found = await ask(relay, vendor, client, stream)
        assert (answer.status, client.said(found, stream)) == (200, "Two.")


async def first_byte(relay: RunningRelay, path: str, body: Json) -> bytes:
    """What comes first of an answer, after which the client leaves."""
    async with relay.request("POST", path, json=body) as answer:
        return await answer.content.readany()


# ---- 13. what a provider answers in case of an error

STATUSES = [400, 401, 403, 404, 429, 500, 503]


@EACH_PAIR
@STREAMED
async def test_a_providers_error_is_converted_with_its_status(
    name: str, client: str, stream: bool
) -> None:
    """Bodies were replaced (apache/apisix#13501), and had the content type of the stream that was
    asked for (Kong Gateway 3.14)."""
    vendor, asking = VENDORS[name], CLIENTS[client]
    async with through(vendor, asking) as (upstream, relay):
        for status in STATUSES:
            headers = {"Retry-After": "17", "x-request-id": "one"}
            upstream.script(status=status, message="No, not so.", headers=headers)
            answer, body = await ask(relay, vendor, asking, stream)
            assert answer.status == status
            assert answer.headers["content-type"] == "application/json"
            assert asking.error(body) == "No, not so."
            assert (answer.headers["retry-after"], answer.headers["x-request-id"]) == ("17", "one")
            assert "x-kong-llm-model" not in answer.headers
        assert len(upstream.requests) == len(STATUSES)


PAGES = {
    "HTML": (b"<html><head><title>502 Bad Gateway</title></head></html>", "text/html"),
    "nothing": (b"", "text/plain"),
    "not even UTF-8": (b"\xff\xfe\x00", "application/octet-stream"),
    "other JSON": (b"[1, 2]", "application/json"),
    "half of JSON": (b'{"error": {"mess', "application/json"),
}


@CLIENT
@STREAMED
@pytest.mark.parametrize("page", PAGES)
async def test_what_stands_before_a_provider_may_answer_anything(
    client: Client, stream: bool, page: str
) -> None:
    """An error that nobody could foresee is still one of the client's format."""
    body, media_type = PAGES[page]
    vendor = VENDORS["anthropic"] if client.llm_format != "anthropic" else VENDORS["gemini"]
    async with through(vendor, client) as (upstream, relay):
        upstream.script(status=502, body=body, headers={"Content-Type": media_type})
        answer, found = await ask(relay, vendor, client, stream)
    assert (answer.status, answer.headers["content-type"]) == (502, "application/json")
    assert client.error(found)


# ---- 22. tokens

CLOUDS = ("google", "aws", "azure")


@pytest.fixture(params=CLOUDS)
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[Cloud]:
    async with Endpoint() as endpoint:
        made = Cloud(request.param, endpoint, Clock())
        endpoint.answers[made.route] = made.answer
        yield made


@contextlib.asynccontextmanager
async def in_cloud(cloud: Cloud, **changes: Any) -> AsyncIterator[tuple[Upstream, RunningRelay]]:
    """A relay whose clock the test owns."""
    async with through(cloud.vendor, **changes) as (upstream, relay):
        await relay.relay._tokens.close()
        relay.relay._tokens = Tokens(cloud.environ, now=cloud.clock)
        yield upstream, relay


async def until(condition: Callable[[], object]) -> None:
    """Wait for what happens without a request; the deadline is that of `through`."""
    while not condition():
        await asyncio.sleep(0.005)


async def test_one_token_is_fetched_for_all_and_renewed_before_it_ends(cloud: Cloud) -> None:
    """Azure's was never renewed: 401 after an hour (Kong Gateway 3.14.0.7); Google's only when it
    had ended, and the metadata server was asked though a key was there (3.14.0.8)."""
    vendor, client = cloud.vendor, CLIENTS["openai"]
    gate = asyncio.Event()

    async def late(seen: Seen) -> web.Response:
        await gate.wait()
        return cloud.answer(seen)

    cloud.endpoint.answers[cloud.route] = late
    async with in_cloud(cloud) as (upstream, relay):
        asking = [asyncio.create_task(ask(relay, vendor, client, stream=False)) for _ in range(8)]
        await until(lambda: relay.relay.requests == 8 and cloud.endpoint.seen)
        gate.set()
        assert {answer.status for answer, _ in await asyncio.gather(*asking)} == {200}
        assert len(cloud.endpoint.seen) == 1
        cloud.clock.advance(LIFETIME - 200)
        answer, _ = await ask(relay, vendor, client, stream=False)  # with the token that still is
        await until(lambda: len(cloud.endpoint.seen) == 2)
        cloud.clock.advance(600)  # the first has ended
        answers = [await ask(relay, vendor, client, stream=True) for _ in range(3)]
        assert {each.status for each, _ in (*answers, (answer, b""))} == {200}
        assert len(cloud.endpoint.seen) == 2
    routes = {f"{seen.method} {seen.path}" for seen in cloud.endpoint.seen}
    assert routes == {cloud.route}
    if cloud.name != "aws":
        used = [request.headers["authorization"][-1] for request in upstream.requests]
        assert used == ["1"] * 9 + ["2"] * 3


# ---- 23. keys in logs


async def test_credentials_are_in_no_log_frame_error_or_header(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """AWS' session token among them (Kong Gateway 3.14.0.10, 3.15.0.4), however a request ends;
    the provider and the token endpoint say what they got, as some do."""
    caplog.set_level(logging.DEBUG)
    vendor, client = cloud.vendor, CLIENTS["openai"]
    logged = {"log_statistics": True, "log_payloads": True}
    seen: list[str] = []
    async with in_cloud(cloud, logging=logged) as (upstream, relay):
        for stream in (False, True):
            path, body = client.request(vendor, stream)
            for turn in (
                Turn(text="One."),
                Turn(status=401, message="no"),
                Turn(stream_error="no"),
                Turn(body=b"<html>"),
                Turn(cut=10),
            ):
                upstream.script(turn)
                with contextlib.suppress(aiohttp.ClientError):
                    async with relay.request("POST", path, json=body, marker=True) as answer:
                        seen += [str(answer.headers), (await answer.read()).decode()]
        cloud.clock.advance(2 * LIFETIME)
        echo = " ".join(cloud.secrets)
        cloud.endpoint.text(cloud.route, echo, 400)
        async with relay.request("POST", path, json=body, marker=True) as answer:
            seen.append(await answer.text())
            assert answer.status == 500
    assert "LLM request failed before proxying" in seen[-1]
    told = "\n".join([*seen, caplog.text, *(record.getMessage() for record in caplog.records)])
    assert [secret for secret in cloud.secrets if secret in told] == []
    sent = str([request.headers for request in upstream.requests])
    assert cloud.secrets[1 if cloud.name == "aws" else 0] in sent


@pytest.mark.parametrize("name", ["anthropic", "bedrock", "gemini", "cohere", "openai"])
async def test_a_key_that_the_provider_repeats_is_masked_in_the_log(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Providers quote the key that they refuse, in a status or in a stream."""
    caplog.set_level(logging.DEBUG)
    vendor, client = VENDORS[name], CLIENTS["openai"]
    secret = SECRET_KEY if name == "bedrock" else "operators-key"
    logged = {"log_statistics": True, "log_payloads": True}
    async with through(vendor, logging=logged) as (upstream, relay):
        for stream in (False, True):
            for turn in (
                Turn(status=401, message=f"wrong key: {secret}"),
                Turn(stream_error=f"wrong key: {secret}"),
                Turn(text=f"Your key is {secret}."),
            ):
                upstream.script(turn)
                path, body = client.request(vendor, stream)
                async with relay.request("POST", path, json=body, marker=True) as answer:
                    frame = (await answer.read()).partition(b"\x1e")[2]
                    assert frame
                    assert secret.encode() not in frame
    own = [record for record in caplog.records if record.name.startswith("kong_ai_proxy")]
    assert secret not in "\n".join(record.getMessage() for record in own)
