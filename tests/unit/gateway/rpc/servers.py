"""Small plugin servers for the tests: each connection is handed to a function of the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack

from kong_ai_proxy.gateway.context import PluginEntity, RequestContext
from kong_ai_proxy.gateway.plugins import ExternalPlugins, Limits, ServerInfo
from kong_ai_proxy.gateway.rpc.protobuf import MESSAGES
from tests.unit.gateway.rpc.replay import context

GET = "GET /cap/echo?q=1 HTTP/1.1\r\nHost: capture.example\r\nAccept: */*\r\n\r\n"
POST = "POST /cap/chat HTTP/1.1\r\nHost: capture.example\r\nContent-Type: text/plain\r\n\r\nhello"


def plugin(seq: int = 1, number: int = 1, **config: object) -> PluginEntity:
    return PluginEntity("p", f"plugin-{number}", config, f"key-{number}", seq, "ws")


def request(raw: str = GET) -> RequestContext:
    return context(raw, {})


class Conn:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    # ProtoBuf:1

    def frame(self, payload: bytes) -> None:
        self.send(len(payload).to_bytes(4, "little") + payload)

    async def read_frame(self) -> bytes:
        head = await self.reader.readexactly(4)
        return await self.reader.readexactly(int.from_bytes(head, "little"))

    async def read_call(self) -> Any:
        message = MESSAGES["RpcCall"]()
        message.ParseFromString(await self.read_frame())
        return message

    def started(self, call: Any, instance: int) -> None:
        reply = MESSAGES["RpcReturn"](sequence=call.sequence)
        reply.instance_status.instance_id = instance
        self.frame(reply.SerializeToString())

    def call_pdk(self, method: str, argument: bytes = b"") -> None:
        self.frame(method.encode())
        self.frame(argument)

    def end(self, call: Any) -> None:
        self.frame(b"")
        self.returned(call)

    def returned(self, call: Any) -> None:
        self.frame(MESSAGES["RpcReturn"](sequence=call.sequence).SerializeToString())

    # MsgPack:1

    async def read_message(self) -> list[Any]:
        while True:
            with contextlib.suppress(msgpack.OutOfData):
                message: list[Any] = self._unpacker.unpack()
                return message
            data = await self.reader.read(65536)
            if not data:
                raise EOFError
            self._unpacker.feed(data)

    def answer(self, message: list[Any], result: object, error: object = None) -> None:
        self.send(msgpack.packb([1, message[1], error, result], use_bin_type=False))

    def step(self, message: list[Any], method: str, *args: object, event: object = 1) -> None:
        self.answer(message, {"EventId": event, "Data": {"Method": method, "Args": list(args)}})


Handler = Callable[[Conn], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(path: Path, handler: Handler) -> AsyncIterator[None]:
    """Run a server until the end of the block; what a handler raises fails the test."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        try:
            await handler(Conn(reader, writer))
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_unix_server(accept, path)
    try:
        yield
    finally:
        server.close()
        if tasks:  # they end when the stand-in has closed its connections
            _, left = await asyncio.wait(tasks, timeout=0.5)
            for writer in writers if left else ():
                writer.close()
            await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def external(
    path: Path, protocol: str, limits: Limits | None = None
) -> AsyncIterator[ExternalPlugins]:
    """The stand-in's side, with one server at `path` for the plugin "p"."""
    plugins = ExternalPlugins({"p": ServerInfo("p", path, protocol)}, limits=limits)
    try:
        yield plugins
    finally:
        await plugins.close()
