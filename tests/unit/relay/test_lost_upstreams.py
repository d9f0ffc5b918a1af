"""Providers that cannot be reached, break off, keep silent or talk nonsense."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from tests.relays import RunningRelay, running
from tests.unit.relay.clients import (
    FILES,
    UPLOAD,
    Answer,
    ask,
    client,
    form,
    provided,
    target,
)
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

UNREACHABLE = b'{"error":{"message":"the provider cannot be reached"}}'
LATE = b'{"error":{"message":"the provider did not answer in time"}}'
NONSENSE = b'{"error":{"message":"the provider\'s answer is not valid HTTP"}}'
WHOLE = answer(b'{"a":1}')
HEAD = WHOLE[: WHOLE.index(b"\r\n\r\n") + 4]


async def answered(script: Script, **timeouts: Any) -> Answer:
    """The relay's answer to a chat request with this provider, whose connection is ended."""
    async with provided(script, **timeouts) as (_, relay):
        found = await ask(relay)
        await relay.settled()
        assert relay.idle == 0
        return found


def is_refusal(found: Answer, status: int, body: bytes) -> bool:
    return (found.status, found.body, found.complete) == (status, body, True)


# ---- before the head


async def test_a_refused_connection() -> None:
    async with Upstream(always()) as upstream:
        url = upstream.url()
    async with running(target(url)) as relay:
        assert is_refusal(await ask(relay), 502, UNREACHABLE)


async def test_a_host_that_does_not_exist() -> None:
    async with running(target("http://provider.invalid/v1/chat/completions")) as relay:
        assert is_refusal(await ask(relay), 502, UNREACHABLE)


@pytest.mark.parametrize("sent", [*range(0, len(HEAD), 9), len(HEAD) - 1])
async def test_a_reset_before_the_head_is_complete(sent: int) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(HEAD[:sent])
        connection.reset()

    found = await answered(script)
    assert is_refusal(found, 502, UNREACHABLE)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_request_is_sent_once_only(method: str) -> None:
    """Whether there is another try is not decided where connections are made."""

    async def script(connection: Connection) -> None:
        await connection.request()

    async with provided(script, FILES) as (upstream, relay):
        found = await ask(relay, method, "/v1/files/file-1", b"", {})
        assert is_refusal(found, 502, UNREACHABLE)
        assert len(upstream.heads) == 1


async def test_an_end_before_the_head() -> None:
    found = await answered(once(b"HTTP/1.1 200 OK\r\n"))
    assert is_refusal(found, 502, UNREACHABLE)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-T"])
async def test_silence_before_the_head(sent: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(sent)
        await connection.gone()

    found = await answered(script, read_timeout=100)
    assert is_refusal(found, 504, LATE)


async def test_a_head_that_trickles() -> None:
    """Each byte is in time, the head never is."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            await connection.send(b"x")
            await asyncio.sleep(0.02)

    found = await answered(script, read_timeout=200, write_timeout=100, connect_timeout=100)
    assert is_refusal(found, 504, LATE)


async def test_interim_answers_without_end() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        while True:
            await connection.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
            await asyncio.sleep(0.001)

    tracemalloc.start()
    found = await answered(script, read_timeout=200, write_timeout=100, connect_timeout=100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert is_refusal(found, 504, LATE)
    assert peak < 20e6


async def test_interim_answers_are_left_out() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with provided(always(hints, WHOLE)) as (_, relay):
        found = await ask(relay)
        assert (found.status, found.body) == (200, b'{"a":1}')
        assert "link" not in found.headers


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Odd: a\x01b\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Odd: a\x00b\r\nContent-Length: 9\r\n\r\n",
        bytes(range(256)) * 8 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http(sent: bytes) -> None:
    found = await answered(once(sent))
    assert is_refusal(found, 502, NONSENSE)


@pytest.mark.parametrize("what", ["many headers", "one huge header", "a huge status line"])
async def test_endless_heads_take_no_memory(what: str) -> None:
    block = {
        "many headers": b"X-Many: " + b"y" * 100 + b"\r\n",
        "one huge header": b"z" * 4096,
        "a huge status line": b"w" * 4096,
    }[what]
    first = b"HTTP/1.1 200 " if "status" in what else b"HTTP/1.1 200 OK\r\n"
    first += b"X-Huge: " if "one" in what else b""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(first)
        while True:
            await connection.send(block * 16)

    tracemalloc.start()
    found = await answered(script)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert is_refusal(found, 502, NONSENSE)
    assert peak < 20e6


async def test_as_many_headers_as_large_providers_send_are_taken() -> None:
    headers = "".join(f"X-Number-{n}: {n}\r\n" for n in range(200))
    async with provided(always(answer(b"{}", headers=headers))) as (_, relay):
        assert (await ask(relay)).headers["x-number-199"] == "199"


# ---- in the body


CUT = {
    "length": answer(b"0123456789" * 5),
    "chunked": CHUNKED + chunk(b"01234") + chunk(b"56789") + LAST_CHUNK,
    "stream": SSE + chunk(b"data: {}\n\n") + chunk(b"data: [DONE]\n\n") + LAST_CHUNK,
}


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("how", ["reset", "end"])
async def test_a_body_that_breaks_off_is_never_taken_for_complete(kind: str, how: str) -> None:
    """At each of its bytes."""
    whole = CUT[kind]
    start = whole.index(b"\r\n\r\n") + 4
    cuts = iter(range(start, len(whole)))

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(whole[: next(cuts)])
        if how == "reset":
            connection.reset()

    async with provided(script) as (_, relay):
        for _ in range(start, len(whole)):
            async with client(relay) as one:
                await one.ask()
                try:
                    found = await one.answer()
                except (asyncio.IncompleteReadError, ConnectionError):
                    continue
            assert not found.complete or found.status == 502
        assert relay.idle == 0


async def test_what_came_before_a_stream_broke_off_reaches_the_client_with_an_error() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(SSE + chunk(b'data: {"n":1}\n\n'))
        await connection.reader.read(1)

    async with provided(script) as (upstream, relay), client(relay) as one:
        await one.ask()
        await one.reader.readuntil(b'data: {"n":1}\n\n')
        upstream.break_off()
        rest = await one.reader.read()
    assert b'"error"' in rest
    assert b"[DONE]" not in rest
    assert not rest.endswith(LAST_CHUNK)


@pytest.mark.parametrize("kind", CUT)
async def test_silence_in_the_body(kind: str) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CUT[kind][:-20])
        await connection.gone()

    found = await answered(script, read_timeout=100)
    assert (found.status, found.complete) == (200, False)


async def test_a_body_that_comes_slowly_but_in_time_is_complete() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(SSE)
        for _ in range(8):
            await asyncio.sleep(0.1)
            await connection.send(chunk(b"data: {}\n\n"))
        await connection.send(LAST_CHUNK)

    async with provided(script, read_timeout=500) as (_, relay):
        found = await ask(relay)
    assert (found.body, found.complete) == (b"data: {}\n\n" * 8, True)


@pytest.mark.parametrize("size", [b"zz", b"-5", b"fffffffffffffffff", b"5 5", b"0x5", b""])
async def test_chunk_sizes_that_make_no_sense(size: bytes) -> None:
    found = await answered(once(CHUNKED + chunk(b"01234"), size + b"\r\n01234\r\n" + LAST_CHUNK))
    assert found.status == 502 or not found.complete


async def test_a_body_longer_than_its_length_ends_there() -> None:
    """What is too much does not become part of the next answer."""
    async with provided(always(answer(b"0123456789"), b"and more")) as (_, relay):
        for _ in range(5):
            found = await ask(relay)
            assert found.status == 502 or (found.body, found.complete) == (b"0123456789", True)


async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    more = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer(b"first"))
        await more.wait()
        await connection.send(answer(b"nobody asked"))
        await connection.request()
        await connection.send(answer(b"second"))

    async with provided(script) as (upstream, relay):
        assert (await ask(relay)).body == b"first"
        assert relay.idle == 1
        more.set()
        await arrived(relay)
        await ask(relay)
        assert upstream.connections == 2


async def arrived(relay: RunningRelay) -> None:
    """Wait until something came on an idle connection, or it was closed."""
    async with asyncio.timeout(5):
        while any(
            proto.is_connected() and not proto.should_close
            for kept in relay._connector._conns.values()
            for proto, _ in kept
        ):
            await asyncio.sleep(0.005)


async def test_a_kept_connection_that_the_provider_closed_is_not_used() -> None:
    async with provided(once(answer(b"{}"))) as (upstream, relay):
        for number in range(1, 4):
            assert (await ask(relay)).status == 200
            async with asyncio.timeout(5):
                while upstream.open:
                    await asyncio.sleep(0.005)
            assert upstream.connections == number


# ---- uploads


BIG = b'{"messages":[{"role":"user","content":"' + b"x" * 12_000_000 + b'"}]}'


async def never_reads(connection: Connection) -> None:
    connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(3600)


async def test_a_provider_that_takes_no_body_that_was_read_before() -> None:
    async with provided(never_reads, write_timeout=100, read_timeout=60000) as (_, relay):
        assert is_refusal(await ask(relay, body=BIG), 504, LATE)


async def test_a_provider_that_takes_no_upload() -> None:
    slow = provided(never_reads, FILES, write_timeout=100, read_timeout=60000)
    async with slow as (_, relay), client(relay) as one:
        sending = asyncio.create_task(one.ask("POST", "/v1/files", form(BIG), UPLOAD))
        assert is_refusal(await one.answer(), 504, LATE)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_provider_that_does_not_take_the_end_of_the_body() -> None:
    """The last piece is small enough to wait in a buffer."""

    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.reader.readexactly(len(BIG) // 2)
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(3600)

    async with provided(script, write_timeout=100, read_timeout=200) as (_, relay):
        assert is_refusal(await ask(relay, body=BIG), 504, LATE)


async def test_an_answer_that_comes_before_the_upload_has_ended() -> None:
    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.reader.readexactly(100_000)
        await connection.send(answer(b'{"error":"too large"}', "413 Content Too Large"))
        await connection.gone()

    async with provided(script, FILES) as (_, relay):
        async with client(relay) as one:
            head = one.head("POST", "/v1/files", {**UPLOAD, "content-length": "1000000"})
            await one.send(head + form(b"x" * 200_000))
            found = await one.answer()
            assert (found.status, found.body) == (413, b'{"error":"too large"}')
        await relay.settled()
        assert relay.idle == 0


async def test_an_early_answer_leaves_a_client_that_goes_on_its_connection() -> None:
    """The provider's is kept only if the whole upload has left before the answer was complete."""

    async def script(connection: Connection) -> None:
        while True:
            received = await connection.head()
            await connection.send(answer(b"no", "403 Forbidden"))
            async for _ in connection.body(received):
                pass

    async with provided(script, FILES) as (_, relay), client(relay) as one:
        for _ in range(5):
            await one.ask("POST", "/v1/files", form(b"x" * 1_000_000), UPLOAD)
            assert (await one.answer()).status == 403


async def test_a_body_that_was_read_goes_up_with_its_length_whatever_that_is() -> None:
    async with provided(always(answer(b"{}"))) as (upstream, relay):
        for size in (0, 1, 65_000, 65_536, 70_000, 262_144, 1_000_000):
            body = b'{"model":"gpt-4o","user":"' + b"x" * size + b'","messages":[{}]}'
            assert (await ask(relay, body=body)).status == 200
            assert upstream.received[-1].body == body
            assert upstream.received[-1].header("content-length") == str(len(body))
