"""Plays a recorded plugin server to the stand-in, and compares what the stand-in says with what a
real Kong said.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack

from kong_ai_proxy.gateway.context import (
    Body,
    Client,
    PluginEntity,
    RequestContext,
    Response,
    Upstream,
)
from kong_ai_proxy.gateway.plugins import ExternalPlugins, Limits, ServerInfo
from kong_ai_proxy.gateway.rpc.protobuf import MESSAGES, SERVICE

FIXTURES = Path(__file__).with_name("fixtures")
PROTOCOLS = {"protobuf": "ProtoBuf:1", "msgpack": "MsgPack:1"}
DEADLINE = 10.0
REQUEST_ID = "0" * 32
NOT_SENT_ON = ("host", "connection", "upgrade", "x-forwarded-")
OWN_KEYS = ("__seq__", "__key__", "__ws_id", "__plugin_id", "route_id", "service_id", "consumer_id")


def load(protocol: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((FIXTURES / f"{protocol}.json").read_text())
    return found


def entity(config: Mapping[str, Any], name: str = "capture") -> PluginEntity:
    """The plugin of a recorded configuration."""
    return PluginEntity(
        name=name,
        id=config["__plugin_id"],
        config={key: value for key, value in config.items() if key not in OWN_KEYS},
        key=config["__key__"],
        seq=config["__seq__"],
        ws_id=config["__ws_id"],
        route_id=config.get("route_id"),
        service_id=config.get("service_id"),
        consumer_id=config.get("consumer_id"),
    )


def context(raw: str, values: Mapping[str, Any]) -> RequestContext:
    """The request as Kong had it when its access phase began: a Service at localhost:38900/base,
    a Route at /cap (or /rx) with strip_path.
    """
    head, _, body = raw.partition("\r\n\r\n")
    request_line, *lines = head.split("\r\n")
    method, target, _ = request_line.split(" ")
    path, _, query = target.partition("?")
    pairs = (line.partition(": ") for line in lines)
    headers = [(name, value) for name, _, value in pairs]
    content = body.encode("utf-8", "surrogateescape")
    client = Client(method, path, query, headers, body=Body(content), host="capture.example")
    client.port, client.ip_port = 38000, values.get("ip_port", 0)
    stripped = path.removeprefix("/cap") if path.startswith("/cap") else ""
    kept = [(name, value) for name, value in headers if not name.lower().startswith(NOT_SENT_ON)]
    upstream = Upstream("http", "localhost", 38900, method, f"/base{stripped}", query, kept)
    ctx = RequestContext(client, upstream, request_id=REQUEST_ID)
    for name in ("route", "service", "consumer", "credential"):
        setattr(ctx, name, values.get(name))
    captures = values.get("captures", {})
    ctx.captures_match = captures.get("match", "")
    ctx.captures_unnamed = tuple(captures.get("unnamed", ()))
    ctx.captures_named = captures.get("named", {})
    ctx.forwarded_prefix = values.get("forwarded_prefix")
    ctx.started_at = values.get("started_ms", 0) / 1000
    return ctx


# --- comparing messages


def canonical(message: Any) -> Any:
    """A protobuf message without the order of map entries; JSON in bytes is parsed."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        many = list(value) if field.is_repeated else [value]
        items = [canonical(item) if hasattr(item, "ListFields") else item for item in many]
        if field.name in ("fields", "named"):
            items.sort(key=lambda item: item["key"])
        if field.name == "config" and isinstance(items[0], bytes):
            items = [json.loads(items[0])]
        found[field.name] = items
    return found


def parsed(kind: str, data: bytes) -> Any:
    """The message, after a check that the definition knows all of it."""
    message = MESSAGES[kind]()
    message.ParseFromString(data)
    assert len(message.SerializeToString()) == len(data), f"unknown fields in a {kind}"
    return canonical(message)


class ProtobufWire:
    """Frames off and on one connection; remembers which call a reply belongs to."""

    def __init__(self) -> None:
        self._calls: list[str] = []  # the results that are owed, by message
        self._half: str | None = None

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readexactly(4)
        return head + await reader.readexactly(int.from_bytes(head, "little"))

    def sent(self, frame: bytes) -> None:
        """Note a server frame: a method name, then its argument."""
        payload = frame[4:]
        if self._half is not None:
            self._calls.append(self._half)
            self._half = None
        elif payload in SERVICE:
            self._half = SERVICE[payload].result

    def compare(self, theirs: bytes, ours: bytes, *, loose: bool) -> None:
        kind = self._calls.pop(0) if self._calls else "RpcCall"
        if kind == "Empty":
            assert ours == theirs
        elif not loose:
            assert parsed(kind, ours[4:]) == parsed(kind, theirs[4:])


class MsgpackWire:
    """The same for MsgPack:1."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """One message, packed again; the reader never gives two, Kong waits for an answer."""
        data = b""
        while True:
            data += await reader.read(65536) or _ended()
            try:
                msgpack.unpackb(data, raw=True, strict_map_key=False)
            except ValueError:
                continue
            return data

    def sent(self, frame: bytes) -> None:
        """Nothing to remember: Kong's messages name their kind."""

    def compare(self, theirs: bytes, ours: bytes, *, loose: bool) -> None:
        wanted, found = _unpacked(theirs), _unpacked(ours)
        if loose:
            wanted[3][0].pop("Data", None)
            found[3][0].pop("Data", None)
        assert found == wanted


def _ended() -> bytes:
    raise AssertionError("the stand-in closed a connection on which a message was expected")


def _unpacked(data: bytes) -> Any:
    message = msgpack.unpackb(
        data, raw=False, unicode_errors="surrogateescape", strict_map_key=False
    )
    argument = message[3][0]
    if isinstance(argument, dict) and "Config" in argument:
        argument["Config"] = json.loads(argument["Config"])
    return message


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


# --- the scripted server


class Player:
    """Runs one recorded scenario against `ExternalPlugins`."""

    def __init__(self, protocol: str, scenario: Mapping[str, Any], socket: Path) -> None:
        self._protocol = protocol
        self._scenario = scenario
        self._socket = socket
        self._accepted: asyncio.Queue[Any] = asyncio.Queue()
        self._connections: dict[int, tuple[Any, Any, Any]] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._body_here = asyncio.Event()
        self.contexts: dict[int, RequestContext] = {}

    async def play(self) -> None:
        await self._up()
        info = ServerInfo("capture", self._socket, PROTOCOLS[self._protocol])
        plugins = ExternalPlugins({"capture": info}, limits=Limits(poll=0.5))
        try:
            for step in self._scenario["steps"]:
                await asyncio.wait_for(self._step(plugins, *step), DEADLINE)
        finally:
            await plugins.close()
            await self._down()

    async def _up(self) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._accepted.put((reader, writer))

        self._server = await asyncio.start_unix_server(accept, self._socket)

    async def _down(self) -> None:
        assert self._server is not None
        self._server.close()
        self._socket.unlink(missing_ok=True)
        while not self._accepted.empty():
            self._connections[-len(self._connections)] = (*self._accepted.get_nowait(), None)
        for _, writer, _ in self._connections.values():
            await _close(writer)

    async def _step(self, plugins: ExternalPlugins, kind: str, *args: Any) -> None:
        if kind == "sent":
            self._start(plugins, args[0])
        elif kind == "done":
            if args[0] in self._running:
                await self._running[args[0]]
        elif kind == "open":
            self._body_here.set()
            reader, writer = await self._accepted.get()
            wire = ProtobufWire() if self._protocol == "protobuf" else MsgpackWire()
            self._connections[args[0]] = (reader, writer, wire)
        elif kind == "close":
            await self._close(*args)
        elif kind in ("kong", "server"):
            await self._frame(kind, *args)
        else:
            await (self._up() if kind == "up" else self._down())

    def _start(self, plugins: ExternalPlugins, number: int) -> None:
        request = self._scenario["requests"][number - 1]
        ctx = context(request["raw"], self._scenario["context"])
        self.contexts[number] = ctx
        if "late_body" in request:
            self._body_here.clear()
            ctx.client.body.pending = self._body
        if request["config"] is None:
            return
        plugin = entity(self._scenario["configs"][request["config"]])
        self._running[number] = asyncio.create_task(self._phases(plugins, plugin, ctx))

    async def _body(self) -> None:
        """A body that arrives once Kong has gone on to open the next connection."""
        await self._body_here.wait()

    async def _phases(
        self, plugins: ExternalPlugins, plugin: PluginEntity, ctx: RequestContext
    ) -> None:
        await plugins.run(plugin, "access", ctx)
        if "response" in self._scenario["context"]:
            headers = [(name, value) for name, value in self._scenario["context"]["response"]]
            ctx.response = Response(200, headers)
            self._log = asyncio.create_task(plugins.run(plugin, "log", ctx))

    async def _close(self, connection: int, by: str) -> None:
        reader, writer, _ = self._connections[connection]
        if by == "kong":
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        await _close(writer)

    async def _frame(self, kind: str, connection: int, data: str, loose: str = "") -> None:
        reader, writer, wire = self._connections[connection]
        frame = base64.b64decode(data)
        if kind == "server":
            wire.sent(frame)
            writer.write(frame)
            with contextlib.suppress(ConnectionError):  # Kong has left in the middle of a batch
                await writer.drain()
        else:
            wire.compare(frame, await wire.read(reader), loose=bool(loose))
