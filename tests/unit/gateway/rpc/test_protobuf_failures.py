"""ProtoBuf:1 fails closed: what Kong does when its plugin server fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kong_ai_proxy.gateway.plugins import Limits
from kong_ai_proxy.gateway.rpc.protobuf import MESSAGES
from tests.unit.gateway.rpc.servers import Conn, Handler, external, plugin, request, serving

PB = "ProtoBuf:1"
FAST = Limits(read=0.05, poll=0.01, claim=0.05)


def text(value: str) -> bytes:
    return bytes(MESSAGES["String"](v=value.encode()).SerializeToString())


def handling(event: Handler) -> Handler:
    """A server that starts instances (counting from 1) and gives each event's connection to
    `event`, with the call as attribute `call`.
    """
    count = 0

    async def handler(conn: Conn) -> None:
        nonlocal count
        while True:
            call = await conn.read_call()
            if call.HasField("cmd_start_instance"):
                count += 1
                conn.started(call, count)
            elif call.HasField("cmd_close_instance"):
                conn.returned(call)
            else:
                conn.call = call  # type: ignore[attr-defined]
                await event(conn)

    return handler


async def run_once(path: Path, event: Handler, limits: Limits = FAST) -> tuple[int | None, str]:
    """The status Kong answers by itself (None: the request goes on) and its log."""
    async with serving(path, handling(event)), external(path, PB, limits) as plugins:
        ctx = request()
        await plugins.run(plugin(), "access", ctx)
        return (None if ctx.exit is None else ctx.exit.status), "\n".join(ctx.log)


async def test_server_not_there_is_500(tmp_path: Path) -> None:
    async with external(tmp_path / "s", PB) as plugins:
        ctx = request()
        await plugins.run(plugin(), "access", ctx)
    assert ctx.exit is not None
    assert ctx.exit.status == 500
    assert "no such file or directory" in ctx.log[0]


async def test_server_gone_with_a_known_instance_is_500(tmp_path: Path) -> None:
    async def end(conn: Conn) -> None:
        conn.end(conn.call)  # type: ignore[attr-defined]

    async with external(tmp_path / "s", PB) as plugins:
        async with serving(tmp_path / "s", handling(end)):
            await plugins.run(plugin(), "access", request())
        (tmp_path / "s").unlink(missing_ok=True)
        await asyncio.sleep(0)
        ctx = request()
        await plugins.run(plugin(), "access", ctx)
    assert ctx.exit is not None
    assert ctx.exit.status == 500


async def test_no_answer_in_time_is_500(tmp_path: Path) -> None:
    async def hang(conn: Conn) -> None:
        await conn.reader.read()

    assert await run_once(tmp_path / "s", hang) == (
        500,
        "[error] [p] pluginserver error: timeout",
    )


async def test_unknown_method_is_500_with_its_text_in_the_log(tmp_path: Path) -> None:
    async def fail(conn: Conn) -> None:
        conn.call_pdk('handler raised: "boom"')

    status, log = await run_once(tmp_path / "s", fail)
    assert status == 500
    assert log == '[error] [p] pluginserver error: method "handler raised: \\"boom\\"" not found'


async def test_close_within_the_event_repeats_it_until_the_bound(tmp_path: Path) -> None:
    seen = 0

    async def close(conn: Conn) -> None:
        nonlocal seen
        seen += 1
        raise EOFError

    status, log = await run_once(tmp_path / "s", close, Limits(rounds=4))
    assert (status, seen) == (500, 4)
    assert log.count("[warn] [p] closed") == 4
    assert "a real Kong would go on for ever" in log


async def test_text_with_closed_in_it_repeats_the_event(tmp_path: Path) -> None:
    seen = 0

    async def once(conn: Conn) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            conn.call_pdk("the Door is CLOSED")
        else:
            conn.end(conn.call)  # type: ignore[attr-defined]

    assert (await run_once(tmp_path / "s", once))[0] is None
    assert seen == 2


async def test_wrong_sequence_is_500(tmp_path: Path) -> None:
    async def wrong(conn: Conn) -> None:
        conn.frame(b"")
        conn.frame(MESSAGES["RpcReturn"](sequence=999).SerializeToString())

    status, log = await run_once(tmp_path / "s", wrong)
    assert status == 500
    assert "assertion failed" in log


@pytest.mark.parametrize("argument", [b"\xff", b"\x0a\x05ab"])
async def test_malformed_argument_is_500(tmp_path: Path, argument: bytes) -> None:
    async def send(conn: Conn) -> None:
        conn.call_pdk("kong.request.get_header", argument)

    status, log = await run_once(tmp_path / "s", send)
    assert status == 500
    assert "decode" in log


async def test_malformed_return_is_500(tmp_path: Path) -> None:
    async def send(conn: Conn) -> None:
        conn.frame(b"")
        conn.frame(b"\xff\xff")

    assert (await run_once(tmp_path / "s", send))[0] == 500


async def test_replies_before_a_failing_call_are_sent(tmp_path: Path) -> None:
    replies: list[bytes] = []
    done = asyncio.Event()

    async def batch(conn: Conn) -> None:
        conn.call_pdk("kong.request.get_method")
        conn.call_pdk("kong.service.request.set_path", text("no-slash"))
        conn.call_pdk("kong.request.get_method")
        replies.append(await conn.read_frame())
        try:
            await conn.read_frame()
        finally:
            done.set()

    status, log = await run_once(tmp_path / "s", batch)
    await asyncio.wait_for(done.wait(), 5)
    assert status == 500
    assert "path must start with /" in log
    assert replies == [text("GET")]


async def test_start_without_status_blocks_the_next_request_until_the_claim_ends(
    tmp_path: Path,
) -> None:
    async def handler(conn: Conn) -> None:
        while True:
            conn.returned(await conn.read_call())

    async with serving(tmp_path / "s", handler), external(tmp_path / "s", PB, FAST) as plugins:
        first, second = request(), request()
        await plugins.run(plugin(), "access", first)
        await plugins.run(plugin(), "access", second)
    assert first.exit is not None
    assert "instance_status" in first.log[0]
    assert second.exit is not None
    assert "Could not claim instance_id for p (key: plugin-1)" in second.log[0]


async def test_exit_sends_no_reply_and_drops_the_connection(tmp_path: Path) -> None:
    rest: list[bytes] = []
    done = asyncio.Event()

    async def leave(conn: Conn) -> None:
        arguments = MESSAGES["ExitArgs"](status=403, body=b"no")
        conn.call_pdk("kong.response.exit", arguments.SerializeToString())
        rest.append(await conn.reader.read())
        done.set()

    status, _ = await run_once(tmp_path / "s", leave)
    await asyncio.wait_for(done.wait(), 5)
    assert status == 403
    assert rest == [b""]


async def test_failure_in_the_log_phase_is_only_logged(tmp_path: Path) -> None:
    async def fail(conn: Conn) -> None:
        conn.call_pdk("oops")

    async with serving(tmp_path / "s", handling(fail)), external(tmp_path / "s", PB) as plugins:
        ctx = request()
        await plugins.run(plugin(), "log", ctx)
    assert ctx.exit is None
    assert "oops" in ctx.log[0]
