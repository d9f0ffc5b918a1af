"""MsgPack:1 fails open: what Kong does when its plugin server fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kong_ai_proxy.gateway.plugins import Limits
from tests.unit.gateway.rpc.servers import POST, Conn, Handler, external, plugin, request, serving

MP = "MsgPack:1"
FAST = Limits(read=0.05, poll=0.01, claim=0.05)
Event = Callable[[Conn, list[Any]], Awaitable[None] | None]


def handling(event: Event) -> Handler:
    """A server that starts instances, and gives all else to `event`."""
    count = 0

    async def handler(conn: Conn) -> None:
        nonlocal count
        while True:
            message = await conn.read_message()
            if message[2] == "plugin.StartInstance":
                count += 1
                conn.answer(message, {"Id": count})
            elif message[2] == "plugin.CloseInstance":
                conn.answer(message, None)
            else:
                waiting = event(conn, message)
                if waiting is not None:
                    await waiting

    return handler


async def run_once(
    path: Path, event: Event, limits: Limits = FAST, raw: str = POST
) -> tuple[int | None, str]:
    async with serving(path, handling(event)), external(path, MP, limits) as plugins:
        ctx = request(raw)
        await plugins.run(plugin(), "access", ctx)
        assert ctx.upstream.path in ("/base/chat", "/changed")
        return (None if ctx.exit is None else ctx.exit.status), "\n".join(ctx.log)


async def test_server_not_there_is_500(tmp_path: Path) -> None:
    async with external(tmp_path / "s", MP) as plugins:
        ctx = request()
        await plugins.run(plugin(), "access", ctx)
    assert ctx.exit is not None
    assert ctx.exit.status == 500


async def test_server_gone_with_a_known_instance_lets_the_request_go_on(tmp_path: Path) -> None:
    async with external(tmp_path / "s", MP) as plugins:
        async with serving(
            tmp_path / "s", handling(lambda conn, message: conn.answer(message, {"Data": "ret"}))
        ):
            await plugins.run(plugin(), "access", request())
        (tmp_path / "s").unlink(missing_ok=True)
        ctx = request()
        await plugins.run(plugin(), "access", ctx)
    assert ctx.exit is None
    assert ctx.log


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("boom", (None, "[error] [p] boom")),
        (False, (None, "")),
        (5, (500, "[error] [p] attempt to index a value that is no text: 5")),
    ],
)
async def test_error_reply_lets_the_request_go_on(
    tmp_path: Path, error: object, expected: tuple[int | None, str]
) -> None:
    found = await run_once(tmp_path / "s", lambda conn, message: conn.answer(message, None, error))
    assert found == expected


async def test_what_was_set_before_the_error_stays_set(tmp_path: Path) -> None:
    def event(conn: Conn, message: list[Any]) -> None:
        if message[2] == "plugin.HandleEvent":
            conn.step(message, "kong.service.request.set_path", "/changed")
        else:
            conn.answer(message, None, "late boom")

    async with (
        serving(tmp_path / "s", handling(event)),
        external(tmp_path / "s", MP) as plugins,
    ):
        ctx = request()
        await plugins.run(plugin(), "access", ctx)
    assert ctx.exit is None
    assert ctx.upstream.path == "/changed"


async def test_no_answer_in_time_lets_the_request_go_on(tmp_path: Path) -> None:
    found = await run_once(tmp_path / "s", lambda conn, message: None)
    assert found == (None, "[error] [p] no data")


async def test_connection_of_a_timeout_poisons_the_next_request(tmp_path: Path) -> None:
    """Kong gives it back to its pool: a late answer meets the next request, as a wrong id."""
    late: list[list[Any]] = []

    async def event(conn: Conn, message: list[Any]) -> None:
        late.append(message)
        if len(late) == 2:
            conn.answer(late[0], {"Data": "ret"})

    async with serving(tmp_path / "s", handling(event)), external(tmp_path / "s", MP, FAST) as p:
        first, second = request(), request()
        await p.run(plugin(), "access", first)
        await p.run(plugin(), "access", second)
    assert first.exit is None
    assert second.exit is not None
    assert "unexpected RPC response ID" in second.log[0]


async def test_close_lets_the_request_go_on(tmp_path: Path) -> None:
    async def close(conn: Conn, message: list[Any]) -> None:
        raise EOFError

    assert await run_once(tmp_path / "s", close) == (None, "[error] [p] no data")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x94\x01", "missing bytes"),  # ends within a message
        (b"\xc1", "unpack"),
        (b"\x05", "attempt to index"),
        (b"\x94\x05\x01\xc0\xc0", "RPC response expected"),
    ],
)
async def test_malformed_answer_is_500(tmp_path: Path, data: bytes, text: str) -> None:
    async def send(conn: Conn, message: list[Any]) -> None:
        conn.send(data)
        await conn.writer.drain()
        raise EOFError

    status, log = await run_once(tmp_path / "s", send)
    assert status == 500
    assert text in log


@pytest.mark.parametrize("result", [None, False])
async def test_answer_without_result_ends_the_event(tmp_path: Path, result: object) -> None:
    found = await run_once(tmp_path / "s", lambda conn, message: conn.answer(message, result))
    assert found == (None, "")


@pytest.mark.parametrize("result", [True, 5, "text", {}, {"Data": "what"}, {"Data": {}}, [1]])
async def test_answer_that_is_no_step_is_500(tmp_path: Path, result: object) -> None:
    found = await run_once(tmp_path / "s", lambda conn, message: conn.answer(message, result))
    assert found[0] == 500


@pytest.mark.parametrize("depth", [900, 5000])
async def test_value_nested_too_deep_is_500(tmp_path: Path, depth: int) -> None:
    def event(conn: Conn, message: list[Any]) -> None:
        value = msgpack.packb("kong.log.err")
        nested = b"\x91" * depth + b"\xc0"
        data = b"\x82\xa6Method" + value + b"\xa4Args" + nested
        head = b"\x94\x01" + msgpack.packb(message[1]) + b"\xc0"
        conn.send(head + b"\x82\xa7EventId\x01\xa4Data" + data)

    status, log = await run_once(tmp_path / "s", event)
    assert status == 500
    assert log


async def test_no_plugin_instance_starts_again_and_repeats_the_event(tmp_path: Path) -> None:
    seen: list[object] = []

    def event(conn: Conn, message: list[Any]) -> None:
        seen.append(message[3][0]["InstanceId"])
        if len(seen) == 1:
            conn.answer(message, None, "No Plugin Instance 1")
        else:
            conn.answer(message, {"Data": "ret"})

    status, log = await run_once(tmp_path / "s", event)
    assert (status, seen) == (None, [1, 2])
    assert log == "[warn] [p] No Plugin Instance 1"


async def test_no_plugin_instance_for_ever_is_bounded(tmp_path: Path) -> None:
    status, log = await run_once(
        tmp_path / "s",
        lambda conn, message: conn.answer(message, None, "no plugin instance"),
        Limits(rounds=3),
    )
    assert status == 500
    assert "real Kong would go on for ever" in log


async def test_lua_error_in_a_pdk_call_is_500_and_the_server_hears_nothing(tmp_path: Path) -> None:
    seen = []

    def event(conn: Conn, message: list[Any]) -> None:
        seen.append(message[2])
        conn.step(message, "kong.service.request.set_path", "no-slash")

    status, log = await run_once(tmp_path / "s", event)
    assert (status, seen) == (500, ["plugin.HandleEvent"])
    assert log == "[error] [p] path must start with /"


async def test_unknown_method_is_logged_and_answered_with_nil(tmp_path: Path) -> None:
    steps = []

    def event(conn: Conn, message: list[Any]) -> None:
        steps.append(message[3][0])
        if message[2] == "plugin.HandleEvent":
            conn.step(message, "kong.request.get_nonsense", event="e-1")
        else:
            conn.answer(message, {"Data": "ret"})

    status, log = await run_once(tmp_path / "s", event)
    assert (status, steps[1]) == (None, {"EventId": "e-1"})
    assert "could not find pdk method: kong.request.get_nonsense" in log


@pytest.mark.parametrize("result", [{}, {"Id": None}])
async def test_start_without_id_leaves_the_claim_and_the_next_request_goes_on(
    tmp_path: Path, result: object
) -> None:
    async def handler(conn: Conn) -> None:
        while True:
            message = await conn.read_message()
            start = message[2] == "plugin.StartInstance"
            conn.answer(message, result if start else {"Data": "ret"})

    async with serving(tmp_path / "s", handler), external(tmp_path / "s", MP, FAST) as plugins:
        await plugins.run(plugin(), "access", request())
        ctx = request()
        await plugins.run(plugin(), "access", ctx)
    assert ctx.exit is None
    assert "Could not claim instance_id" in ctx.log[0]


async def test_arguments_behind_a_nil_are_lost(tmp_path: Path) -> None:
    """Lua's unpack: headers given after a body that is nil never reach response.exit."""

    def event(conn: Conn, message: list[Any]) -> None:
        conn.step(message, "kong.response.exit", 418, None, {"x-a": "1"})

    async with serving(tmp_path / "s", handling(event)), external(tmp_path / "s", MP) as plugins:
        ctx = request()
        await plugins.run(plugin(), "access", ctx)
    assert ctx.exit is not None
    assert ctx.exit.status == 418
    assert ("x-a", "1") not in ctx.exit.headers


async def test_body_in_a_file_needs_an_argument(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"x" * 9000)
    found: list[object] = []
    arguments: list[list[int]] = [[], [8999], [-1], [9000], [0]]

    def event(conn: Conn, message: list[Any]) -> None:
        if message[2] == "plugin.HandleEvent":
            conn.step(message, "kong.request.get_raw_body", *arguments.pop(0))
        else:
            found.append(message[3][0].get("Data"))
            conn.answer(message, {"Data": "ret"})

    async with serving(tmp_path / "s", handling(event)), external(tmp_path / "s", MP) as plugins:
        while arguments:
            ctx = request(POST)
            ctx.client.body.content, ctx.client.body.file = b"", file
            await plugins.run(plugin(), "access", ctx)
            found.append(None if ctx.exit is None else ctx.exit.status)
    assert found == [500, 500, 500, b"x" * 9000, None, b"x" * 9000, None]
