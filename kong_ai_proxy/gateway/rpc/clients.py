"""The two protocols as Kong's RPC modules drive them: one client for each plugin."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgpack

from kong_ai_proxy.gateway.pdk import Call, LuaError
from kong_ai_proxy.gateway.rpc import msgpack as mp
from kong_ai_proxy.gateway.rpc import protobuf as pb
from kong_ai_proxy.gateway.rpc.connection import Connection, Pool, RpcError

PROTOBUF = "ProtoBuf:1"
MSGPACK = "MsgPack:1"

# PDK calls that make nginx read the client's body to its end first.
_READS_BODY = frozenset(
    {
        "kong.request.get_raw_body",
        "kong.request.get_body",
        "kong.service.request.set_raw_body",
        "kong.service.request.set_body",
    }
)
_READS_BODY_PB = frozenset(name.encode() for name in _READS_BODY)


class Client(Protocol):
    """One plugin's way to its server."""

    async def start_instance(self, name: str, config: bytes) -> object:
        """The id that the server gave; RpcError when it refused or is not there."""

    async def close_instance(self, instance: object) -> None:
        """Tell the server that an instance is no longer used."""

    async def handle_event(self, instance: object, call: Call) -> None:
        """One event, answering its PDK calls. RpcError when the server failed, LuaError when a
        PDK call did, ExitedError when the plugin answered the request.
        """


class ProtobufClient:
    """ProtoBuf:1: one connection carries an event from its start to its end."""

    def __init__(self, pool: Pool, socket: Path, seconds: float) -> None:
        self._pool = pool
        self._socket = socket
        self._seconds = seconds
        self._count = 0

    def _sequence(self) -> int:
        """Kong counts before it adds one more: the first message has 2."""
        self._count += 1
        return self._count + 1

    async def start_instance(self, name: str, config: bytes) -> object:
        sequence = self._sequence()
        reply = await self._simple(sequence, pb.start_instance(sequence, name, config))
        if not reply.HasField("instance_status"):
            raise LuaError("attempt to index field 'instance_status' (a nil value)")
        return reply.instance_status.instance_id

    async def close_instance(self, instance: object) -> None:
        sequence = self._sequence()
        assert isinstance(instance, int)
        await self._simple(sequence, pb.close_instance(sequence, instance))

    async def _simple(self, sequence: int, message: bytes) -> Any:
        connection = await self._pool.take(self._socket)
        finished = False
        try:
            connection.write(len(message).to_bytes(4, "little") + message)
            reply = await self._frame(connection)
            finished = True
        finally:
            self._release(connection, finished)
        return _checked(reply, sequence)

    def _release(self, connection: Connection, finished: bool) -> None:
        if finished:
            self._pool.give_back(connection)
        else:  # nginx closes it with the request
            connection.close()

    async def _frame(self, connection: Connection) -> bytes:
        while (frame := _take_frame(connection.buffer)) is None:
            if not await connection.more(self._seconds):
                raise RpcError("closed")
        return frame

    async def handle_event(self, instance: object, call: Call) -> None:
        sequence = self._sequence()
        assert isinstance(instance, int)
        connection = await self._pool.take(self._socket)
        finished = False
        try:
            message = pb.handle_event(sequence, instance, call.phase)
            connection.write(len(message).to_bytes(4, "little") + message)
            await self._bridge(connection, call)
            reply = await self._frame(connection)
            finished = True
        finally:
            self._release(connection, finished)
        _checked(reply, sequence)

    async def _bridge(self, connection: Connection, call: Call) -> None:
        """Answer PDK calls in order until the empty frame; what came together is answered in one
        write.
        """
        buffer = connection.buffer
        replies: list[bytes] = []
        body = call.ctx.client.body
        while True:
            try:
                while (pair := _take_pair(buffer)) is not None:
                    if pair == _END:
                        return
                    if pair[0] in _READS_BODY_PB and body.pending is not None:
                        _flush(connection, replies)
                        await body.load()
                    reply = pb.call_pdk(call, *pair)
                    replies.append(len(reply).to_bytes(4, "little") + reply)
            finally:
                _flush(connection, replies)
            if not await connection.more(self._seconds):
                raise RpcError("closed")


_END = (b"", b"")


def _flush(connection: Connection, replies: list[bytes]) -> None:
    if replies:
        connection.write(b"".join(replies))
        replies.clear()


def _checked(data: bytes, sequence: int) -> Any:
    reply = pb.rpc_return(data)
    if reply.sequence != sequence:
        raise LuaError("assertion failed!")
    return reply


def _take_frame(buffer: bytearray) -> bytes | None:
    """One frame off the buffer, None while it is not whole."""
    if len(buffer) < 4:
        return None
    end = 4 + int.from_bytes(buffer[:4], "little")
    if len(buffer) < end:
        return None
    frame = bytes(buffer[4:end])
    del buffer[:end]
    return frame


def _take_pair(buffer: bytearray) -> tuple[bytes, bytes] | None:
    """A method name and its argument, or the empty frame that ends an event."""
    if len(buffer) < 4:
        return None
    middle = 4 + int.from_bytes(buffer[:4], "little")
    if middle == 4:
        del buffer[:4]
        return _END
    start = middle + 4
    if len(buffer) < start:
        return None
    end = start + int.from_bytes(buffer[middle:start], "little")
    if len(buffer) < end:
        return None
    pair = (bytes(buffer[4:middle]), bytes(buffer[start:end]))
    del buffer[:end]
    return pair


class _Reader:
    """Messages off one connection, until the answer that is waited for has come."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._unpacker = mp.unpacker()
        self._fed = 0
        self._read = 0

    async def message(self) -> object:
        """One message. The end of the stream, or no data in time, before it: RpcError("no data");
        within it: a Lua error.
        """
        buffer = self._connection.buffer
        while True:
            if buffer:
                self._unpacker.feed(buffer)
                self._fed += len(buffer)
                buffer.clear()
            try:
                message: object = self._unpacker.unpack()
            except msgpack.OutOfData:
                await self._more()
                continue
            except (ValueError, TypeError, msgpack.UnpackException) as error:
                raise LuaError(f"unpack: {error}") from None
            self._read = self._unpacker.tell()
            return message

    async def _more(self) -> None:
        with contextlib.suppress(RpcError):
            if await self._connection.more(self._seconds):
                return
        if self._fed > self._read:
            raise LuaError("missing bytes")
        raise RpcError("no data")


class MsgpackClient:
    """MsgPack:1: every message takes a connection of its own from the pool."""

    def __init__(
        self, pool: Pool, socket: Path, seconds: float, notified: Callable[[object, object], None]
    ) -> None:
        self._pool = pool
        self._socket = socket
        self._seconds = seconds
        self._notified = notified
        self._count = 0

    def _next(self) -> int:
        self._count += 1
        return self._count

    async def start_instance(self, name: str, config: bytes) -> object:
        argument = {"Name": name, "Config": config}
        status = await self._call(self._next(), "plugin.StartInstance", argument)
        if status is None:
            raise RpcError(None)
        return _index(status, "Id")

    async def close_instance(self, instance: object) -> None:
        await self._call(self._next(), "plugin.CloseInstance", instance)

    async def _call(self, number: int, method: str, argument: object) -> object:
        return await self._exchange(number, mp.request(number, method, argument))

    async def _exchange(self, number: int, message: bytes) -> object:
        """Send a message and wait for its answer. A connection whose answer did not come goes
        back into the pool all the same, as Kong does it.
        """
        connection = await self._pool.take(self._socket)
        finished = False
        try:
            connection.write(message)
            error, result = await self._answer(connection, number)
            finished = True
        except RpcError:
            finished = True
            raise
        finally:
            connection.buffer.clear()
            if finished:
                self._pool.give_back(connection)
            else:
                connection.close()
        if error is not None:
            raise RpcError(error)
        return result

    async def _answer(self, connection: Connection, number: int) -> tuple[object, object]:
        """The error and the result of the answer; notifications before it are handled."""
        reader = _Reader(connection, self._seconds)
        while True:
            message = await reader.message()
            kind = _index(message, 0)
            if kind == 2:
                self._notified(_index(message, 1), _index(message, 2))
                continue
            if kind != 1:
                raise LuaError("RPC response expected from Go plugin server")
            if _index(message, 1) != number:
                raise LuaError("unexpected RPC response ID from Go plugin server")
            return _index(message, 2), _index(message, 3)

    async def handle_event(self, instance: object, call: Call) -> None:
        argument = {"InstanceId": instance, "EventName": call.phase}
        if instance is None:
            del argument["InstanceId"]
        found = await self._call(self._next(), "plugin.HandleEvent", argument)
        event = _index(found, "EventId") if found else None
        body = call.ctx.client.body
        while found is not None and found is not False:
            data = _index(found, "Data")
            if data == "ret":
                return
            name = _index(data, "Method")
            if name in _READS_BODY and body.pending is not None:
                await body.load()
            kind, packed = mp.call_pdk(call, name, mp.arguments(_index(data, "Args")))
            number = self._next()
            found = await self._exchange(number, mp.step(number, kind, event, packed))


def _index(value: object, key: str | int) -> object:
    """Lua's `value[key]`: nil for what is not there, a Lua error for what cannot be indexed."""
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list):
        return value[key] if isinstance(key, int) and key < len(value) else None
    if isinstance(value, str | bytes):
        return None
    kind = type(value).__name__
    raise LuaError(f"attempt to index a {kind} value")
