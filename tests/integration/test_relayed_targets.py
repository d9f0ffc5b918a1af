"""Whatever a client writes into its target, the relay takes it as Kong sends it."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

import pytest

from tests.decks import config, deck, route
from tests.gateways import GatewayFactory
from tests.recorder import Recorder

LOGGED = {"log_statistics": True}


async def status_of(url: str, target: bytes) -> int:
    """The status of a POST whose target is written exactly so."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\n\r\n{}" % target
    )
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1])


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"?",
        b"?a=%20b&c=%C3%A9",
        b"?a=\xc3\xa9",
        b'?a="<>^`{}|',
        b"/a%20b",
        b"/%c3%a9",
        b"/\xc3\xa9",
        b'/"<>^`{}|',
        b"/a%2Fb;c=d",
        b"/a//b",
    ],
)
async def test_a_target_reaches_the_provider_the_same_on_both_ways(
    gateway: GatewayFactory, provider: Recorder, rest: bytes
) -> None:
    base = provider.url()
    relayed = config(base, "preserve", None, logging=LOGGED)
    running = await gateway(deck(route("/k", config(base, "preserve", None)), route("/r", relayed)))
    for start in (b"/k", b"/r"):
        assert await status_of(running.url, start + rest) == 200
    carried, by_relay = (unquote(received.target).rstrip("?") for received in provider.received)
    assert by_relay.removeprefix("/r") == carried.removeprefix("/k")
