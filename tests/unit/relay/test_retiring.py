"""What becomes of the relay's connections when it accepts no more."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.relay.clients import FILES, UPLOAD, ask, client, form, provided
from tests.unit.relay.sockets import TEXT, Frame, closing, echo, frame, open_session, read_frame
from tests.unit.relay.upstreams import answer, once


async def test_an_idle_connection_is_closed() -> None:
    async with provided(once(answer())) as (_, relay), client(relay) as one:
        await one.ask()
        assert (await one.answer()).keeps
        relay.relay.stop()
        assert await one.closed()


@pytest.mark.parametrize("before", [1, 100_000])
async def test_an_upload_that_is_under_way_arrives_whole(before: int) -> None:
    """Its connection is closed after the answer."""
    body = form(b"x" * 200_000)
    async with (
        provided(once(answer()), FILES) as (upstream, relay),
        client(relay) as one,
    ):
        length = {**UPLOAD, "content-length": str(len(body))}
        await one.send(one.head("POST", "/v1/files", length) + body[:before])
        async with asyncio.timeout(10):
            while not upstream.heads:
                await asyncio.sleep(0.005)
        relay.relay.stop()
        await one.send(body[before:])
        assert (await one.answer()).status == 200
        assert await one.closed()
    assert upstream.received[0].body == body


async def test_a_request_that_has_just_come_is_answered() -> None:
    async with provided(once(answer())) as (_, relay):
        asking = asyncio.create_task(ask(relay))
        async with asyncio.timeout(10):
            while not relay.relay.requests:
                await asyncio.sleep(0)
        relay.relay.stop()
        assert (await asking).status == 200


async def test_a_session_goes_on_when_the_relay_accepts_no_more() -> None:
    async with open_session(echo) as (_, relay, one):
        relay.relay.stop()
        for payload in (b"after", b"a while"):
            await one.send(frame(TEXT, payload, masked=True))
            async with asyncio.timeout(10):
                assert await read_frame(one.reader) == Frame(TEXT, payload)
        await one.send(closing(1000, masked=True))
        assert (await read_frame(one.reader)).code == 1000
        assert await one.closed()
        await relay.settled()
