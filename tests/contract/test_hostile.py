"""Bytes that are no traffic of Kong's: they cost their own connection, and nobody else's."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.pluginserver.wire.methods import Protocol
from tests.contract.kong_side import EXAMPLES, PROTOCOLS, SIDES, KongSide, frame, plugin, server
from tests.contract.replay import Wire

PIECES = st.lists(st.binary(max_size=60), max_size=8)
FRAMES = st.lists(st.binary(max_size=40).map(frame), max_size=8)
KEYS = st.sampled_from(["InstanceId", "EventId", "Data", "EventName", "Name", "Config"])
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4)
MESSAGES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 3),
        st.sampled_from(["plugin.HandleEvent", "plugin.Step", "plugin.StartInstance", "x"]),
        st.lists(st.dictionaries(KEYS, SCALARS) | SCALARS, max_size=2),
    ).map(lambda message: msgpack.packb(list(message))),
    max_size=8,
)


def access(kong: Any) -> None:
    kong.request.get_headers(100)
    kong.service.request.set_path(kong.request.get_path())


async def _survives(protocol: Protocol, pieces: list[bytes]) -> None:
    under_test = server(protocol, plugin(access))
    other: KongSide = SIDES[protocol](under_test)
    number = await other.start("p")
    hostile = SIDES[protocol](under_test)
    hostile.begin(number)  # so that frames are taken for replies, too
    fresh = Wire(under_test.session())
    for piece in pieces:
        hostile.wire.session.data_received(piece)
        fresh.session.data_received(piece)
        await asyncio.sleep(0)
    assert (await other.event(number)).how == "end"
    await under_test.close()
    assert (under_test.events, under_test.connections) == (0, 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@EXAMPLES
@given(pieces=PIECES | FRAMES | MESSAGES)
def test_no_bytes_hurt_the_other_connections(protocol: Protocol, pieces: list[bytes]) -> None:
    asyncio.run(_survives(protocol, pieces))


HOSTILE: list[tuple[Protocol, bytes]] = [
    ("protobuf", struct.pack("<I", 2**32 - 1)),
    ("protobuf", frame(b"\x08")),
    ("protobuf", frame(b"\xff" * 20)),
    ("protobuf", frame(b"\xa2\x02\x7f")),
    ("protobuf", frame(b"\x0b")),
    ("msgpack", b"\xc1"),
    ("msgpack", b"\x01"),
    ("msgpack", b"\x93\x00\x01\xa1x"),
    ("msgpack", b"\x94\x01\x01\xa1x\x90"),
    ("msgpack", b"\x94\x00\xa1x\xa1x\x90"),
    ("msgpack", b"\xdd\xff\xff\xff\xff"),
    ("msgpack", b"\x91" * 5000),
]


@pytest.mark.parametrize(("protocol", "data"), HOSTILE)
async def test_what_is_no_message_ends_its_connection(protocol: Protocol, data: bytes) -> None:
    under_test = server(protocol, plugin(access))
    wire = Wire(under_test.session())
    wire.session.data_received(data)
    assert wire.closed
    assert not wire.written
    await asyncio.sleep(0)
    assert under_test.connections == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_connection_that_ends_inside_a_message_leaves_nothing(protocol: Protocol) -> None:
    under_test = server(protocol, plugin(access))
    wire = Wire(under_test.session())
    wire.session.data_received(b"\x94\x00" if protocol == "msgpack" else b"\x05\0\0\0\x08")
    wire.close()
    await asyncio.sleep(0)
    assert (under_test.events, under_test.connections) == (0, 0)
