"""What is MsgPack:1's own: events that wander over connections, and Kong going silent."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import msgpack

from tests.contract.kong_side import MsgpackSide, plugin, server, until


async def test_the_process_id_comes_before_the_first_answer_on_a_connection() -> None:
    kong = MsgpackSide(server("msgpack", plugin(lambda kong: None)))
    assert not kong.wire.written
    kong.begin(4711)
    await until(lambda: kong.wire.written)
    kong.begin(4711)
    await until(lambda: kong.wire.writes == 2)
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(bytes(kong.wire.written))
    kinds = [message[0] for message in unpacker]
    assert kinds == [2, 1, 1]
    assert msgpack.packb([2, "serverPid", os.getpid()]) in bytes(kong.wire.written)


async def test_every_step_may_come_on_another_connection() -> None:
    """Fifty events at once over seven connections, steps in any order."""
    seen: dict[str, list[str]] = {}

    def access(kong: Any) -> None:
        name = kong.request.get_header("x-req")
        seen[name] = [kong.request.get_path() for _ in range(3)]
        kong.service.request.set_header("x-seen", name)

    under_test = server("msgpack", plugin(access))
    sides = [MsgpackSide(under_test) for _ in range(7)]
    number = await sides[0].start("p")
    order = random.Random(7)
    waiting: list[tuple[str, int, Any]] = []  # request, event, data

    async def speak(request: str, side: MsgpackSide) -> None:
        result = await side.returned()
        if result["Data"] != "ret":
            waiting.append((request, result["EventId"], result["Data"]))

    for n in range(50):
        side = order.choice(sides)
        side.begin(number)
        await speak(f"r{n}", side)
    while waiting:
        request, event, data = waiting.pop(order.randrange(len(waiting)))
        side = order.choice(sides)
        side.event_id = event
        answers = {"kong.request.get_header": request, "kong.request.get_path": f"/{request}"}
        side.step(answers.get(data["Method"]))
        await speak(request, side)
    assert seen == {f"r{n}": [f"/r{n}"] * 3 for n in range(50)}
    assert under_test.events == 0


async def test_an_event_goes_on_when_an_idle_connection_goes() -> None:
    under_test = server("msgpack", plugin(lambda kong: kong.request.get_path()))
    one, other = MsgpackSide(under_test), MsgpackSide(under_test)
    number = await one.start("p")
    one.begin(number)
    other.event_id = (await one.returned())["EventId"]
    one.wire.close()
    await until(lambda: under_test.connections == 1)
    other.step("/")
    assert (await other.returned())["Data"] == "ret"


async def test_an_event_of_which_kong_says_no_more_is_dropped() -> None:
    under_test = server("msgpack", plugin(lambda kong: kong.request.get_path()), event_seconds=0.02)
    kong = MsgpackSide(under_test)
    kong.begin(await kong.start("p"))
    kong.event_id = (await kong.returned())["EventId"]
    await until(lambda: under_test.events == 0)
    kong.step("/")  # too late
    result = await kong.finish()
    assert (result.how, result.status) == ("exit", 500)


async def test_a_step_that_nothing_asked_for_ends_the_connection() -> None:
    under_test = server("msgpack", plugin(lambda kong: kong.wait(asyncio.Event().wait())))
    kong = MsgpackSide(under_test)
    kong.begin(await kong.start("p"))
    await until(lambda: under_test.events == 1)
    (event,) = under_test._table.by_id
    kong.event_id = event
    kong.step("/")
    assert kong.wire.closed
    assert under_test.events == 0


async def test_a_failed_step_is_an_exception() -> None:
    def access(kong: Any) -> None:
        kong.request.get_path()

    kong = MsgpackSide(server("msgpack", plugin(access)))
    kong.begin(await kong.start("p"))
    kong.event_id = (await kong.returned())["EventId"]
    kong.send("plugin.StepError", {"EventId": kong.event_id, "Data": "sk-secret"})
    result = await kong.finish()
    assert result.status == 500
    assert b"sk-secret" not in result.body


async def test_the_limit_of_a_body_goes_to_kong() -> None:
    calls: list[Any] = []

    def access(kong: Any) -> None:
        calls.append(kong.request.get_raw_body())
        calls.append(kong.request.get_raw_body(0))
        calls.append(kong.request.get_raw_body(5))

    kong = MsgpackSide(server("msgpack", plugin(access)))
    result = await kong.event(await kong.start("p"), answers={"kong.request.get_raw_body": b"abc"})
    assert [args for _, args in result.calls] == [[], [0], [5]]
    assert calls == [b"abc"] * 3


async def test_prefetch_means_nothing_over_msgpack() -> None:
    under_test = server(
        "msgpack", plugin(lambda kong: None, prefetch=(("kong.request.get_path",),))
    )
    kong = MsgpackSide(under_test)
    assert (await kong.event(await kong.start("p"))).calls == []
