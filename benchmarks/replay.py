"""Kong's side of an access event, as cheap as it can be: every PDK call is answered from memory.

The answers come from the stand-in's PDK once; after that the same bytes get the same bytes back,
so that what is measured is the plugin server.
"""

from __future__ import annotations

import abc
import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
from typing_extensions import override

from kong_ai_proxy.gateway.context import PluginEntity, RequestContext
from kong_ai_proxy.gateway.pdk import Call
from kong_ai_proxy.gateway.rpc import msgpack as mp
from kong_ai_proxy.gateway.rpc import protobuf as pb

READ_SIZE = 1 << 18


class Replay(abc.ABC):
    """One connection to a plugin server, with an instance started."""

    def __init__(self, entity: PluginEntity, context: Callable[[], RequestContext]) -> None:
        self.entity = entity
        self._context = context

    async def open(self, path: Path) -> None:
        """Connect, and start the instance."""
        self.reader, self.writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
        await self.start()

    @abc.abstractmethod
    async def start(self) -> None:
        """Start the instance."""

    @abc.abstractmethod
    async def event(self) -> int:
        """Run one access event. Returns how often the server waited for Kong."""

    def call(self) -> Call:
        """One PDK call's surroundings, as fresh as a request."""
        return Call(self._context(), self.entity, "access", "node")

    def config(self) -> bytes:
        """The configuration as Kong sends it."""
        return json.dumps({**self.entity.config, "__plugin_id": self.entity.id}).encode()

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


class ProtobufReplay(Replay):
    """ProtoBuf:1."""

    @override
    async def start(self) -> None:
        self._replies: dict[bytes, bytes] = {}
        self._write(pb.start_instance(2, self.entity.name, self.config()))
        reply = pb.rpc_return(await self._frame())
        self._instance = int(reply.instance_status.instance_id)
        message = pb.handle_event(3, self._instance, "access")
        self._event = len(message).to_bytes(4, "little") + message

    @override
    async def event(self) -> int:
        self.writer.write(self._event)
        buffer = b""
        waits = 0
        while True:
            buffer += await self.reader.read(READ_SIZE)
            replies, at, ended = self._answers(buffer)
            buffer = buffer[at:]
            if replies:
                self.writer.write(b"".join(replies))
            if ended:
                break
            waits += 1 if replies else 0
        while len(buffer) < 4 or len(buffer) < 4 + int.from_bytes(buffer[:4], "little"):
            buffer += await self.reader.read(READ_SIZE)
        return waits + 1  # the event itself

    def _answers(self, buffer: bytes) -> tuple[list[bytes], int, bool]:
        replies: list[bytes] = []
        at = 0
        while len(buffer) - at >= 4:
            middle = at + 4 + int.from_bytes(buffer[at : at + 4], "little")
            if middle == at + 4:
                return replies, middle, True
            if len(buffer) < middle + 4:
                break
            end = middle + 4 + int.from_bytes(buffer[middle : middle + 4], "little")
            if len(buffer) < end:
                break
            replies.append(self._reply(buffer[at:end], middle - at))
            at = end
        return replies, at, False

    def _reply(self, pair: bytes, middle: int) -> bytes:
        reply = self._replies.get(pair)
        if reply is None:
            answer = pb.call_pdk(self.call(), pair[4:middle], pair[middle + 4 :])
            reply = self._replies[pair] = len(answer).to_bytes(4, "little") + answer
        return reply

    def _write(self, message: bytes) -> None:
        self.writer.write(len(message).to_bytes(4, "little") + message)

    async def _frame(self) -> bytes:
        size = int.from_bytes(await self.reader.readexactly(4), "little")
        return await self.reader.readexactly(size)


class MsgpackReplay(Replay):
    """MsgPack:1, all steps on one connection."""

    @override
    async def start(self) -> None:
        self._steps: dict[bytes, tuple[str, bytes | None]] = {}
        self._number = 0
        self._unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=1 << 28)
        argument = {"Name": self.entity.name, "Config": self.config()}
        status = await self._exchange(mp.request(self._next(), "plugin.StartInstance", argument))
        self._instance = status[b"Id"]

    def _next(self) -> int:
        self._number += 1
        return self._number

    @override
    async def event(self) -> int:
        argument = {"InstanceId": self._instance, "EventName": "access"}
        found = await self._exchange(mp.request(self._next(), "plugin.HandleEvent", argument))
        event, waits = found[b"EventId"], 1
        while found[b"Data"] != b"ret":
            kind, packed = self._step(found[b"Data"])
            found = await self._exchange(mp.step(self._next(), kind, event, packed))
            waits += 1
        return waits

    def _step(self, data: dict[bytes, Any]) -> tuple[str, bytes | None]:
        key = data[b"Method"] + repr(data[b"Args"]).encode() if data[b"Args"] else data[b"Method"]
        step = self._steps.get(key)
        if step is None:
            arguments = mp.arguments(mp.lua_value(data[b"Args"]))
            step = mp.call_pdk(self.call(), data[b"Method"].decode(), arguments)
            self._steps[key] = step
        return step

    async def _exchange(self, message: bytes) -> Any:
        self.writer.write(message)
        while True:
            for reply in self._unpacker:
                if reply[0] == 2:  # a notification: the server's pid
                    continue
                if reply[2] is not None:
                    raise RuntimeError(f"the plugin server answered with an error: {reply[2]!r}")
                return reply[3]
            self._unpacker.feed(await self.reader.read(READ_SIZE))


async def connect(
    protocol: str, path: Path, entity: PluginEntity, context: Callable[[], RequestContext]
) -> Replay:
    """A connection that replays access events over `protocol` (protobuf or msgpack)."""
    kinds: dict[str, type[ProtobufReplay | MsgpackReplay]] = {
        "protobuf": ProtobufReplay,
        "msgpack": MsgpackReplay,
    }
    replay = kinds[protocol](entity, context)
    await replay.open(path)
    return replay
