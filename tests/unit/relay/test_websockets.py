"""Realtime sessions: WebSockets on both sides of the relay."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Awaitable, Callable

import psutil
import pytest

from kong_ai_proxy.relay import websocket
from tests.recorder import Recorder
from tests.unit.relay.clients import REALTIME, client, provided
from tests.unit.relay.sockets import (
    BINARY,
    CLOSE,
    CONTINUATION,
    HANDSHAKE,
    PING,
    PONG,
    TARGET,
    TEXT,
    Frame,
    accepted,
    closing,
    echo,
    frame,
    open_session,
    read_frame,
    session,
)
from tests.unit.relay.upstreams import Connection, answer, once

KEY = "openai-insecure-api-key.clients-own"
KEYS = (KEY, "OpenAI-Insecure-API-Key.clients-own", "xai-client-secret.clients-own",
        "base64url.bearer.authorization.k8s.io.clients-own")  # fmt: skip

# ---- handshakes


async def test_the_handshake_that_the_provider_sees(caplog: pytest.LogCaptureFixture) -> None:
    own = {**HANDSHAKE, "openai-beta": "realtime=v1", "authorization": "Bearer clients-own",
           "origin": "https://app.example", "sec-websocket-extensions": "permessage-deflate",
           "sec-websocket-protocol": f"realtime, {', '.join(KEYS)}, beta"}  # fmt: skip
    async with provided(session(echo), REALTIME) as (upstream, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, own))
        status, headers = await one.answer_head()
        assert (status, headers.get("sec-websocket-extensions")) == (101, None)
        sent = upstream.received[-1]
    assert sent.target == "/v1/realtime?model=gpt-realtime"
    assert sent.header("openai-beta") == "realtime=v1"
    assert sent.header("authorization") == "Bearer operators-own"
    assert sent.header("sec-websocket-protocol") == "realtime,beta"
    assert sent.header("sec-websocket-extensions") is None
    assert sent.header("sec-websocket-key") != HANDSHAKE["sec-websocket-key"]
    assert "clients-own" not in str(sent) + caplog.text


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("Sec-WebSocket-Protocol: beta\r\n", "beta"), ("", None)],
)
async def test_the_subprotocol_is_the_providers_choice(chosen: str, expected: str | None) -> None:
    own = {**HANDSHAKE, "sec-websocket-protocol": "realtime, beta"}
    async with provided(session(echo, chosen), REALTIME) as (_, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, own))
        status, headers = await one.answer_head()
    assert (status, headers.get("sec-websocket-protocol")) == (101, expected)


async def test_subprotocols_in_several_header_lines_are_one_list() -> None:
    chosen = "Sec-WebSocket-Protocol: beta\r\n"
    async with provided(session(echo, chosen), REALTIME) as (up, relay), client(relay) as one:
        head = one.head("GET", TARGET, {**HANDSHAKE, "sec-websocket-protocol": f"realtime, {KEY}"})
        await one.send(head.removesuffix(b"\r\n") + chosen.encode() + b"\r\n")
        status, headers = await one.answer_head()
        assert up.received[-1].header("sec-websocket-protocol") == "realtime,beta"
    assert (status, headers["sec-websocket-protocol"]) == (101, "beta")


REFUSALS = ("401 Unauthorized", "403 Forbidden", "404 Not Found", "429 Too Many Requests")


@pytest.mark.parametrize(
    ("status", "size"), [*((each, 2) for each in REFUSALS), (REFUSALS[3], 10**5)]
)
async def test_a_refusal_of_the_provider_reaches_the_client(status: str, size: int) -> None:
    body = b'{"error":"' + b"x" * size + b'"}'
    headers = "Content-Type: application/json\r\nRetry-After: 3\r\nSet-Cookie: a=b\r\n"
    raw = answer(body, status, headers)

    async def script(connection: Connection) -> None:
        await connection.request()
        for start in range(0, len(raw), 30_000):
            await connection.send(raw[start : start + 30_000])
            await asyncio.sleep(0.01)

    async with provided(script, REALTIME) as (_, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, HANDSHAKE))
        found = await one.answer()
    assert (found.status, found.body, found.complete) == (int(status[:3]), body, True)
    assert found.headers["retry-after"] == "3"
    assert "set-cookie" not in found.headers


async def test_a_refusal_without_end_is_not_kept() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 403 No\r\nContent-Length: 99999999\r\n\r\n")
        while True:
            await connection.send(b"x" * 65536)

    async with provided(script, REALTIME) as (_, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, HANDSHAKE))
        found = await one.answer()
    assert (found.status, found.complete) == (403, False)
    assert len(found.body) <= 1 << 20


@pytest.mark.parametrize("way", ["gzip", "identity"])
async def test_a_compressed_refusal_is_whole(way: str) -> None:
    """Browsers ask for gzip in their handshakes too."""
    body = gzip.compress(b'{"error":"no"}')
    raw = answer(body, "401 Unauthorized", "Content-Encoding: gzip\r\n")
    async with provided(once(raw), REALTIME) as (_, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, {**HANDSHAKE, "accept-encoding": way}))
        found = await one.answer()
    assert (found.status, found.complete) == (401, True)
    encoded = found.headers.get("content-encoding") == "gzip"
    assert (gzip.decompress(found.body) if encoded else found.body) == b'{"error":"no"}'


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
async def test_an_answer_that_opens_no_session_is_none(status: str) -> None:
    raw = answer(b"" if status[:3] != "200" else b"<html>log in</html>", status)
    async with provided(once(raw), REALTIME) as (_, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, HANDSHAKE))
        assert (await one.answer()).status == 502


async def test_a_redirect_is_not_followed() -> None:
    async with Recorder() as elsewhere:
        raw = answer(b"gone", "302 Found", f"Location: {elsewhere.url()}\r\n")
        async with provided(once(raw), REALTIME) as (_, relay), client(relay) as one:
            await one.send(one.head("GET", TARGET, HANDSHAKE))
            found = await one.answer()
        assert (found.status, "location" in found.headers) == (502, False)
        assert elsewhere.received == []


@pytest.mark.parametrize(
    "raw",
    [
        accepted("another key"),
        accepted("x").replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        accepted("x").replace(b"Sec-WebSocket-Accept", b"X-Other"),
        b"hello\r\n\r\n",
    ],
)
async def test_a_handshake_of_the_provider_that_is_not_valid(raw: bytes) -> None:
    async with provided(once(raw), REALTIME) as (_, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, HANDSHAKE))
        found = await one.answer()
        await relay.settled()
        assert relay.idle == 0
    assert found.status == 502
    assert found.body == b'{"error":{"message":"the provider\'s answer is not valid HTTP"}}'


async def test_a_provider_that_does_not_answer_the_handshake() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.gone()

    late = provided(script, REALTIME, connect_timeout=50, read_timeout=50)
    async with late as (_, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, HANDSHAKE))
        assert (await one.answer()).status == 504


@pytest.mark.parametrize("key", ["short", "", "!" * 24])
async def test_a_handshake_of_the_client_with_a_wrong_key(key: str) -> None:
    async with provided(session(echo), REALTIME) as (upstream, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, {**HANDSHAKE, "sec-websocket-key": key}))
        assert (await one.answer()).status == 400
        assert upstream.heads == []


@pytest.mark.parametrize("version", ["9", "8", "14", "13, 8", "x", ""])
async def test_a_handshake_of_another_version_is_told_which_one_there_is(version: str) -> None:
    """RFC 6455 section 4.4."""
    async with provided(session(echo), REALTIME) as (upstream, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, {**HANDSHAKE, "sec-websocket-version": version}))
        found = await one.answer()
        assert upstream.heads == []
    assert found.status == 426
    assert found.headers["sec-websocket-version"] == "13"
    assert b"version 13" in found.body


async def test_messages_that_come_with_the_handshake_are_not_lost() -> None:
    async def script(connection: Connection) -> None:
        received = await connection.request()
        hello = accepted(received.header("sec-websocket-key") or "") + frame(TEXT, b"hello")
        await connection.send(hello)
        await echo(connection)

    async with provided(script, REALTIME) as (_, relay), client(relay) as one:
        await one.send(one.head("GET", TARGET, HANDSHAKE) + frame(TEXT, b"early", masked=True))
        assert (await one.answer_head())[0] == 101
        got = {(await read_frame(one.reader)).payload for _ in range(2)}
    assert got == {b"hello", b"early"}


# ---- messages


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 3_000_000])
async def test_messages_of_any_size_go_both_ways(opcode: int, size: int) -> None:
    payload = (b"0123456789" * (size // 10 + 1))[:size]
    async with open_session(echo) as (_, _relay, one):
        await one.send(frame(opcode, payload, masked=True))
        assert await read_frame(one.reader) == Frame(opcode, payload)


async def test_fragments_become_one_message() -> None:
    async with open_session(echo) as (_, _relay, one):
        await one.send(frame(TEXT, b"caf\xc3", final=False, masked=True))
        await one.send(frame(PING, b"between", masked=True))
        await one.send(frame(CONTINUATION, b"\xa9", masked=True))
        got = {await read_frame(one.reader) for _ in range(2)}
    assert got == {Frame(TEXT, "café".encode()), Frame(PONG, b"between")}


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_the_providers_fragments_with_control_frames_between_become_one_message(
    opcode: int,
) -> None:
    payload = "Zürich, 東京 \N{WAVING HAND SIGN}".encode()

    async def talk(connection: Connection) -> None:
        await connection.send(frame(opcode, b"", final=False))
        for at in range(len(payload)):  # a byte each, in the midst of characters
            await connection.send(frame(CONTINUATION, payload[at : at + 1], final=False))
            if at % 5 == 0:
                await connection.send(frame(PING, b"%d" % at))
        await connection.send(frame(CONTINUATION, b""))
        await echo(connection)

    async with open_session(talk) as (_, _relay, one):
        got = [await read_frame(one.reader)]
        while got[-1].opcode == PING:
            got.append(await read_frame(one.reader))
    assert got.pop() == Frame(opcode, payload)
    assert got == [Frame(PING, b"%d" % at) for at in range(0, len(payload), 5)]


async def test_frames_that_arrive_in_any_pieces_are_the_same_messages() -> None:
    wire = b"".join(
        frame(TEXT, b"x" * size, masked=True) + frame(PING, b"p", masked=True)
        for size in (0, 125, 126, 300)
    )
    async with open_session(echo) as (_, _relay, one):
        for size in (1, 2, 3, 5, 7, 64):
            for at in range(0, len(wire), size):
                one.writer.write(wire[at : at + size])
                if size < 3:
                    await asyncio.sleep(0)
            await one.writer.drain()
            got = [await read_frame(one.reader) for _ in range(8)]
            texts = [len(each.payload) for each in got if each.opcode == TEXT]
            assert (texts, [each.opcode for each in got].count(PONG)) == ([0, 125, 126, 300], 4)


async def test_the_largest_message_passes_both_ways() -> None:
    size = 24 << 20

    async with open_session(echo) as (_, _relay, one):
        sending = asyncio.create_task(one.send(frame(TEXT, b"A" * size, masked=True)))
        got = await read_frame(one.reader)
        await sending
    assert (got.opcode, len(got.payload)) == (TEXT, size)


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_pings_and_pongs_of_the_provider_reach_the_client(opcode: int) -> None:
    async def talk(connection: Connection) -> None:
        await connection.send(frame(opcode, b"beat"))
        await echo(connection)

    async with open_session(talk) as (_, _relay, one):
        assert await read_frame(one.reader) == Frame(opcode, b"beat")


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_pings_and_pongs_of_the_client_reach_the_provider(opcode: int) -> None:
    """Who answers a ping is the other side, not the relay: it tells that the whole way is open."""
    seen: asyncio.Queue[Frame] = asyncio.Queue()

    async def talk(connection: Connection) -> None:
        seen.put_nowait(await read_frame(connection.reader))
        await connection.send(frame(TEXT, b"next"))
        await echo(connection)

    async with open_session(talk) as (_, _relay, one):
        await one.send(frame(opcode, b"beat", masked=True))
        assert await read_frame(one.reader) == Frame(TEXT, b"next")
    assert await seen.get() == Frame(opcode, b"beat")


async def test_many_messages_both_ways_in_memory_that_does_not_grow() -> None:
    count, warm, filling = 10_000, 2_000, b"x" * 4000
    process = psutil.Process()

    async def talk(connection: Connection) -> None:
        async def read() -> None:
            for number in range(count):
                got = await read_frame(connection.reader)
                assert got.payload == b"up %d %b" % (number, filling)

        reading = asyncio.create_task(read())
        for number in range(count):
            await connection.send(frame(TEXT, b"down %d %b" % (number, filling)))
        await reading
        await connection.send(frame(TEXT, b"all there"))
        await echo(connection)

    async with open_session(talk, logged=True) as (_, _relay, one):

        async def send() -> None:
            for number in range(count):
                await one.send(frame(TEXT, b"up %d %b" % (number, filling), masked=True))

        before = 0
        sending = asyncio.create_task(send())
        for number in range(count):
            got = await read_frame(one.reader)
            assert got.payload == b"down %d %b" % (number, filling)
            if number == warm:
                before = process.memory_info().rss
        await sending
        assert (await read_frame(one.reader)).payload == b"all there"
        # All that passed in the meantime are 64 MB.
        assert process.memory_info().rss < before + (16 << 20)


# ---- closing


CODES = (1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4000, 4999)
CLOSES = [(1000, b""), (1000, b"bye"), *((code, "café".encode()) for code in CODES)]
LONGEST = (4001, b"x" * 123)


@pytest.mark.parametrize(("code", "reason"), [*CLOSES, LONGEST])
async def test_the_clients_close_reaches_the_provider(code: int, reason: bytes) -> None:
    closes: list[Frame] = []

    async def talk(connection: Connection) -> None:
        closes.append(await read_frame(connection.reader))
        await connection.send(frame(CLOSE, closes[0].payload))

    async with open_session(talk) as (_, relay, one):
        await one.send(closing(code, reason, masked=True))
        answered = await read_frame(one.reader)
        assert await one.closed()
        await relay.settled()
    assert (answered.opcode, answered.code) == (CLOSE, code)
    assert (closes[0].code, closes[0].payload[2:]) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), [*CLOSES, LONGEST])
async def test_the_providers_close_reaches_the_client(code: int, reason: bytes) -> None:
    answers: list[Frame] = []

    async def talk(connection: Connection) -> None:
        await connection.send(closing(code, reason))
        answers.append(await read_frame(connection.reader))

    async with open_session(talk) as (_, relay, one):
        found = await read_frame(one.reader)
        await one.send(frame(CLOSE, found.payload, masked=True))
        assert await one.closed()
        await relay.settled()
    assert (found.opcode, found.code, found.payload[2:]) == (CLOSE, code, reason)
    assert (answers[0].opcode, answers[0].code) == (CLOSE, code)


ENDS = {
    "the client closes": (closing(1000, masked=True), b"", None),
    "the client closes with a code of its own": (closing(4000, b"x", masked=True), b"", None),
    "the client closes without a status": (frame(CLOSE, masked=True), b"", None),
    "the provider closes": (b"", closing(1000), None),
    "the provider goes away": (b"", closing(1001, b"restart"), None),
    "the provider fails": (b"", closing(1011, b"oops"), "the provider closed with 1011: oops"),
    "the provider is lost": (b"", b"lost", "the provider was lost"),
    "the provider breaks the protocol": (
        b"",
        frame(CONTINUATION),
        "WebSocket closed with 1002: WebSocketError",
    ),
    "the provider's code is none": (b"", closing(1006), "WebSocket closed with 1006"),
}


@pytest.mark.parametrize("how", ENDS)
async def test_why_a_session_ended_is_told_though_the_client_leaves_at_once(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    up, down, expected = ENDS[how]

    async def talk(connection: Connection) -> None:
        if down and down != b"lost":
            await connection.send(down)
        if down != b"lost":
            found = await read_frame(connection.reader)
            await connection.send(frame(CLOSE, found.payload))

    caplog.set_level("INFO", "kong_ai_proxy.outcome")
    async with open_session(talk, logged=True) as (_, relay, one):
        if up:
            await one.send(up)
        found = await read_frame(one.reader)
        if not up:
            await one.send(frame(CLOSE, found.payload, masked=True))
        one.writer.close()
        await relay.settled()
    (line,) = [r.getMessage() for r in caplog.records if r.name == "kong_ai_proxy.outcome"]
    assert json.loads(line).get("failure") == expected


async def test_the_providers_close_without_a_status_stays_one() -> None:
    answers: list[Frame] = []
    rest: list[bytes] = []

    async def talk(connection: Connection) -> None:
        await connection.send(frame(CLOSE))
        answers.append(await read_frame(connection.reader))
        rest.append(await connection.reader.read())

    async with open_session(talk) as (_, relay, one):
        assert await read_frame(one.reader) == Frame(CLOSE, b"")
        await one.send(frame(CLOSE, masked=True))
        assert await one.closed()
        await relay.settled()
    assert (answers, rest) == ([Frame(CLOSE, b"")], [b""])


async def test_the_clients_close_without_a_status_stays_one() -> None:
    closes: list[Frame] = []
    rest: list[bytes] = []

    async def talk(connection: Connection) -> None:
        closes.append(await read_frame(connection.reader))
        await connection.send(frame(CLOSE))
        rest.append(await connection.reader.read())

    async with open_session(talk) as (_, relay, one):
        await one.send(frame(CLOSE, masked=True))
        assert await read_frame(one.reader) == Frame(CLOSE, b"")
        assert await one.closed()
        await relay.settled()
    assert (closes, rest) == ([Frame(CLOSE, b"")], [b""])


async def test_a_side_that_does_not_answer_a_close_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.1)

    async def talk(connection: Connection) -> None:
        await connection.send(closing(1000))
        await connection.gone()

    async with open_session(talk) as (_, relay, one):
        assert (await read_frame(one.reader)).code == 1000
        await relay.settled()
        assert await one.closed()


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_lost_provider_is_1014_for_the_client(how: str) -> None:
    async def talk(connection: Connection) -> None:
        await read_frame(connection.reader)
        if how == "reset":
            connection.reset()

    async with open_session(talk) as (_, relay, one):
        await one.send(frame(TEXT, b"hi", masked=True))
        assert (await read_frame(one.reader)).code == 1014
        await one.send(closing(1014, masked=True))
        assert await one.closed()
        await relay.settled()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_lost_client_is_1001_for_the_provider(reset: bool) -> None:
    closes: asyncio.Queue[Frame] = asyncio.Queue()

    async def talk(connection: Connection) -> None:
        closes.put_nowait(await read_frame(connection.reader))

    async with open_session(talk) as (_, relay, one):
        one.leave(reset=reset)
        async with asyncio.timeout(5):
            assert (await closes.get()).code == 1001
        await relay.settled()


TOO_LARGE = frame(BINARY, bytes((24 << 20) + 1), masked=True)


def reserved(bit: int, opcode: int = TEXT) -> bytes:
    """A frame with one of the reserved bits, which are for extensions; there are none."""
    sent = bytearray(frame(opcode, b"x", masked=True))
    sent[0] |= bit
    return bytes(sent)


FORBIDDEN = {
    "no UTF-8": (frame(TEXT, b"\xff\xfe", masked=True), 1007),
    "cut UTF-8": (frame(TEXT, b"caf\xc3", masked=True), 1007),
    "too large": (TOO_LARGE, 1009),
    "too large in fragments": (
        frame(BINARY, bytes(13 << 20), final=False, masked=True)
        + frame(CONTINUATION, bytes(13 << 20), masked=True),
        1009,
    ),
    "a length beyond all": (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1009),
    **{f"opcode {code}": (frame(code, b"x", masked=True), 1002) for code in (3, 5, 7, 11, 15)},
    **{f"reserved bit {bit:x}": (reserved(bit), 1002) for bit in (0x40, 0x20, 0x10)},
    "reserved bit of a ping": (reserved(0x40, PING), 1002),
    "UTF-8 that a later frame breaks": (
        frame(TEXT, b"caf\xc3", final=False, masked=True) + frame(CONTINUATION, b"(", masked=True),
        1007,
    ),
    "a message within another": (
        frame(TEXT, b"x", final=False, masked=True) + frame(TEXT, b"y", masked=True),
        1002,
    ),
    "long ping": (frame(PING, b"x" * 126, masked=True), 1002),
    "fragmented ping": (frame(PING, b"x", final=False, masked=True), 1002),
    "continuation of nothing": (frame(CONTINUATION, b"x", masked=True), 1002),
    **{
        f"close with {code}": (closing(code, masked=True), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "close with a reason that is no UTF-8": (closing(1000, b"\xff", masked=True), 1007),
    "close with one byte": (frame(CLOSE, b"x", masked=True), 1002),
}


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_a_client_that_breaks_the_protocol_is_told_and_the_provider_left(what: str) -> None:
    sent, code = FORBIDDEN[what]
    closes: asyncio.Queue[Frame] = asyncio.Queue()

    async def talk(connection: Connection) -> None:
        closes.put_nowait(await read_frame(connection.reader))

    async with open_session(talk) as (_, relay, one):
        sending = asyncio.create_task(one.send(sent))
        found = await read_frame(one.reader)
        assert (found.opcode, found.code) == (CLOSE, code)
        one.leave()
        await asyncio.gather(sending, return_exceptions=True)
        async with asyncio.timeout(5):
            assert (await closes.get()).code == 1001
        await relay.settled()


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_a_provider_that_breaks_the_protocol_is_told_and_lost(what: str) -> None:
    sent, code = FORBIDDEN[what]
    closes: asyncio.Queue[Frame] = asyncio.Queue()

    async def talk(connection: Connection) -> None:
        await asyncio.gather(connection.send(sent), read(connection), return_exceptions=True)

    async def read(connection: Connection) -> None:
        closes.put_nowait(await read_frame(connection.reader))

    async with open_session(talk) as (_, relay, one):
        assert (await read_frame(one.reader)).code == 1014
        await one.send(closing(1014, masked=True))
        assert await one.closed()
        await relay.settled()
        assert (await closes.get()).code == code


# ---- sides that do not read


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A side that is closed is not waited for."""
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
async def test_a_provider_that_does_not_read_stops_the_client() -> None:
    async def talk(connection: Connection) -> None:
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(3600)

    async with open_session(talk, write_timeout=1500) as (_, _relay, one):
        assert await sent_until_stopped(one.send, masked=True) < 40 << 20
        one.leave(reset=True)


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_does_not_read_stops_the_provider() -> None:
    sent: asyncio.Queue[int] = asyncio.Queue()

    async def talk(connection: Connection) -> None:
        sent.put_nowait(await sent_until_stopped(connection.send, masked=False))
        await connection.gone()

    async with open_session(talk, write_timeout=1500) as (_, _relay, one):
        one.writer.transport.pause_reading()  # type: ignore[attr-defined]
        tracemalloc.start()
        assert await sent.get() < 40 << 20
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20e6
        one.leave(reset=True)


async def sent_until_stopped(send: Callable[[bytes], Awaitable[None]], *, masked: bool) -> int:
    """Bytes that went out before nothing went for a while."""
    piece, sent = frame(BINARY, bytes(1 << 16), masked=masked), 0
    while sent < 200 << 20:
        try:
            async with asyncio.timeout(0.5):
                await send(piece)
        except TimeoutError:
            break
        sent += len(piece)
    return sent


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("who", ["client", "provider"])
async def test_a_side_that_takes_nothing_for_longer_than_the_write_timeout_is_lost(
    who: str,
) -> None:
    async def talk(connection: Connection) -> None:
        if who == "client":
            await sent_until_stopped(connection.send, masked=False)
        else:
            connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(3600)

    async with open_session(talk, write_timeout=200) as (_, relay, one):
        if who == "client":
            one.writer.transport.pause_reading()  # type: ignore[attr-defined]
        else:
            sending = asyncio.create_task(sent_until_stopped(one.send, masked=True))
        await relay.settled(20)
        if who == "provider":
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
