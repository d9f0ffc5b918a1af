"""Kong's side of a connection for tests: runs whole events against a PluginServer.

Encodes and decodes with other code than the server: Google's protobuf, and msgpack directly.
"""

from __future__ import annotations

import abc
import asyncio
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgpack
from hypothesis import settings
from typing_extensions import override

from kong_ai_proxy.pluginserver.instances import MemoryStore, Store
from kong_ai_proxy.pluginserver.server import PluginServer
from kong_ai_proxy.pluginserver.wire.methods import METHODS, Protocol
from tests.contract import oracle
from tests.contract.replay import Wire

EXAMPLES = settings(deadline=None, max_examples=50)
"""For `@given`: on a busy machine an example takes what it takes."""

PROTOCOLS: tuple[Protocol, ...] = ("protobuf", "msgpack")

Answers = Mapping[str, Any]


class Outcome(NamedTuple):
    """How an event ended for Kong: `end`, `exit`, an error text, or `gone` (connection ended)."""

    how: str
    calls: list[tuple[str, Any]]
    status: int = 0
    body: bytes = b""

    @property
    def names(self) -> list[str]:
        """The methods that were called, without `kong.`."""
        return [name.removeprefix("kong.") for name, _ in self.calls]

    @property
    def message(self) -> str:
        """The error message in the body of the answer."""
        message: str = json.loads(self.body)["error"]["message"]
        return message


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that other tasks of this loop do."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


class KongSide(abc.ABC):
    """One connection. Subclasses speak a protocol."""

    def __init__(self, server: PluginServer) -> None:
        self.server = server
        self.wire = Wire(server.session())
        self.sequence = 1

    def next_number(self) -> int:
        self.sequence += 1
        return self.sequence

    async def event(
        self, instance: int, phase: str = "access", answers: Answers | None = None
    ) -> Outcome:
        """Run one event, answering its getters."""
        self.begin(instance, phase)
        return await self.finish(answers)

    @abc.abstractmethod
    async def start(self, name: str, config: bytes = b"{}") -> int:
        """Start an instance; its id."""

    @abc.abstractmethod
    def begin(self, instance: int, phase: str = "access") -> None: ...

    @abc.abstractmethod
    async def finish(self, answers: Answers | None = None) -> Outcome: ...


def frame(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


class ProtobufSide(KongSide):
    """ProtoBuf:1."""

    def send(self, **command: Any) -> None:
        call = oracle.MESSAGES["RpcCall"](sequence=self.next_number(), **command)
        self.wire.session.data_received(frame(call.SerializeToString()))

    async def read(self) -> bytes | None:
        """The next frame; None where the connection ended."""
        written = self.wire.written
        await until(lambda: len(written) >= 4 or self.wire.closed)
        if len(written) < 4:
            return None
        size = struct.unpack_from("<I", written)[0]
        await until(lambda: len(written) >= 4 + size)
        payload = bytes(written[4 : 4 + size])
        del written[: 4 + size]
        return payload

    async def returned(self) -> Any:
        """The next frame as an RpcReturn."""
        payload = await self.read()
        assert payload is not None
        message: Any = oracle.parse("RpcReturn", payload)
        assert message.sequence == self.sequence
        return message

    @override
    async def start(self, name: str, config: bytes = b"{}") -> int:
        self.send(cmd_start_instance={"name": name.encode(), "config": config})
        number: int = (await self.returned()).instance_status.instance_id
        return number

    @override
    def begin(self, instance: int, phase: str = "access") -> None:
        self.send(cmd_handle_event={"instance_id": instance, "event_name": phase.encode()})

    @override
    async def finish(self, answers: Answers | None = None) -> Outcome:
        calls: list[tuple[str, Any]] = []
        while True:
            name = await self.read()
            if name is None:
                return Outcome("gone", calls)
            if name == b"":
                await self.returned()
                return Outcome("end", calls)
            argument = await self.read()
            assert argument is not None
            method = METHODS.get(name.decode())
            if method is None:
                return Outcome(name.decode(), calls)
            message: Any = oracle.parse(oracle.ARGUMENTS[method.argument], argument)
            calls.append((method.name, oracle.meaning(message)))
            if method.name == "kong.response.exit":
                self.wire.close()
                return Outcome("exit", calls, message.status, message.body)
            reply = reply_frame(method.name, (answers or {}).get(method.name))
            self.wire.session.data_received(reply)


def reply_frame(name: str, answer: Any) -> bytes:
    """Kong's reply to a PDK call: `answer` is text, bytes, a number, a mapping, or None."""
    result = METHODS[name].result
    if answer is None or result == "empty":
        return frame(b"")
    if result == "headers":
        return frame(oracle.struct_of(answer).SerializeToString())
    if result == "value":
        return frame(oracle.value_of(answer).SerializeToString())
    message: Any = oracle.MESSAGES[oracle.RESULTS[result]]
    if isinstance(answer, str):
        answer = answer.encode("utf-8", "surrogateescape")
    if result == "raw body" and isinstance(answer, bytes):
        answer = {"content": answer}
    fields = answer if isinstance(answer, dict) else {"v": answer}
    payload: bytes = message(**fields).SerializeToString()
    return frame(payload)


class MsgpackSide(KongSide):
    """MsgPack:1. `event_id` is that of the event under way."""

    event_id = 0

    def send(self, method: str, *args: object) -> None:
        message = [0, self.next_number(), method, list(args)]
        packed = msgpack.packb(message, unicode_errors="surrogateescape")
        self.wire.session.data_received(packed)

    async def read(self) -> list[Any] | None:
        """The next message that is no notification; None where the connection ended."""
        unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape")
        while True:
            await until(lambda: self.wire.written or self.wire.closed)
            if not self.wire.written:
                return None
            unpacker.feed(bytes(self.wire.written))
            message: list[Any] = unpacker.unpack()
            del self.wire.written[: unpacker.tell()]
            if message[0] != 2:
                assert message[1] == self.sequence
                return message
            unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape")

    async def returned(self) -> Any:
        message = await self.read()
        assert message is not None
        assert message[2] is None, message[2]
        return message[3]

    @override
    async def start(self, name: str, config: bytes = b"{}") -> int:
        self.send("plugin.StartInstance", {"Name": name, "Config": config.decode()})
        number: int = (await self.returned())["Id"]
        return number

    @override
    def begin(self, instance: int, phase: str = "access") -> None:
        self.send("plugin.HandleEvent", {"InstanceId": instance, "EventName": phase})

    @override
    async def finish(self, answers: Answers | None = None) -> Outcome:
        calls: list[tuple[str, Any]] = []
        while True:
            message = await self.read()
            if message is None:
                return Outcome("gone", calls)
            if message[2] is not None:
                return Outcome(message[2], calls)
            self.event_id, data = message[3]["EventId"], message[3]["Data"]
            if data == "ret":
                return Outcome("end", calls)
            calls.append((data["Method"], data["Args"]))
            if data["Method"] == "kong.response.exit":
                status, body = (data["Args"] + [b""])[:2]
                return Outcome("exit", calls, status, _bytes(body))
            self.step((answers or {}).get(data["Method"]))

    def step(self, answer: Any) -> None:
        """Kong has done a call."""
        if isinstance(answer, dict):
            answer = {name: _list(value) for name, value in answer.items()}
        data = {} if answer is None else {"Data": answer}
        self.send("plugin.Step", {"EventId": self.event_id, **data})


def _bytes(body: Any) -> bytes:
    """A body as the client gets it; Kong makes JSON of a table."""
    if isinstance(body, dict):
        return json.dumps(body).encode()
    return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body)


def _list(value: Any) -> Any:
    if value is True:
        return []
    return [value] if isinstance(value, str) else value


SIDES: dict[Protocol, Callable[[PluginServer], Any]] = {
    "protobuf": ProtobufSide,
    "msgpack": MsgpackSide,
}


def plugin(access: Callable[..., object], **attributes: object) -> type:
    """A plugin class whose handlers are functions of `kong`."""

    class Plugin:
        def __init__(self, config: dict[str, Any]) -> None:
            self.config = config

        def access(self, kong: Any) -> None:
            access(kong)

    for name, value in attributes.items():
        setattr(Plugin, name, value)
    return Plugin


def server(
    protocol: Protocol,
    plugin_class: type,
    *,
    store: Store | None = None,
    event_seconds: float = 55.0,
) -> PluginServer:
    """A server with the one plugin `p`."""
    plugins = {"p": plugin_class}
    kept = MemoryStore() if store is None else store
    return PluginServer(plugins, kept, protocol=protocol, event_seconds=event_seconds)
