"""WebSocket frames (RFC 6455 section 5.2), for either side of the relay."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from tests.relays import RunningRelay
from tests.unit.relay.clients import REALTIME, Client, client, provided
from tests.unit.relay.upstreams import Connection, Upstream

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TARGET = "/realtime?model=gpt-realtime"
HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": base64.b64encode(bytes(16)).decode(),
}


class Frame(NamedTuple):
    opcode: int
    payload: bytes
    final: bool = True

    @property
    def code(self) -> int | None:
        """The status code of a close frame, None for one without."""
        return int(struct.unpack("!H", self.payload[:2])[0]) if self.payload else None


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = False) -> bytes:
    """One frame's bytes. A mask of zeros leaves the payload as it is."""
    first, size, mask = opcode | 0x80 * final, len(payload), 0x80 * masked
    if size < 126:
        head = struct.pack("!BB", first, size | mask)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 126 | mask, size)
    else:
        head = struct.pack("!BBQ", first, 127 | mask, size)
    return head + bytes(4 * masked) + payload


def closing(code: int, reason: bytes = b"", *, masked: bool = False) -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason, masked=masked)


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame, unmasked. Raises IncompleteReadError."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size > 125:
        width = 2 if size == 126 else 8
        size = int.from_bytes(await reader.readexactly(width), "big")
    mask = await reader.readexactly(4) if second & 0x80 else None
    payload = await reader.readexactly(size)
    if mask and size:
        repeated = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        payload = (int.from_bytes(payload, "big") ^ repeated).to_bytes(size, "big")
    return Frame(first & 0x0F, payload, bool(first & 0x80))


def accepted(key: str, headers: str = "") -> bytes:
    """A provider's answer to a handshake."""
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n{headers}\r\n"
    ).encode()


Session = Callable[[Connection], Awaitable[None]]


def session(talk: Session, headers: str = "") -> Session:
    """A provider's script: accept the handshake, then `talk`."""

    async def script(connection: Connection) -> None:
        received = await connection.request()
        await connection.send(accepted(received.header("sec-websocket-key") or "", headers))
        await talk(connection)

    return script


async def echo(connection: Connection) -> None:
    """Sends messages back, answers pings, and closes when it is closed."""
    while True:
        got = await read_frame(connection.reader)
        await connection.send(frame(PONG if got.opcode == PING else got.opcode, got.payload))
        if got.opcode == CLOSE:
            return


@contextlib.asynccontextmanager
async def open_session(
    talk: Session,
    headers: str = "",
    offered: str = "",
    *,
    logged: bool = False,
    **timeouts: int,
) -> AsyncIterator[tuple[Upstream, RunningRelay, Client]]:
    """A session through the relay, both handshakes done."""
    own = {**HANDSHAKE, **({"sec-websocket-protocol": offered} if offered else {})}
    async with (
        provided(session(talk, headers), REALTIME, logged=logged, **timeouts) as (
            upstream,
            relay,
        ),
        client(relay) as one,
    ):
        await one.send(one.head("GET", TARGET, own))
        status, _ = await one.answer_head()
        assert status == 101
        yield upstream, relay, one
