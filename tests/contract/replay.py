"""Walks through recorded traffic: Kong's bytes go in, the server's frames are compared.

No sockets: bytes go straight into the sessions, so that every cut is exactly the wanted one.
"""

from __future__ import annotations

import abc
import asyncio
import base64
import json
import operator
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
from typing_extensions import override

from kong_ai_proxy.pluginserver.instances import MemoryStore
from kong_ai_proxy.pluginserver.server import PluginServer
from kong_ai_proxy.pluginserver.session import Session
from kong_ai_proxy.pluginserver.wire.methods import METHODS, Protocol
from tests.contract import oracle

FIXTURES = Path(__file__).parent / "fixtures"

Cut = Callable[[bytes], Iterator[bytes]]


def names(protocol: Protocol) -> list[str]:
    """The recorded scenarios of a protocol."""
    return sorted(path.stem for path in (FIXTURES / protocol).glob("*.json"))


def load(protocol: Protocol, name: str) -> dict[str, Any]:
    """A scenario: `events` and `steps`, see fixtures/README.md."""
    fixture: dict[str, Any] = json.loads((FIXTURES / protocol / f"{name}.json").read_text())
    return fixture


def frame_bytes(text: str) -> bytes:
    """The bytes of a step, in base64, or compressed where that is shorter."""
    if text.startswith("zlib:"):
        return zlib.decompress(base64.b64decode(text.removeprefix("zlib:")))
    return base64.b64decode(text)


class Wire(asyncio.Transport):
    """The server's end of a connection that is not there: keeps what is written."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.written = bytearray()
        self.writes = 0
        self.closed = False
        session.connection_made(self)

    @override
    def write(self, data: Any) -> None:
        self.written += data
        self.writes += 1

    @override
    def is_closing(self) -> bool:
        return self.closed

    @override
    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.session.connection_lost, None)

    abort = close
    write_eof = close  # Kong closes its side when it reads the end

    @override
    def pause_reading(self) -> None:
        """Bytes come nevertheless: what is held must not be lost."""

    @override
    def resume_reading(self) -> None:
        pass


def whole(data: bytes) -> Iterator[bytes]:
    """One piece."""
    yield data


def each_byte(data: bytes) -> Iterator[bytes]:
    """As many pieces as bytes."""
    return (data[at : at + 1] for at in range(len(data)))


def at(position: int) -> Cut:
    """Two pieces."""

    def cut(data: bytes) -> Iterator[bytes]:
        place = position % len(data)
        if place:
            yield data[:place]
        yield data[place:]

    return cut


def plain(value: Any) -> Any:
    """A fixture's value: `{"bytes": base64}` stands for bytes."""
    if isinstance(value, dict):
        if value.keys() == {"bytes"}:
            return frame_bytes(value["bytes"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


class Script:
    """What the handlers do, event by event, and where that went wrong."""

    def __init__(self, events: list[dict[str, Any]], the_file: bytes) -> None:
        self.events = events
        self.the_file = the_file
        self.begun = 0
        self.done = 0
        self.wrong: list[str] = []

    def plugin(self) -> type:
        script = self

        class Capture:
            def __init__(self, config: dict[str, Any]) -> None:
                self.config = config

            def access(self, kong: Any) -> None:
                script.run("access", kong)

            def log(self, kong: Any) -> None:
                script.run("log", kong)

        return Capture

    def run(self, phase: str, kong: Any) -> None:
        event = self.events[self.begun]
        self.begun += 1
        if event["phase"] != phase:
            self.wrong.append(f"phase {phase}, not {event['phase']}")
        for call in event["calls"]:
            self._call(kong, call)
        self.done += 1
        if event.get("raises"):
            raise RuntimeError("boom")

    def _call(self, kong: Any, call: dict[str, Any]) -> None:
        path = call["method"].removeprefix("kong.")
        result = operator.attrgetter(path)(kong)(*plain(call["args"]))
        expected = self.the_file if call.get("result") == "the file" else plain(call.get("result"))
        if call.get("never"):
            self.wrong.append(f"{path} came back")
        elif result != expected:
            self.wrong.append(f"{path} gave {result!r}, not {expected!r}")


class Replay(abc.ABC):
    """One scenario against one implementation. Subclasses know how a protocol's frames look."""

    protocol: Protocol

    def __init__(self, name: str, cut: Cut, tmp_path: Path) -> None:
        self.fixture = load(self.protocol, name)
        self.cut = cut
        self.name = name
        self.body_file = tmp_path / "body"
        self.script = Script(self.fixture["events"], b"spooled " * 2500)
        self.store = MemoryStore()
        self.server = self.new_server()
        self.wires: dict[int, Wire] = {}
        self.instance_ids: dict[int, int] = {}

    def new_server(self) -> PluginServer:
        plugins = {} if self.name == "11d-start-fails" else {"capture": self.script.plugin()}
        return PluginServer(plugins, self.store, protocol=self.protocol)

    async def run(self) -> None:
        for kind, *rest in self.fixture["steps"]:
            await getattr(self, f"_{kind}")(*rest)
        assert self.script.wrong == []
        assert self.script.begun == len(self.fixture["events"])

    async def _open(self, connection: int) -> None:
        self.wires[connection] = Wire(self.server.session())

    async def _restart(self, knows_instances: bool) -> None:
        if not knows_instances:
            self.store = MemoryStore()
        self.server = self.new_server()

    async def _close(self, connection: int, by: str) -> None:
        wire = self.wires[connection]
        if by == "kong" or self.name != "11d-start-fails":
            wire.close()
        await self.until(lambda: wire.closed)
        await asyncio.sleep(0)

    async def _kong(self, connection: int, text: str) -> None:
        for piece in self.cut(self.from_kong(frame_bytes(text))):
            self.wires[connection].session.data_received(piece)
        await asyncio.sleep(0)

    async def _server(self, connection: int, text: str) -> None:
        expected = frame_bytes(text)
        await self.until(lambda: self.has_frame(self.wires[connection]))
        self.compare(connection, self.next_frame(self.wires[connection]), expected)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)

    @abc.abstractmethod
    def from_kong(self, data: bytes) -> bytes:
        """Kong's bytes with the ids that this server has given."""

    @abc.abstractmethod
    def has_frame(self, wire: Wire) -> bool: ...

    @abc.abstractmethod
    def next_frame(self, wire: Wire) -> bytes: ...

    @abc.abstractmethod
    def compare(self, connection: int, got: bytes, expected: bytes) -> None: ...


def _top_fields(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and raw value of the fields of an RpcCall, in the order in which Kong wrote them."""
    place = 0

    def varint() -> int:
        nonlocal place
        result = shift = 0
        while True:
            byte = payload[place]
            place += 1
            result |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return result

    while place < len(payload):
        tag = varint()
        if tag & 7 == 0:
            yield tag, encode_varint(varint())
        else:
            size = varint()
            place += size
            yield tag, encode_varint(size) + payload[place - size : place]


def encode_varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


class ProtobufReplay(Replay):
    """ProtoBuf:1."""

    protocol: Protocol = "protobuf"

    def __init__(self, name: str, cut: Cut, tmp_path: Path) -> None:
        super().__init__(name, cut, tmp_path)
        self.method: dict[int, str] = {}  # by connection: whose argument comes next

    @override
    def from_kong(self, data: bytes) -> bytes:
        if b"client_body_temp" in data:
            self.body_file.write_bytes(self.script.the_file)
            path = str(self.body_file).encode()
            payload = b"\x12" + encode_varint(len(path)) + path
        elif any(tag in data for tag in (b"\xa2\x02", b"\x9a\x02")):
            payload = b"".join(self._with_id(*field) for field in _top_fields(data[4:]))
        else:
            return data
        return struct.pack("<I", len(payload)) + payload

    def _with_id(self, tag: int, raw: bytes) -> bytes:
        if tag >> 3 in (34, 35, 36):
            kept = [
                (0x08, self._id(value)) if inner == 0x08 else (inner, value)
                for inner, value in _top_fields(raw[1:])
            ]
            body = b"".join(encode_varint(inner) + value for inner, value in kept)
            raw = encode_varint(len(body)) + body
        return encode_varint(tag) + raw

    def _id(self, raw: bytes) -> bytes:
        return encode_varint(self.instance_ids[raw[0]])

    @override
    def has_frame(self, wire: Wire) -> bool:
        return len(wire.written) >= 4

    @override
    def next_frame(self, wire: Wire) -> bytes:
        size = 4 + struct.unpack_from("<I", wire.written)[0]
        assert len(wire.written) >= size, "a frame that is not whole"
        frame = bytes(wire.written[:size])
        del wire.written[:size]
        return frame

    @override
    def compare(self, connection: int, got: bytes, expected: bytes) -> None:
        method = METHODS.get(self.method.pop(connection, ""))
        if expected[4:8] == b"kong":
            self.method[connection] = expected[4:].decode()
            assert got == expected
        elif expected[4:].startswith(b"no plugin instance"):
            self.method[connection] = "refused"
            recorded = int(expected[4:].split()[-1])
            assert got[4:] == b"no plugin instance %d" % self.instance_ids[recorded]
        elif method is not None:
            message = oracle.ARGUMENTS[method.argument]
            ours = oracle.meaning(oracle.parse(message, got[4:]))
            assert ours == oracle.meaning(oracle.parse(message, expected[4:]))
        elif expected == b"\0\0\0\0":
            assert got == expected
        else:
            self._compare_return(got, expected)

    def _compare_return(self, got: bytes, expected: bytes) -> None:
        ours: Any = oracle.parse("RpcReturn", got[4:])
        recorded: Any = oracle.parse("RpcReturn", expected[4:])
        if recorded.HasField("instance_status"):
            status = ours.instance_status
            assert 0 < status.instance_id < 2**31
            self.instance_ids[recorded.instance_status.instance_id] = status.instance_id
            status.instance_id = recorded.instance_status.instance_id
        assert oracle.meaning(ours) == oracle.meaning(recorded)

    async def _refusal(self, connection: int) -> None:
        """The recorded server sent an error text; this one answers the client."""
        wire = self.wires[connection]
        await self.until(lambda: len(wire.written) > 4)
        assert self.next_frame(wire)[4:] == b"kong.response.exit"
        args: Any = oracle.parse("ExitArgs", self.next_frame(wire)[4:])
        assert args.status == 500
        assert b"boom" not in args.body
        assert json.loads(args.body)["error"]["message"]

    @override
    async def run(self) -> None:
        await super().run()
        for connection, wire in self.wires.items():
            if not self._ends_unheard():
                assert not wire.written, f"connection {connection} has frames too many"

    def _ends_unheard(self) -> bool:
        """Kong hung up on a call: what was sent behind it is not in the recording."""
        return self.name.startswith(("11e", "11f", "11i"))


class MsgpackReplay(Replay):
    """MsgPack:1."""

    protocol: Protocol = "msgpack"

    def __init__(self, name: str, cut: Cut, tmp_path: Path) -> None:
        super().__init__(name, cut, tmp_path)
        self.event_ids: dict[int, int] = {}
        self.greeted: set[int] = set()

    @override
    def from_kong(self, data: bytes) -> bytes:
        for key, known in (
            (b"\xaaInstanceId", self.instance_ids),
            (b"\xa7EventId", self.event_ids),
        ):
            before, found, after = data.partition(key)
            if found:
                data = before + key + msgpack.packb(known[after[0]]) + after[1:]
        before, found, after = data.partition(b"plugin.CloseInstance\x91")
        if found:
            data = before + found + msgpack.packb(self.instance_ids[after[0]])
        return data

    @override
    def has_frame(self, wire: Wire) -> bool:
        return bool(wire.written)

    @override
    def next_frame(self, wire: Wire) -> bytes:
        unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape")
        unpacker.feed(bytes(wire.written))
        unpacker.skip()
        frame = bytes(wire.written[: unpacker.tell()])
        del wire.written[: unpacker.tell()]
        return frame

    def _message(self, connection: int, frame: bytes) -> list[Any]:
        """A frame decoded; the first on a connection must be behind the process id."""
        message: list[Any] = _unpack(frame)
        if connection not in self.greeted:
            self.greeted.add(connection)
            assert message[:2] == [2, "serverPid"]
            message = _unpack(self.next_frame(self.wires[connection]))
        return message

    @override
    def compare(self, connection: int, got: bytes, expected: bytes) -> None:
        ours, recorded = self._message(connection, got), _unpack(expected)
        assert ours[:2] == recorded[:2]
        if recorded[2] is not None:
            assert "no plugin instance" in ours[2]
            return
        assert ours[2] is None
        result, wanted = ours[3], recorded[3]
        if "Id" in wanted:
            self.instance_ids[wanted["Id"]] = result["Id"]
            assert result["Name"] == wanted["Name"]
        elif "EventId" in wanted:
            self.event_ids[wanted["EventId"]] = result["EventId"]
            assert _text_as_bytes(result["Data"]) == _text_as_bytes(wanted["Data"])
        else:
            assert result == wanted

    async def _refusal(self, connection: int) -> None:
        """The recorded server sent an error, and Kong let the request through."""
        wire = self.wires[connection]
        await self.until(lambda: bool(wire.written))
        message = self._message(connection, self.next_frame(wire))
        assert message[2] is None
        assert message[3]["Data"]["Method"] == "kong.response.exit"
        status, body, _ = message[3]["Data"]["Args"]
        assert status == 500
        assert b"boom" not in body

    async def _error(self, connection: int) -> None:
        wire = self.wires[connection]
        await self.until(lambda: bool(wire.written))
        message = self._message(connection, self.next_frame(wire))
        assert isinstance(message[2], str)
        assert "closed" not in message[2]
        assert "no plugin instance" not in message[2]

    @override
    async def run(self) -> None:
        await super().run()
        for connection, wire in self.wires.items():
            assert not wire.written, f"connection {connection} has messages too many"


def _unpack(frame: bytes) -> Any:
    return msgpack.unpackb(frame, raw=False, unicode_errors="surrogateescape", strict_map_key=False)


def _text_as_bytes(value: Any) -> Any:
    """Lua knows one kind of string."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {_text_as_bytes(key): _text_as_bytes(item) for key, item in value.items()}
    return [_text_as_bytes(item) for item in value] if isinstance(value, list) else value


REPLAYS: dict[Protocol, type[Replay]] = {"protobuf": ProtobufReplay, "msgpack": MsgpackReplay}
