"""Clients that leave, stop reading, trickle, pipeline or break off."""

from __future__ import annotations

import asyncio

import pytest

from kong_ai_proxy.relay.downstream import Downstream
from tests.unit.relay.clients import FILES, HELLO, JSON, UPLOAD, client, form, provided
from tests.unit.relay.upstreams import (
    CHUNKED,
    SSE,
    Connection,
    always,
    answer,
    chunk,
)

SOON = 1.0
"""Seconds. In fact it takes a few milliseconds; a busy machine must not fail the tests."""


class Ended:
    """When the relay ended its connection to a provider whose script is `script`."""

    def __init__(self, before: bytes, *, reads: bool = True, upload: int = 0) -> None:
        self.started = asyncio.Event()
        self.at: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._before, self._reads, self._upload = before, reads, upload

    async def script(self, connection: Connection) -> None:
        if self._upload:
            await connection.head()
            await connection.reader.readexactly(self._upload)
        else:
            await connection.request()
        await connection.send(self._before)
        self.started.set()
        self.at.set_result(await connection.gone())

    async def after(self, left: float) -> float:
        """Seconds from the client's leaving."""
        async with asyncio.timeout(10):
            return await self.at - left


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"", id="before the head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-", id="within the head"),
        pytest.param(answer(b"x" * 1000)[:-500], id="within an answer with a length"),
        pytest.param(CHUNKED + chunk(b"1"), id="within a chunked answer"),
        pytest.param(SSE + chunk(b"data: 1\n\n"), id="within a stream"),
    ],
)
async def test_the_provider_is_told_at_once_when_the_client_leaves(before: bytes, how: str) -> None:
    ended = Ended(before)
    async with provided(ended.script) as (_, relay), client(relay) as one:
        await one.ask()
        await ended.started.wait()
        if b"\r\n\r\n" in before:
            await one.answer_head()
        assert await ended.after(one.leave(reset=how == "reset")) < SOON
        await relay.settled()
        assert relay.idle == 0


async def test_a_client_that_leaves_during_its_upload() -> None:
    ended = Ended(b"", upload=100_000)
    async with provided(ended.script, FILES) as (_, relay), client(relay) as one:
        head = one.head("POST", "/v1/files", {**UPLOAD, "content-length": "1000000"})
        await one.send(head + form(b"x" * 200_000))
        await ended.started.wait()
        assert await ended.after(one.leave()) < SOON


async def test_a_client_that_leaves_during_an_upload_that_the_provider_does_not_take() -> None:
    """The relay does not read on then, and sees the client leave when the time to write is over."""
    held = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.head()
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        held.set()
        await asyncio.sleep(3600)

    slow = provided(script, FILES, write_timeout=300)
    async with slow as (_, relay), client(relay) as one:
        sending = asyncio.create_task(one.ask("POST", "/v1/files", form(bytes(40 << 20)), UPLOAD))
        await held.wait()
        sending.cancel()
        one.leave()
        await asyncio.gather(sending, return_exceptions=True)
        await relay.settled()


async def test_a_client_that_leaves_while_its_request_is_read() -> None:
    async with provided(always(answer(b"{}"))) as (upstream, relay), client(relay) as one:
        await one.send(one.head("POST", "/chat", {**JSON, "content-length": "1000"}) + HELLO)
        one.leave()
        await relay.settled()
        assert upstream.heads == []


# ---- reading slowly


async def test_a_client_that_stops_reading_stops_the_provider() -> None:
    written = 0
    blocked = asyncio.Event()

    async def script(connection: Connection) -> None:
        nonlocal written
        await connection.request()
        await connection.send(SSE)
        piece = chunk(b"x" * (1 << 16))
        try:
            while True:
                async with asyncio.timeout(1):
                    await connection.send(piece)
                written += 1 << 16
        except TimeoutError:
            blocked.set()
        await connection.gone()

    async with provided(script) as (_, relay), client(relay) as one:
        await one.ask()
        one.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(30):
            await blocked.wait()
        assert written < 32 << 20, "more than two sockets' buffers and the relay's own"
        one.leave()


async def test_a_client_that_reads_slowly_gets_everything() -> None:
    body = bytes(range(256)) * (1 << 12)
    async with provided(always(answer(body))) as (_, relay), client(relay) as one:
        await one.ask()
        _, headers = await one.answer_head()
        assert headers["content-length"] == str(len(body))
        taken = bytearray()
        while len(taken) < len(body):
            taken += await one.reader.read(5000)
            await asyncio.sleep(0)
        assert taken == body


# ---- sending slowly, or not all


async def test_a_request_that_trickles() -> None:
    async with provided(always(answer(b"{}"))) as (upstream, relay), client(relay) as one:
        head = one.head("POST", "/chat", {**JSON, "content-length": str(len(HELLO))})
        for byte in head + HELLO:
            await one.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await one.answer()).status == 200
        assert upstream.received[-1].body[:-1].startswith(HELLO[:-1])


CUT_SHORT = {
    "length": ({"content-length": "100000"}, form(b"x" * 1000)),
    "chunked": ({"transfer-encoding": "chunked"}, chunk(form(b"x" * 1000))),
    "chunked within a chunk": ({"transfer-encoding": "chunked"}, chunk(form(b"x" * 1000))[:-9]),
}


@pytest.mark.parametrize("kind", CUT_SHORT)
async def test_an_upload_cut_short_is_never_complete_for_the_provider(kind: str) -> None:
    headers, body = CUT_SHORT[kind]
    begun = asyncio.Event()

    async def script(connection: Connection) -> None:
        begun.set()
        await connection.request()

    async with provided(script, FILES) as (upstream, relay), client(relay) as one:
        await one.send(one.head("POST", "/v1/files", {**UPLOAD, **headers}) + body)
        await begun.wait()
        one.leave()
        await relay.settled()
        assert upstream.received == []


@pytest.mark.parametrize("bad", [b"zz\r\n", b"5\r\n0123456789\r\n", b"-1\r\n"])
async def test_an_upload_with_broken_chunks(bad: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()

    async with provided(script, FILES) as (upstream, relay), client(relay) as one:
        headers = {**UPLOAD, "transfer-encoding": "chunked"}
        await one.send(one.head("POST", "/v1/files", headers) + chunk(b"--cut\r\n"))
        await one.send(bad)
        found = await one.answer()
        assert found.status == 400
        assert await one.closed()
        assert upstream.received == []


async def test_a_chunked_upload_arrives() -> None:
    body = form(bytes(range(256)) * 1000)
    async with provided(always(answer(b"{}")), FILES) as (upstream, relay), client(relay) as one:
        headers = {**UPLOAD, "transfer-encoding": "chunked"}
        await one.send(one.head("POST", "/v1/files", headers))
        for start in range(0, len(body), 9999):
            await one.send(chunk(body[start : start + 9999]))
        await one.send(b"0\r\nX-Trailer: dropped\r\n\r\n")
        assert (await one.answer()).status == 200
        assert upstream.received[-1].body == body
        assert "x-trailer" not in upstream.received[-1].names


async def test_an_upload_with_a_length_keeps_it() -> None:
    body = form(b"x" * 300_000)
    async with provided(always(answer(b"{}")), FILES) as (upstream, relay), client(relay) as one:
        await one.ask("POST", "/v1/files", body, UPLOAD)
        assert (await one.answer()).status == 200
        assert upstream.received[-1].header("content-length") == str(len(body))
        assert upstream.received[-1].header("transfer-encoding") is None
        assert upstream.received[-1].body == body


@pytest.mark.parametrize("route_type", ["llm/v1/chat", FILES])
async def test_a_client_that_waits_for_100_continue_is_told_to_go_on(route_type: str) -> None:
    body, headers = (HELLO, JSON) if route_type != FILES else (form(b"x"), UPLOAD)
    async with provided(always(answer(b"{}")), route_type) as (upstream, relay):
        async with client(relay) as one:
            for _ in range(2):
                waiting = {**headers, "expect": "100-continue", "content-length": str(len(body))}
                await one.send(one.head("POST", "/v1/files", waiting))
                assert (await one.answer_head())[0] == 100
                await one.send(body)
                assert (await one.answer()).status == 200
        assert upstream.received[-1].header("expect") is None


async def test_a_client_that_waits_for_100_continue_is_refused_without_it() -> None:
    async with provided(always(answer(b"{}"))) as (_, relay), client(relay) as one:
        headers = {"content-type": "text/plain", "expect": "100-continue", "content-length": "9"}
        await one.send(one.head("POST", "/chat", headers))
        assert (await one.answer_head())[0] == 415


# ---- one connection, several requests


async def test_requests_that_are_sent_all_at_once_are_answered_in_their_order() -> None:
    number = 0

    async def script(connection: Connection) -> None:
        nonlocal number
        while True:
            await connection.request()
            number += 1
            await connection.send(answer(b"%d" % number))

    async with provided(script) as (upstream, relay), client(relay) as one:
        headers = {**JSON, "content-length": str(len(HELLO))}
        await one.send(b"".join(one.head("POST", "/chat", headers) + HELLO for _ in range(100)))
        for expected in range(1, 101):
            assert (await one.answer()).body == b"%d" % expected
        assert upstream.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        answer(b"{}"),
        answer(b"{}", "500 Internal Server Error"),
        answer(b""),
        CHUNKED + chunk(b"{}") + b"0\r\n\r\n",
        SSE + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"hello\r\n\r\n",
    ],
)
async def test_the_clients_connection_is_kept_after_a_complete_answer(raw: bytes) -> None:
    async with provided(always(raw)) as (_, relay), client(relay) as one:
        for _ in range(3):
            await one.ask()
            found = await one.answer()
            assert found.complete
            assert found.keeps


@pytest.mark.parametrize("raw", [answer(b"x" * 99)[:-9], CHUNKED + chunk(b"1"), SSE + b"2\r\n"])
async def test_the_clients_connection_is_closed_after_a_broken_answer(raw: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(raw)

    async with provided(script) as (_, relay), client(relay) as one:
        await one.ask()
        await one.answer_head()
        rest = await one.reader.read()
        assert not rest.endswith(b"0\r\n\r\n")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passing on the second piece of an answer fails."""
    emit, seen = Downstream.emit, 0

    async def broken(self: Downstream, piece: bytes) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise ValueError(HELLO)
        await emit(self, piece)

    monkeypatch.setattr(Downstream, "emit", broken)


@pytest.mark.usefixtures("failing")
async def test_a_fault_of_ours_in_the_middle_of_an_answer_does_not_begin_another_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    more = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer(b"x" * 500)[:-400])
        await more.wait()
        await connection.send(b"y" * 400)
        await connection.gone()

    async with provided(script) as (_, relay), client(relay) as one:
        await one.ask()
        await one.answer_head()
        await one.reader.readexactly(100)
        more.set()
        assert await one.closed()
        await relay.settled()
    assert "an answer broke off" in caplog.text
    assert HELLO.decode() not in caplog.text
    caplog.clear()
