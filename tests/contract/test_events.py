"""What a handler does ends one event, over both protocols, and never lets the request through."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from greenlet import greenlet  # type: ignore[import-untyped]

from kong_ai_proxy.pluginserver.events import MAX_IDLE, EventOver
from kong_ai_proxy.pluginserver.pdk import PDKException
from kong_ai_proxy.pluginserver.wire.methods import Protocol
from tests.contract.kong_side import PROTOCOLS, SIDES, Outcome, plugin, server, until

both = pytest.mark.parametrize("protocol", PROTOCOLS)
Handler = Callable[[Any], object]


async def outcome(protocol: Protocol, access: Handler, **answers: Any) -> Outcome:
    """One access event of a handler; afterwards the server must be empty and go on serving."""
    under_test = server(protocol, plugin(access))
    kong = SIDES[protocol](under_test)
    instance = await kong.start("p")
    full_names = {f"kong.{name.replace('__', '.')}": value for name, value in answers.items()}
    result: Outcome = await kong.event(instance, answers=full_names)
    assert under_test.events == 0
    again = SIDES[protocol](under_test)
    assert (await again.event(instance, answers=full_names)).how == result.how
    return result


@both
async def test_a_handler_that_raises_is_answered_with_500(protocol: Protocol) -> None:
    def access(kong: Any) -> None:
        kong.service.set_target("example.com", 443)
        raise ValueError("sk-secret")

    result = await outcome(protocol, access)
    assert (result.how, result.status) == ("exit", 500)
    assert result.message == "An unexpected error occurred"


@both
async def test_the_log_has_the_place_but_not_the_words_of_an_exception(
    protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    def access(kong: Any) -> None:
        raise ValueError("sk-secret")

    with caplog.at_level(logging.ERROR):
        await outcome(protocol, access)
    assert "ValueError" in caplog.text
    assert "test_events.py" in caplog.text
    assert "sk-secret" not in caplog.text.replace('raise ValueError("sk-secret")', "")


@both
async def test_a_handler_that_exits_python_ends_only_its_event(protocol: Protocol) -> None:
    def access(kong: Any) -> None:
        raise SystemExit(3)

    assert (await outcome(protocol, access)).status == 500


@both
@pytest.mark.parametrize(
    "access",
    [
        lambda kong: kong.service.set_target("example.com", "443"),
        lambda kong: kong.service.request.set_header(3, "x"),
        lambda kong: kong.service.request.set_headers("x"),
        lambda kong: kong.request.get_headers("all"),
        lambda kong: kong.response.exit("200"),
        lambda kong: kong.response.exit(200, object()),
        lambda kong: kong.ctx.shared.set("k", object()),
        lambda kong: kong.ctx.shared.set("k", {"a": {1, 2}}),
        lambda kong: kong.service.request.set_path("\ud800"),
        lambda kong: kong.service.request.set_path(),
        lambda kong: kong.request.get_nonsense(),
    ],
)
async def test_a_call_that_cannot_be_made_ends_in_500(protocol: Protocol, access: Handler) -> None:
    result = await outcome(protocol, access)
    assert (result.how, result.status) == ("exit", 500)


@both
async def test_a_handler_may_go_on_after_a_call_that_cannot_be_made(protocol: Protocol) -> None:
    def access(kong: Any) -> None:
        with pytest.raises(PDKException, match=r"kong\.ctx\.shared\.set"):
            kong.ctx.shared.set("k", object())
        kong.service.request.set_path("/after")

    result = await outcome(protocol, access)
    assert result.how == "end"
    assert result.names == ["service.request.set_path"]


async def test_a_method_that_a_protocol_lacks_is_named() -> None:
    seen: list[str] = []

    def access(kong: Any) -> None:
        try:
            kong.service.set_timeouts(1, 2, 3)
        except PDKException as error:
            seen.append(str(error))
            raise

    assert (await outcome("protobuf", access)).status == 500
    assert seen[0] == "kong.service.set_timeouts is not available over ProtoBuf:1"


@both
async def test_nothing_after_exit_runs(protocol: Protocol) -> None:
    seen: list[str] = []

    def access(kong: Any) -> None:
        try:
            kong.response.exit(403, "no", {"x-a": "1"})
        except Exception:
            seen.append("except")
        finally:
            seen.append("finally")
        seen.append("after")

    result = await outcome(protocol, access)
    assert (result.how, result.status, result.body) == ("exit", 403, b"no")
    assert seen == ["finally", "finally"]  # two events


@both
async def test_a_handler_that_swallows_its_end_cannot_answer_twice(protocol: Protocol) -> None:
    def access(kong: Any) -> None:
        for _ in range(3):
            with contextlib.suppress(EventOver):
                kong.response.exit(403)
        with contextlib.suppress(EventOver):
            kong.request.get_method()

    result = await outcome(protocol, access)
    assert (result.status, result.names) == (403, ["response.exit"])


@both
async def test_a_table_as_body_reaches_the_client_as_json(protocol: Protocol) -> None:
    result = await outcome(protocol, lambda kong: kong.response.exit(400, {"a": [1, None]}))
    assert json.loads(result.body) == {"a": [1, None]}
    if protocol == "protobuf":
        assert result.calls[-1][1]["headers"] == {
            b"content-type": {"string_value": b"application/json; charset=utf-8"}
        }


@both
async def test_failing_in_the_log_phase_ends_the_event_normally(protocol: Protocol) -> None:
    def log(self: Any, kong: Any) -> None:
        raise ValueError

    kong = SIDES[protocol](server(protocol, plugin(lambda kong: None, log=log)))
    assert (await kong.event(await kong.start("p"), "log")).how == "end"


@both
async def test_a_phase_without_a_handler_is_answered_with_500(protocol: Protocol) -> None:
    for phase in ("rewrite", "__init__", "config"):
        kong = SIDES[protocol](server(protocol, plugin(lambda kong: None)))
        assert (await kong.event(await kong.start("p"), phase)).status == 500


@both
async def test_an_event_over_its_limit_is_answered_with_500(protocol: Protocol) -> None:
    seen: list[str] = []

    def access(kong: Any) -> None:
        try:
            kong.wait(asyncio.Event().wait())
        finally:
            seen.append("unwound")

    under_test = server(protocol, plugin(access), event_seconds=0.02)
    kong = SIDES[protocol](under_test)
    result = await kong.event(await kong.start("p"))
    assert (result.status, result.message) == (500, "The plugin took too long")
    assert seen == ["unwound"]
    assert under_test.events == 0
    await until(lambda: len(asyncio.all_tasks()) == 1)


@both
async def test_a_handler_that_waits_holds_nobody_up(protocol: Protocol) -> None:
    gate = asyncio.Event()

    def access(kong: Any) -> None:
        if kong.request.get_path() == "/slow":
            kong.wait(gate.wait())

    under_test = server(protocol, plugin(access))
    slow, quick = SIDES[protocol](under_test), SIDES[protocol](under_test)
    instance = await slow.start("p")
    slow.begin(instance)
    waiting = asyncio.create_task(slow.finish({"kong.request.get_path": "/slow"}))
    await until(lambda: under_test.events == 1)
    for _ in range(3):
        assert (await quick.event(instance, answers={"kong.request.get_path": "/"})).how == "end"
    assert under_test.events == 1
    gate.set()
    assert (await waiting).how == "end"


@both
async def test_wait_gives_results_and_exceptions(protocol: Protocol) -> None:
    async def fails() -> None:
        raise KeyError("x")

    def access(kong: Any) -> None:
        assert kong.wait(asyncio.sleep(0, "slept")) == "slept"
        with pytest.raises(KeyError):
            kong.wait(fails())
        kong.response.exit(204)

    assert (await outcome(protocol, access)).status == 204


@both
async def test_an_event_dies_with_its_connection(protocol: Protocol) -> None:
    seen: list[str] = []

    def access(kong: Any) -> None:
        try:
            kong.wait(asyncio.Event().wait())
        finally:
            seen.append("unwound")

    under_test = server(protocol, plugin(access))
    kong = SIDES[protocol](under_test)
    kong.begin(await kong.start("p"))
    await until(lambda: under_test.events == 1)
    kong.wire.close()
    await until(lambda: under_test.events == 0)
    assert seen == ["unwound"]


@both
async def test_events_under_way_finish_after_stop(protocol: Protocol) -> None:
    gate = asyncio.Event()
    under_test = server(protocol, plugin(lambda kong: kong.wait(gate.wait())))
    kong = SIDES[protocol](under_test)
    kong.begin(await kong.start("p"))
    await until(lambda: under_test.events == 1)
    under_test.stop()
    gate.set()
    assert (await kong.finish()).how == "end"


@both
async def test_close_answers_what_is_under_way(protocol: Protocol) -> None:
    under_test = server(protocol, plugin(lambda kong: kong.wait(asyncio.Event().wait())))
    kong = SIDES[protocol](under_test)
    kong.begin(await kong.start("p"))
    await until(lambda: under_test.events == 1)
    await under_test.close()
    result = await kong.finish()
    assert (result.status, result.message) == (500, "The plugin server is ending")
    assert (under_test.events, under_test.connections) == (0, 0)


@both
async def test_ten_thousand_exits_leave_nothing_behind(protocol: Protocol) -> None:
    under_test = server(protocol, plugin(lambda kong: kong.response.exit(403)))
    kong = SIDES[protocol](under_test)
    instance = await kong.start("p")
    await asyncio.sleep(0)
    for _ in range(10_000):
        kong.begin(instance)
        assert b"exit" in kong.wire.written
        kong.wire.written.clear()
        if protocol == "protobuf":  # an exit costs the connection
            kong.wire.close()
            await asyncio.sleep(0)
            kong = SIDES[protocol](under_test)
    kong.wire.close()
    await until(lambda: under_test.connections == 0)
    gc.collect()
    assert under_test.events == 0
    assert len(under_test._events.crew) <= MAX_IDLE
    alive = [thing for thing in gc.get_objects() if isinstance(thing, greenlet)]
    assert len(alive) <= MAX_IDLE + 1
    assert len(asyncio.all_tasks()) == 1
    assert len(under_test._instances) == 1


@both
async def test_more_events_than_allowed_are_answered_with_500(
    protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kong_ai_proxy.pluginserver.events.MAX_EVENTS", 2)
    under_test = server(protocol, plugin(lambda kong: kong.wait(asyncio.Event().wait())))
    waiting = [SIDES[protocol](under_test) for _ in range(2)]
    instance = await waiting[0].start("p")
    for kong in waiting:
        kong.begin(instance)
    await until(lambda: under_test.events == 2)
    result = await SIDES[protocol](under_test).event(instance)
    assert (result.status, result.message) == (500, "The plugin server is overloaded")
    await under_test.close()


@both
async def test_idle_connections_stay_open(protocol: Protocol) -> None:
    under_test = server(protocol, plugin(lambda kong: None), event_seconds=0.02)
    kong = SIDES[protocol](under_test)
    instance = await kong.start("p")
    assert (await kong.event(instance)).how == "end"
    await asyncio.sleep(0.1)  # several time limits
    assert not kong.wire.closed
    assert (await kong.event(instance)).how == "end"
