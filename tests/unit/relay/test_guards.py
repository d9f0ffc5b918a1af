"""Limits that an operator may set on what a target takes until the client has its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from kong_ai_proxy.exchange.messages import Action, Commit, Emit, Finish, ResponseHead
from kong_ai_proxy.relay.guards import EVENTS, Guards, Pace
from kong_ai_proxy.relay.settings import RelaySettings
from tests.faults import Faulty, Good, Hang, Silent, Status, Trickle
from tests.relays import RunningRelay, running
from tests.unit.relay.clients import JSON, REALTIME, Answer, ask, client
from tests.unit.relay.clients import target as target_at
from tests.unit.relay.failover import said, target
from tests.unit.relay.sockets import HANDSHAKE, TARGET, TEXT, echo, frame, read_frame, session
from tests.unit.relay.upstreams import Upstream

SLOW = Trickle(Good("a slow one"), every=0.8, size=200)
"""Its first content comes at once, its end after more than two seconds."""
WORDS = Good(" ".join(["word"] * 20))
SSE = ResponseHead(200, (("content-type", "text/event-stream"),))


@contextlib.asynccontextmanager
async def relay(
    *places: Faulty, balancer: dict[str, Any] | None = None, **guards: Any
) -> AsyncIterator[RunningRelay]:
    """The relay with these providers, asked in their order."""
    targets = [
        target("openai", place, "any", f"key-{n}", weight=200 - n) for n, place in enumerate(places)
    ]
    own = {"algorithm": "priority", "failover_criteria": ["timeout", "non_idempotent"]}
    configuration = {"targets": targets, "balancer": {**own, **(balancer or {})}}
    async with running(configuration, "ai-proxy-advanced", RelaySettings(**guards)) as found:
        yield found


async def answer(relay: RunningRelay, *, stream: bool = True, **headers: str) -> Answer:
    messages = [{"role": "user", "content": headers.pop("prompt", "hi")}]
    body = orjson.dumps({"model": "any", "messages": messages, "stream": stream})
    return await ask(relay, body=body, headers={**JSON, **headers})


async def test_a_stream_without_content_in_time_is_another_targets() -> None:
    async with (
        Faulty(Hang(Good("late"), words=0)) as first,
        Faulty(Good("hello")) as second,
        relay(first, second, first_token_timeout=0.1) as found,
    ):
        assert said(await answer(found), "stream") == "hello"


async def test_a_stream_with_content_in_time_is_never_cut() -> None:
    async with (
        Faulty(SLOW) as first,
        Faulty(Good("hello")) as second,
        relay(first, second, first_token_timeout=2.0) as found,
    ):
        assert said(await answer(found), "stream") == "a slow one"


async def test_an_answer_in_one_piece_has_no_first_token() -> None:
    async with (
        Faulty(Trickle(Good("hello"), every=0.002)) as first,
        Faulty(Good("no")) as second,
        relay(first, second, first_token_timeout=0.05) as found,
    ):
        assert said(await answer(found, stream=False), "one-shot") == "hello"


async def test_the_last_target_may_think_as_long_as_it_likes() -> None:
    async with (
        Faulty(Status(503)) as first,
        Faulty(SLOW) as second,
        relay(
            first,
            second,
            # On a busy machine the first target may be too late with its 503.
            balancer={"failover_criteria": ["http_503", "timeout", "non_idempotent"]},
            first_token_timeout=0.01,
        ) as found,
    ):
        assert said(await answer(found), "stream") == "a slow one"


async def test_a_budget_is_that_of_all_targets_together() -> None:
    async with (
        Faulty(Silent()) as first,
        Faulty(Good("hello")) as second,
        relay(first, second, time_budget=0.2) as found,
    ):
        assert (await answer(found, stream=False)).status == 504
        assert not second.heads


async def test_a_budget_ends_with_the_answers_beginning() -> None:
    async with (
        Faulty(SLOW) as only,
        relay(only, time_budget=2.0) as found,
    ):
        assert said(await answer(found), "stream") == "a slow one"


async def test_a_stream_that_begins_too_slowly_is_another_targets() -> None:
    async with (
        Faulty(Hang(WORDS, words=3)) as first,
        Faulty(Good("hello")) as second,
        relay(first, second, min_stream_rate=50.0) as found,
    ):
        assert said(await answer(found), "stream") == "hello"


async def test_a_slow_beginning_has_no_more_than_the_budget() -> None:
    loop = asyncio.get_running_loop()
    async with (
        Faulty(Hang(WORDS, words=3)) as first,
        Faulty(Good("hello")) as second,
        relay(first, second, min_stream_rate=0.1, time_budget=0.3) as found,
    ):
        began = loop.time()
        assert (await answer(found)).status == 504
        assert loop.time() - began < EVENTS / 0.1


@pytest.mark.parametrize("targets", [1, 2])
async def test_a_session_has_no_budget(targets: int) -> None:
    async with Upstream(session(echo)) as place:
        only = target_at(place.url(""), REALTIME)
        configuration = {"targets": [only] * targets, "genai_category": "realtime/generation"}
        settings = RelaySettings(time_budget=0.5)
        async with (
            running(configuration, "ai-proxy-advanced", settings) as found,
            client(found) as one,
        ):
            await one.send(one.head("GET", TARGET, HANDSHAKE))
            assert (await one.answer_head())[0] == 101
            await asyncio.sleep(0.6)
            await one.send(frame(TEXT, b"{}", masked=True))
            assert (await read_frame(one.reader)).payload == b"{}"


async def test_the_last_target_may_be_as_slow_as_it_is() -> None:
    async with (
        Faulty(Status(503)) as first,
        Faulty(Trickle(Good("slow"), every=0.002)) as second,
        relay(
            first,
            second,
            balancer={"failover_criteria": ["http_503", "non_idempotent"]},
            min_stream_rate=10000.0,
        ) as found,
    ):
        assert said(await answer(found), "stream") == "slow"


async def test_a_quick_stream_is_whole() -> None:
    async with (
        Faulty(WORDS) as first,
        Faulty(Good("hello")) as second,
        relay(first, second, min_stream_rate=5.0) as found,
    ):
        assert said(await answer(found), "stream") == WORDS.text
        assert not second.heads


async def test_a_stream_that_ends_soon_was_quick_enough() -> None:
    async with (
        Faulty(Good("hi")) as first,
        Faulty(Good("hello")) as second,
        relay(first, second, min_stream_rate=5.0) as found,
    ):
        assert said(await answer(found), "stream") == "hi"


@pytest.mark.parametrize("prompt_affinity", [True, False])
async def test_how_a_conversation_began_decides_where_the_header_is_absent(
    prompt_affinity: bool,
) -> None:
    hashing = {"algorithm": "consistent-hashing"}
    async with (
        Faulty(Good("one"), Good("one"), Good("one")) as first,
        Faulty(Good("two"), Good("two"), Good("two")) as second,
        relay(first, second, balancer=hashing, prompt_affinity=prompt_affinity) as found,
    ):
        asked = [await answer(found, stream=False, prompt="the same") for _ in range(3)]
        texts = {said(each, "one-shot") for each in asked}
    assert len(texts) == (1 if prompt_affinity else 2)


# ---- without sockets


def events(count: int) -> Action:
    return Emit(b"data: {}\n\n" * count)


def test_what_is_held_comes_in_its_order_once_there_are_events_enough() -> None:
    pace = Pace(rate=5.0)
    head = Commit(SSE, None)
    assert pace.seconds == EVENTS / 5.0
    assert not [*pace.take(head), *pace.take(events(1))]
    assert [*pace.take(events(EVENTS - 1))] == [head, events(1), events(EVENTS - 1)]
    assert pace.is_over


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (SSE, b"data: {}\r\n\r\n"),  # Google's
        (ResponseHead(200, (("content-type", "application/vnd.amazon.eventstream"),)), b"\0\0\1"),
        (ResponseHead(200, (("content-type", "application/json"),)), b",{}"),
    ],
    ids=["sse", "aws", "array"],
)
def test_events_are_counted_in_every_format(head: ResponseHead, chunk: bytes) -> None:
    pace = Pace(rate=5.0)
    assert not [*pace.take(Commit(head, None)), *pace.take(Emit(b""))]
    taken = [[*pace.take(Emit(chunk))] for _ in range(EVENTS)]
    assert [len(each) for each in taken] == [0] * (EVENTS - 1) + [EVENTS + 2]


def test_an_end_releases_what_is_held() -> None:
    pace = Pace(rate=5.0)
    assert [*pace.take(events(1)), *pace.take(Finish())] == [events(1), Finish()]


@pytest.mark.parametrize(
    ("guards", "elapsed", "is_stream", "seconds"),
    [
        (Guards(), 5.0, True, None),
        (Guards(first_token_timeout=3.0), 5.0, True, 3.0),
        (Guards(first_token_timeout=3.0), 5.0, False, None),
        (Guards(first_token_timeout=3.0, time_budget=7.0), 5.0, True, 2.0),
        (Guards(first_token_timeout=3.0, time_budget=7.0), 1.0, True, 3.0),
    ],
)
def test_a_try_has_what_is_left(
    guards: Guards, elapsed: float, is_stream: bool, seconds: float | None
) -> None:
    assert guards.seconds(elapsed, is_stream=is_stream) == seconds
