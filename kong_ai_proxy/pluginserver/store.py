"""The instances that Kong started, shared by the workers of one generation.

Kong starts an instance at one worker and sends events for it to any. Configurations hold keys, so
they are kept in the supervisor's memory, bounded, and never in a file. Each worker has a link to
the supervisor, one end of a socketpair; its end is also how either learns that the other is gone.

A frame on the link: kind, request number, length (`!BII`), then the payload. A PUT carries
instance, a GET an id, a REPLY an instance, or nothing where there is none. READY says that the
worker serves. An instance is its id, the length of the plugin's name (`!iH`), the name and the
configuration as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable

_PUT, _GET, _REPLY, _READY = range(1, 5)
_HEAD = struct.Struct("!BII")
_INSTANCE = struct.Struct("!iH")
_ID = struct.Struct("!i")
_MAX_ID = 2**31 - 1

MAX_INSTANCES = 4096
MAX_BYTES = 64 * 1024 * 1024


class Shelf:
    """Instances by id, at most `max_instances` and `max_bytes`; what was used longest ago goes
    first. The newest always stays: Kong would otherwise start it again and again."""

    def __init__(self, max_instances: int = MAX_INSTANCES, max_bytes: int = MAX_BYTES) -> None:
        self._max_instances = max_instances
        self._max_bytes = max_bytes
        self._entries: OrderedDict[int, tuple[str, bytes]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, number: int, plugin: str, config: bytes) -> None:
        """Keep the instance `number`, in place of what was there."""
        if number in self._entries:
            self._drop(number)
        self._entries[number] = (plugin, config)
        self._bytes += len(config)
        while len(self._entries) > 1 and self._too_full():
            self._drop(next(iter(self._entries)))

    def get(self, number: int) -> tuple[str, bytes] | None:
        """The plugin and the configuration of the instance `number`."""
        if number not in self._entries:
            return None
        self._entries.move_to_end(number)
        return self._entries[number]

    def _too_full(self) -> bool:
        return len(self._entries) > self._max_instances or self._bytes > self._max_bytes

    def _drop(self, number: int) -> None:
        _, config = self._entries.pop(number)
        self._bytes -= len(config)


async def serve_link(link: socket.socket, shelf: Shelf, ready: Callable[[], None]) -> None:
    """The supervisor's side of one worker's link, until the worker closes it or is gone."""
    reader, writer = await asyncio.open_unix_connection(sock=link)
    try:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                kind, request, payload = await _read(reader)
                if kind == _READY:
                    ready()
                    continue
                _write(writer, _REPLY, request, _answer(shelf, kind, payload))
                await writer.drain()
    finally:
        await _close(writer)


def _answer(shelf: Shelf, kind: int, payload: bytes) -> bytes:
    if kind == _PUT:
        shelf.put(*_unpack(payload))
        return b""
    (number,) = _ID.unpack(payload)
    found = shelf.get(number)
    return _pack(number, *found) if found else b""


class SharedStore:
    """A worker's side of the link: a Store that all workers of the generation share.

    What a `put` has returned from, every other worker's `get` finds. Without a supervisor, or with
    one that does not answer within `seconds`, `get` knows no instance (Kong then starts it again)
    and `put` keeps none; neither raises.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float = 2.0
    ) -> None:
        self._writer = writer
        self._seconds = seconds
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._reading = asyncio.create_task(self._read_replies(reader))
        self.lost = asyncio.Event()
        """Set once the supervisor is gone."""

    @classmethod
    async def open(cls, link: socket.socket, seconds: float = 2.0) -> SharedStore:
        """The store at the other end of `link`."""
        return cls(*await asyncio.open_unix_connection(sock=link), seconds=seconds)

    def ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        _write(self._writer, _READY, 0, b"")

    async def put(self, number: int, plugin: str, config: bytes) -> None:
        """Keep the configuration (JSON) of the instance `number` of `plugin` for all workers."""
        await self._ask(_PUT, _pack(number, plugin, config))

    async def get(self, number: int) -> tuple[str, bytes] | None:
        """Plugin and configuration of the instance `number`, whichever worker it was started at."""
        if not 0 < number <= _MAX_ID:
            return None
        reply = await self._ask(_GET, _ID.pack(number))
        return _unpack(reply)[1:] if reply else None

    async def close(self) -> None:
        """End the link; requests that still wait are answered as if it had been lost."""
        self._reading.cancel()
        await asyncio.wait([self._reading])
        await _close(self._writer)

    async def _ask(self, kind: int, payload: bytes) -> bytes:
        if self.lost.is_set():
            return b""
        request = next(self._numbers) & 0xFFFFFFFF
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[request] = reply
        try:
            _write(self._writer, kind, request, payload)
            async with asyncio.timeout(self._seconds):
                return await reply
        except (TimeoutError, OSError):
            return b""
        finally:
            del self._waiting[request]

    async def _read_replies(self, reader: asyncio.StreamReader) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    _, request, payload = await _read(reader)
                    waiting = self._waiting.get(request)
                    if waiting and not waiting.done():
                        waiting.set_result(payload)
        finally:
            self.lost.set()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_result(b"")


def _pack(number: int, plugin: str, config: bytes) -> bytes:
    name = plugin.encode()
    return _INSTANCE.pack(number, len(name)) + name + config


def _unpack(payload: bytes) -> tuple[int, str, bytes]:
    number, size = _INSTANCE.unpack_from(payload)
    start = _INSTANCE.size
    return number, payload[start : start + size].decode(), payload[start + size :]


async def _read(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    kind, request, size = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    return kind, request, await reader.readexactly(size)


def _write(writer: asyncio.StreamWriter, kind: int, request: int, payload: bytes) -> None:
    writer.write(_HEAD.pack(kind, request, len(payload)) + payload)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
