"""Connections to plugin servers, pooled as nginx pools them: last in, first out, 60 s idle."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from typing_extensions import override

POOL_SIZE = 256  # Kong's lua_socket_pool_size


class RpcError(Exception):
    """What Kong's RPC code returns as `nil, err`: the text that goes to the log and decides
    whether the event is repeated. `text` None: the server sent `nil, nil`.
    """

    def __init__(self, text: object) -> None:
        super().__init__(text)
        self.text = text


class Connection(asyncio.Protocol):
    """One connection. `buffer` holds what came in and was not taken yet."""

    __slots__ = ("_transport", "_waiter", "buffer", "closed", "idle_since", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.buffer = bytearray()
        self.closed = False
        self.idle_since: float | None = None
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self.idle_since is not None:  # nginx closes a pooled connection that becomes readable
            self.close()
            return
        self.buffer += data
        self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.pool.forget(self)
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def write(self, data: bytes) -> None:
        if not self.closed:
            assert self._transport is not None
            self._transport.write(data)

    async def more(self, seconds: float) -> bool:
        """Wait until something came in. False at the end of the stream; RpcError("timeout") when
        nothing came for `seconds`.
        """
        if self.closed:
            return False
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(seconds, _expire, waiter)
        before = len(self.buffer)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None
        return len(self.buffer) > before

    def close(self) -> None:
        self.closed = True
        self.pool.forget(self)
        if self._transport is not None:
            self._transport.close()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(RpcError("timeout"))


class Pool:
    """The idle connections of one worker, by socket path."""

    def __init__(self, idle_seconds: float = 60.0) -> None:
        self._idle: dict[Path, list[Connection]] = {}
        self._idle_seconds = idle_seconds
        self._paths: dict[Connection, Path] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def take(self, path: Path) -> Connection:
        """The connection given back last, or a new one; RpcError with the system's text."""
        idle = self._idle.get(path)
        if idle:
            connection = idle.pop()
            connection.idle_since = None
            return connection
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_unix_connection(lambda: Connection(self), str(path))
        except OSError as error:
            raise RpcError((error.strerror or str(error)).lower()) from None
        self._paths[connection] = path
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next user; one with unread data or at its end is closed."""
        path = self._paths.get(connection)
        if connection.closed or connection.buffer or path is None:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        idle = self._idle.setdefault(path, [])
        idle.append(connection)
        if len(idle) > POOL_SIZE:
            idle[0].close()
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._idle_seconds, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        loop = asyncio.get_running_loop()
        idle = [connection for found in self._idle.values() for connection in found]
        oldest = loop.time() - self._idle_seconds
        for connection in idle:
            if connection.idle_since is not None and connection.idle_since <= oldest:
                connection.close()
        left = [c.idle_since for c in idle if not c.closed and c.idle_since is not None]
        if left:
            self._sweeper = loop.call_at(min(left) + self._idle_seconds, self._sweep)

    def forget(self, connection: Connection) -> None:
        path = self._paths.pop(connection, None)
        if path is not None and connection in self._idle.get(path, ()):
            self._idle[path].remove(connection)

    def close(self) -> None:
        """Close all connections, those in use too."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._paths):
            connection.close()
