"""What is ProtoBuf:1's own: one write for many calls, and bodies in files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from kong_ai_proxy.pluginserver.pdk import BodyTooLarge, PDKException
from kong_ai_proxy.pluginserver.protobuf_session import read_body_file
from tests.contract.kong_side import (
    Outcome,
    ProtobufSide,
    frame,
    plugin,
    reply_frame,
    server,
    until,
)

PREFETCH = (
    ("kong.request.get_method",),
    ("kong.request.get_path",),
    ("kong.request.get_raw_query",),
    ("kong.request.get_headers", 1000),
    ("kong.request.get_raw_body", 1_048_576),
)
ANSWERS = {
    "kong.request.get_method": "POST",
    "kong.request.get_path": "/v1",
    "kong.request.get_raw_query": "a=1",
    "kong.request.get_headers": {"host": "h", "x-multi": ["a", "b"]},
    "kong.request.get_raw_body": b"{}",
}


def eight_setters(kong: Any) -> None:
    kong.service.set_target("example.com", 443)
    kong.service.request.set_scheme("https")
    kong.service.request.set_path("/v1/chat")
    kong.service.request.set_headers({"authorization": "Bearer x", "x-list": ["a", "b"]})
    kong.service.request.clear_header("cookie")
    kong.service.request.set_raw_body(b"{}")
    kong.log.set_serialize_value("request.headers.authorization", "REDACTED")
    kong.log.notice("done")


async def run(access: Any, answers: Any = None, **attributes: Any) -> tuple[Outcome, int]:
    """The outcome of one event, and the writes of the server that it took."""
    kong = ProtobufSide(server("protobuf", plugin(access, **attributes)))
    instance = await kong.start("p")
    await asyncio.sleep(0)
    before = kong.wire.writes
    result = await kong.event(instance, answers=answers)
    assert kong.server.events == 0
    if result.how == "end":  # the replies to setters have been counted right
        assert (await kong.event(instance, answers=answers)).calls == result.calls
        return result, (kong.wire.writes - before) // 2
    return result, kong.wire.writes - before


async def test_five_prefetched_getters_and_eight_setters_take_two_writes() -> None:
    def access(kong: Any) -> None:
        assert kong.request.get_method() == "POST"
        assert kong.request.get_path() == "/v1"
        assert kong.request.get_raw_query() == "a=1"
        assert kong.request.get_headers(1000) == {"host": "h", "x-multi": ["a", "b"]}
        assert kong.request.get_raw_body(1000) == b"{}"
        eight_setters(kong)

    result, writes = await run(access, ANSWERS, prefetch=PREFETCH)
    assert (result.how, len(result.calls), writes) == ("end", 13, 2)


async def test_a_handler_that_only_sets_takes_one_write() -> None:
    result, writes = await run(eight_setters)
    assert (result.how, len(result.calls), writes) == ("end", 8, 1)


async def test_setters_leave_with_the_next_getter() -> None:
    def access(kong: Any) -> None:
        eight_setters(kong)
        assert kong.request.get_method() == "POST"

    result, writes = await run(access, ANSWERS)
    assert (result.how, len(result.calls), writes) == ("end", 9, 2)
    assert result.names[-1] == "request.get_method"


async def test_setters_leave_with_exit_in_one_write() -> None:
    def access(kong: Any) -> None:
        kong.response.set_header("x-a", "1")
        kong.response.exit(403)

    result, writes = await run(access)
    assert (result.names, writes) == (["response.set_header", "response.exit"], 1)


async def test_setters_of_a_failed_handler_are_not_sent() -> None:
    def access(kong: Any) -> None:
        kong.response.set_header("x-a", "1")
        raise ValueError

    result, _ = await run(access)
    assert result.names == ["response.exit"]


async def test_a_getter_with_other_arguments_is_asked_anew() -> None:
    def access(kong: Any) -> None:
        kong.request.get_headers(1000)
        kong.request.get_headers(10)

    result, writes = await run(access, ANSWERS, prefetch=PREFETCH[3:4])
    assert (len(result.calls), writes) == (2, 3)


async def test_prefetched_answers_are_there_for_every_call() -> None:
    def access(kong: Any) -> None:
        assert kong.request.get_path() == kong.request.get_path() == "/v1"

    result, writes = await run(access, ANSWERS, prefetch=PREFETCH[1:2])
    assert (len(result.calls), writes) == (1, 2)


async def test_prefetch_is_for_access_alone() -> None:
    def log(self: Any, kong: Any) -> None:
        pass

    under_test = server("protobuf", plugin(lambda kong: None, prefetch=PREFETCH, log=log))
    kong = ProtobufSide(under_test)
    assert (await kong.event(await kong.start("p"), "log")).calls == []


@pytest.mark.parametrize(
    "prefetch",
    [
        (("kong.request.get_nonsense",),),
        (("kong.service.set_timeouts", 1, 2, 3),),
        (("kong.service.request.set_path", "/x"),),
        (("kong.response.exit", 200),),
        (("kong.request.get_headers", "all"),),
        ("kong.request.get_path",),
        (7,),
    ],
)
async def test_a_prefetch_that_cannot_be_made_is_answered_with_500(prefetch: Any) -> None:
    result, _ = await run(lambda kong: None, prefetch=prefetch)
    assert result.status == 500


async def test_an_event_dies_while_it_prefetches() -> None:
    ran: list[int] = []
    under_test = server("protobuf", plugin(lambda kong: ran.append(1), prefetch=PREFETCH))
    kong = ProtobufSide(under_test)
    kong.begin(await kong.start("p"))
    await until(lambda: under_test.events == 1)
    kong.wire.session.data_received(reply_frame("kong.request.get_method", "POST"))
    kong.wire.close()
    await until(lambda: under_test.events == 0)
    assert ran == []


async def test_kongs_own_time_is_not_the_handlers() -> None:
    under_test = server("protobuf", plugin(lambda kong: kong.request.get_raw_body()))
    under_test._events.seconds = 0.02
    kong = ProtobufSide(under_test)
    kong.begin(await kong.start("p"))
    await until(lambda: under_test.events == 1)
    await asyncio.sleep(0.1)  # a slow upload
    assert (await kong.finish(ANSWERS)).how == "end"


async def test_what_kong_takes_is_added_to_the_time_limit() -> None:
    deadlines: list[float] = []

    def access(kong: Any) -> None:
        deadlines.append(kong._event.deadline)
        kong.request.get_raw_body()
        deadlines.append(kong._event.deadline)

    kong = ProtobufSide(server("protobuf", plugin(access)))
    kong.begin(await kong.start("p"))
    await until(lambda: deadlines)
    await asyncio.sleep(0.05)
    assert (await kong.finish(ANSWERS)).how == "end"
    assert deadlines[1] - deadlines[0] > 0.04


async def test_a_reply_that_cannot_be_read_is_answered_with_500() -> None:
    kong = ProtobufSide(server("protobuf", plugin(lambda kong: kong.request.get_path())))
    kong.begin(await kong.start("p"))
    await until(lambda: kong.wire.written)
    kong.wire.session.data_received(frame(b"\x0a\x7f"))
    await kong.read()
    await kong.read()
    assert (await kong.finish()).status == 500


async def test_a_frame_that_nothing_asked_for_ends_the_connection() -> None:
    under_test = server("protobuf", plugin(lambda kong: kong.wait(asyncio.Event().wait())))
    kong = ProtobufSide(under_test)
    kong.begin(await kong.start("p"))
    await until(lambda: under_test.events == 1)
    kong.wire.session.data_received(frame(b""))
    assert kong.wire.closed
    assert under_test.events == 0


async def test_a_body_in_memory_is_held_to_the_limit() -> None:
    sizes: list[tuple[int, int]] = []

    def access(kong: Any) -> None:
        assert kong.request.get_raw_body(2) == b"{}"
        assert kong.request.get_raw_body(0) == b"{}"
        try:
            kong.request.get_raw_body(1)
        except BodyTooLarge as error:
            sizes.append((error.size, error.limit))

    assert (await run(access, ANSWERS))[0].how == "end"
    assert sizes[0] == (2, 1)


async def test_a_body_on_disk_is_read(tmp_path: Path) -> None:
    file = tmp_path / "0000000001"
    file.write_bytes(b"x" * 20_000)
    bodies: list[bytes] = []
    answers = {"kong.request.get_raw_body": {"body_filepath": str(file).encode()}}

    def access(kong: Any) -> None:
        bodies.append(kong.request.get_raw_body(20_000))

    assert (await run(access, answers))[0].how == "end"
    assert bodies[0] == file.read_bytes()


async def test_a_body_that_kong_cannot_give_is_an_error() -> None:
    answers = {"kong.request.get_raw_body": {"error": b"gone"}}
    seen: list[str] = []

    def access(kong: Any) -> None:
        try:
            kong.request.get_raw_body()
        except PDKException as error:
            seen.append(str(error))

    assert (await run(access, answers))[0].how == "end"
    assert "gone" in seen[0]


def test_a_body_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"12345")
    assert read_body_file(str(file), 5) == b"12345"
    with pytest.raises(BodyTooLarge) as refused:
        read_body_file(str(file), 4)
    assert (refused.value.size, refused.value.limit) == (5, 4)


def test_a_body_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PDKException, match="ENOENT"):
        read_body_file(str(tmp_path / "none"), None)


def test_a_body_file_of_another_user_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"12345")
    file.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(PDKException, match="as the user that Kong's workers run as"):
            read_body_file(str(file), None)
    finally:
        if root:
            os.seteuid(0)
