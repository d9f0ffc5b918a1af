"""What becomes of the relay's connections when it accepts no more."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.relays import running
from tests.unit.relay.clients import FILES, UPLOAD, ask, client, form, provided, target
from tests.unit.relay.sockets import TEXT, Frame, closing, echo, frame, open_session, read_frame
from tests.unit.relay.upstreams import Upstream, always, answer, once


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


async def test_a_whole_answer_is_under_way_until_a_slow_client_has_it() -> None:
    """The worker waits for it before it ends what is left."""
    content = [{"type": "text", "text": "x" * (16 << 20)}]
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude"}
    usage = {"input_tokens": 1, "output_tokens": 1}
    told = {**message, "content": content, "stop_reason": "end_turn", "usage": usage}
    async with Upstream(always(answer(orjson.dumps(told)))) as upstream:
        model: dict[str, Any] = {"provider": "anthropic", "name": "claude-sonnet-4-5"}
        model["options"] = {"upstream_url": upstream.url(""), "anthropic_version": "2023-06-01"}
        configuration = {**target(""), "model": model}
        async with running(configuration) as relay, client(relay) as one:
            await one.ask()
            status, headers = await one.answer_head()
            relay.relay.stop()
            for _ in range(10):
                await asyncio.sleep(0)
            assert (status, relay.relay.requests) == (200, 1)
            body = await one.reader.readexactly(int(headers["content-length"]))
            assert len(body) > 16 << 20
            await relay.settled()
