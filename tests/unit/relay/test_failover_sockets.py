"""Failover in time, and over connections of every kind."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import orjson
import pytest

from tests.faults import (
    GARBAGE,
    Close,
    CloseAtOnce,
    Endless,
    Faulty,
    Good,
    Hang,
    NeverRead,
    PlainText,
    Refuse,
    Silent,
    Status,
    Step,
    Trickle,
    Unanswered,
)
from tests.relays import running
from tests.unit.relay import authorities
from tests.unit.relay.clients import (
    REALTIME,
    ask,
    client,
)
from tests.unit.relay.clients import target as target_at
from tests.unit.relay.failover import (
    ALL,
    CLIENT,
    LONG_MS,
    NAME,
    SHORT_MS,
    answered,
    kind,
    providers,
    question,
    said,
    targets,
)
from tests.unit.relay.sockets import HANDSHAKE, TARGET, TEXT, echo, frame, read_frame, session
from tests.unit.relay.upstreams import Upstream

# ---- in which time


LARGE = orjson.dumps({"model": NAME, "messages": [{"role": "user", "content": "x" * 12_000_000}]})


@pytest.mark.parametrize(
    ("name", "step", "body"),
    [
        ("connect_timeout", Unanswered(), b""),
        ("read_timeout", Hang(), b""),
        ("read_timeout", Hang(body=0), b""),
        ("write_timeout", NeverRead(), LARGE),
    ],
    ids=["connect", "head", "body", "write"],
)
async def test_each_timeout_is_the_configurations(name: str, step: Step, body: bytes) -> None:
    """In milliseconds, whatever the others are."""
    limits = {
        "connect_timeout": LONG_MS,
        "read_timeout": LONG_MS,
        "write_timeout": LONG_MS,
        name: SHORT_MS,
    }
    free = {"max_request_body_size": 0}
    async with (
        providers(step, [Good()]) as places,
        targets(*places, common=free, balancer=limits) as relay,
    ):
        started = time.monotonic()
        sent = body or question(NAME, stream=False)
        async with asyncio.timeout(10):
            found = await ask(relay, "POST", "/chat", sent, CLIENT)
        took = time.monotonic() - started
        assert found.status == 200
        assert 0.39 < took < 5


async def test_a_head_that_trickles_is_too_late() -> None:
    """Each byte is in time, the head never is: all three limits together end it."""
    limits = {"connect_timeout": 250, "read_timeout": 250, "write_timeout": 250}
    slow = Trickle(Good(), every=0.02, head=True)
    async with providers(slow, Good()) as places, targets(*places, balancer=limits) as relay:
        assert (await answered(relay)).status == 200
        assert len(places[1].received) == 1


@pytest.mark.parametrize("every", [0.0, 0.002], ids=["floods", "trickles"])
async def test_an_error_whose_text_never_ends_is_an_error(every: float) -> None:
    """Though each piece of it is in time."""
    endless = Endless(503, piece=b"x" * (4096 if not every else 1), every=every)
    async with providers(endless, Good()) as places, targets(*places) as relay:
        started = time.monotonic()
        assert (await answered(relay)).status == 200
        assert time.monotonic() - started < 5


async def test_an_answer_that_comes_slowly_is_no_failure() -> None:
    slow = Trickle(Good(), every=0.001, size=4)
    async with (
        providers(slow, Good("the other")) as places,
        targets(*places, read_timeout=2000) as relay,
    ):
        assert said(await answered(relay), "one-shot") == "hello"
        assert said(await answered(relay, stream=True), "stream") == "hello"
        assert places[1].connections == 0


# ---- connections


async def test_a_kept_connection_that_is_closed_on_the_next_request_is_a_failure() -> None:
    script = (Good("once", keeps=True), Close(), Good())
    async with providers(script, Good("the other")) as places, targets(*places) as relay:
        heard = [said(await answered(relay), "one-shot") for _ in range(3)]
        assert heard == ["once", "the other", "hello"]
        assert len(places[0].received) == 3


async def test_what_was_sent_on_a_kept_connection_is_not_repeated_without_leave() -> None:
    script = (Good("once", keeps=True), CloseAtOnce())
    async with (
        providers(script, Good("the other")) as places,
        targets(*places, criteria=["error"]) as relay,
    ):
        assert (await answered(relay)).status == 200
        assert (await answered(relay)).status == 502
        assert places[1].connections == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there")
@pytest.mark.parametrize("kind", ["untrusted", "plain text", "closed", "silent"])
async def test_tls_that_fails_has_no_effect_and_may_be_repeated(kind: str, tmp_path: Path) -> None:
    steps: dict[str, Step] = {
        "untrusted": Good(),
        "plain text": PlainText(),
        "closed": CloseAtOnce(),
        "silent": Silent(),
    }
    tls = authorities.make(tmp_path).server if kind == "untrusted" else None
    criteria = ["timeout" if kind == "silent" else "error"]
    limit = SHORT_MS if kind == "silent" else LONG_MS
    async with (
        Faulty(steps[kind], tls=tls, scheme="https") as first,
        Faulty(Good()) as second,
        targets(first, second, criteria=criteria, connect_timeout=limit) as relay,
    ):
        found = await answered(relay)
        assert found.status == 200
        assert first.received == []
        assert len(second.received) == 1


# ---- WebSockets


NOT_OPENED = (Status(200), Status(302))


@pytest.mark.parametrize(
    "first", [Refuse(), Status(503), *NOT_OPENED, Close(), GARBAGE, Hang()], ids=kind
)
async def test_a_session_goes_to_the_next_target_when_the_handshake_fails(first: Step) -> None:
    async with Faulty(first) as refusing, Upstream(session(echo)) as second:
        own = [
            target_at(refusing.origin, REALTIME, weight=200),
            target_at(second.url(""), REALTIME, weight=100),
        ]
        limit = SHORT_MS if isinstance(first, Hang) else LONG_MS
        limits = {"connect_timeout": limit, "read_timeout": limit}
        balancer = {"algorithm": "priority", "failover_criteria": ALL, **limits}
        found = {"targets": own, "balancer": balancer, "genai_category": "realtime/generation"}
        async with running(found, "ai-proxy-advanced") as relay, client(relay) as one:
            await one.send(one.head("GET", TARGET, HANDSHAKE))
            async with asyncio.timeout(10):
                assert (await one.answer_head())[0] == 101
                await one.send(frame(TEXT, b'{"type":"x"}', masked=True))
                assert (await read_frame(one.reader)).payload == b'{"type":"x"}'
