"""What Kong's two encodings lose, and that it does not matter where the bytes are cut."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.gateway.context import RequestContext
from kong_ai_proxy.gateway.pdk import METHODS, Call, ExitedError, LuaError
from kong_ai_proxy.gateway.rpc import msgpack as mp
from kong_ai_proxy.gateway.rpc import protobuf as pb
from kong_ai_proxy.gateway.rpc.clients import MsgpackClient, ProtobufClient
from kong_ai_proxy.gateway.rpc.connection import Connection, Pool
from tests.unit.gateway.rpc.servers import plugin, request

PHASES = ("rewrite", "access", "log")
SCALARS = st.one_of(
    st.booleans().filter(bool),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False, width=32).filter(lambda x: x != int(x)),
    st.text(st.characters(exclude_categories=["Cs"])),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4),
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    ),
    max_leaves=10,
)


def call(ctx: RequestContext | None = None) -> Call:
    return Call(ctx or request(), plugin(), "access", "node")


def ask(ctx: RequestContext, method: str, argument: bytes = b"") -> bytes:
    return pb.call_pdk(call(ctx), method.encode(), argument)


def kv(key: str, value: object) -> bytes:
    message = pb.MESSAGES["KV"](k=key.encode(), v=pb.value_fields(value))
    return bytes(message.SerializeToString())


# --- ProtoBuf:1


@settings(deadline=None)
@given(VALUES)
def test_values_survive_a_round_trip_through_shared_context(value: Any) -> None:
    ctx = request()
    ask(ctx, "kong.ctx.shared.set", kv("k", value))
    answer = pb.MESSAGES["Value"].FromString(  # type: ignore[attr-defined]
        ask(ctx, "kong.ctx.shared.get", b"\x0a\x01k")
    )
    assert pb.lua_value(answer) == value


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"\x20\x00", None),  # false
        (b"\x08\x00", "NULL_VALUE"),
        (b"", None),
        (b"\x32\x00", []),  # an empty list
        (b"\x1a\x00", ""),
        (b"\x11" + bytes(8), 0),
        (b"\x1a\x01\xff", "\udcff"),
    ],
)
def test_what_kong_makes_of_a_value(sent: bytes, kept: object) -> None:
    ctx = request()
    argument = b"\x0a\x01k\x12" + bytes([len(sent)]) + sent
    ask(ctx, "kong.ctx.shared.set", argument)
    assert ctx.shared.get("k") == kept


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (None, b"\x08\x01"),
        ([], b"\x2a\x00"),  # a struct
        ({}, b"\x2a\x00"),
        (False, b"\x20\x00"),
        ("", b"\x1a\x00"),
        ([1, None, 2], b"\x32\x0b\x0a\x09\x11\x00\x00\x00\x00\x00\x00\xf0\x3f"),
    ],
)
def test_how_kong_writes_a_value(value: object, wire: bytes) -> None:
    message = pb.MESSAGES["Value"](**pb.value_fields(value))
    assert message.SerializeToString() == wire


def test_no_argument_is_a_real_zero() -> None:
    with pytest.raises(LuaError, match="max_headers must be >= 1"):
        ask(request(), "kong.request.get_headers", b"")


def test_bytes_that_are_no_utf8_pass_through() -> None:
    ctx = request()
    ask(ctx, "kong.service.request.set_header", b"\x0a\x03x-a\x12\x06\x1a\x04caf\xe9")
    assert ("x-a", "caf\udce9") in ctx.upstream.headers
    assert ask(ctx, "kong.request.get_header", b"\x0a\x03x-a") == b"\x0a\x04caf\xe9"


def test_query_argument_without_value_is_a_lua_error() -> None:
    ctx = request("GET /cap?b HTTP/1.1\r\nHost: h\r\n\r\n")
    with pytest.raises(LuaError, match="string expected for field 'v', got boolean"):
        ask(ctx, "kong.request.get_query_arg", b"\x0a\x01b")


def test_body_in_a_file_is_answered_with_its_path(tmp_path: Path) -> None:
    ctx = request()
    ctx.client.body.file = tmp_path / "body"
    path = str(ctx.client.body.file).encode()
    assert ask(ctx, "kong.request.get_raw_body") == b"\x12" + bytes([len(path)]) + path


def test_missing_consumer_and_empty_message_look_the_same() -> None:
    assert ask(request(), "kong.client.get_consumer") == b""


def test_entities_have_false_but_no_zero_and_no_unknown_fields() -> None:
    ctx = request()
    ctx.route = {"id": "r", "preserve_host": False, "regex_priority": 0, "headers": {"a": ["b"]}}
    assert ask(ctx, "kong.router.get_route") == b"\x0a\x01r\x68\x00"


def test_exit_without_body_has_an_empty_one() -> None:
    ctx = request()
    with pytest.raises(ExitedError):
        ask(ctx, "kong.response.exit", b"\x08\xcc\x01")
    assert ctx.exit is not None
    assert (ctx.exit.status, ctx.exit.headers) == (204, [("Content-Length", "0")])


# --- MsgPack:1


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ([1, None, 3], [1]),
        ([None, 2], [None, 2]),
        ([1, None], [1]),
        ({}, []),
        ("one", ["one"]),
        ([b"\xff", {"a": None, "b": 1.0}], [b"\xff", {"b": 1}]),
    ],
)
def test_arguments_as_lua_unpacks_them(args: object, found: list[object]) -> None:
    assert mp.arguments(args) == found


@pytest.mark.parametrize(
    ("method", "args", "step", "data"),
    [
        ("kong.request.get_headers", [], "plugin.StepMultiMap", {"host": ["h"], "a": ["1", "2"]}),
        ("kong.request.get_query", [], "plugin.StepMultiMap", {"b": [], "c": ["1"]}),
        ("kong.client.get_consumer", [], "plugin.StepConsumer", None),
        ("kong.request.get_raw_body", [], "plugin.Step", b"body"),
        ("kong.request.get_uri_captures", [], "plugin.Step", {"named": [], "unnamed": []}),
        ("kong.request.get_query_arg", ["b"], "plugin.Step", True),
    ],
)
def test_steps(method: str, args: list[object], step: str, data: object) -> None:
    ctx = request("POST /cap?b&c=1 HTTP/1.1\r\nhost: h\r\na: 1\r\nA: 2\r\n\r\nbody")
    kind, packed = mp.call_pdk(call(ctx), method, args)
    found = None if packed is None else msgpack.unpackb(packed, raw=False)
    assert (kind, found) == (step, data)


def test_strings_are_raw_and_bodies_binary() -> None:
    assert mp.pack("x" * 40)[:3] == b"\xda\x00\x28"
    ctx = request("POST /cap HTTP/1.1\r\nhost: h\r\n\r\nbody")
    assert mp.call_pdk(call(ctx), "kong.request.get_raw_body", [])[1] == b"\xc4\x04body"


def test_empty_multi_map_is_a_map_and_a_list_with_holes_too() -> None:
    assert mp.call_pdk(call(request("GET / HTTP/1.1\r\n\r\n")), "kong.request.get_query", [])[
        1
    ] == (b"\x80")
    ctx = request()
    ctx.shared["k"] = [1, None, 2]
    packed = mp.call_pdk(call(ctx), "kong.ctx.shared.get", ["k"])[1]
    assert msgpack.unpackb(packed, strict_map_key=False) == {1: 1, 3: 2}


# --- whatever a server sends


@settings(deadline=None)
@given(st.sampled_from(sorted(pb.SERVICE)), st.binary(max_size=40), st.sampled_from(PHASES))
def test_any_protobuf_argument_is_answered_or_refused(
    method: bytes, argument: bytes, phase: str
) -> None:
    with contextlib.suppress(LuaError, ExitedError):
        pb.call_pdk(Call(request(), plugin(), phase, "node"), method, argument)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(METHODS)),
    st.lists(st.one_of(st.none(), st.booleans(), st.binary(max_size=4), VALUES), max_size=3),
    st.sampled_from(PHASES),
)
def test_any_msgpack_arguments_are_answered_or_refused(
    method: str, args: list[object], phase: str
) -> None:
    with contextlib.suppress(LuaError, ExitedError):
        mp.call_pdk(Call(request(), plugin(), phase, "node"), method, mp.arguments(args))


# --- cut anywhere


class Wire(Pool):
    """A pool with one connection, whose server is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = Connection(self)
        self.written = bytearray()
        self.connection.connection_made(self)  # type: ignore[arg-type]

    async def take(self, path: Path) -> Connection:  # type: ignore[explicit-override]
        return self.connection

    def give_back(self, connection: Connection) -> None:  # type: ignore[explicit-override]
        assert not connection.buffer

    def write(self, data: bytes) -> None:
        self.written += data


async def feed(wire: Wire, data: bytes, cut: int) -> None:
    for part in filter(None, (data[:cut], data[cut:])):
        wire.connection.data_received(part)
        for _ in range(4):
            await asyncio.sleep(0)


def frames(*payloads: bytes) -> bytes:
    return b"".join(len(payload).to_bytes(4, "little") + payload for payload in payloads)


async def test_protobuf_batch_cut_at_every_byte() -> None:
    batch = frames(
        *(b"kong.request.get_method", b""),
        *(b"kong.service.request.set_path", b"\x0a\x02/a"),
        *(b"kong.request.get_header", b"\x0a\x04host"),
        *(b"", b"\x08\x02"),
    )
    for cut in range(len(batch) + 1):
        wire, ctx = Wire(), request()
        client = ProtobufClient(wire, Path("x"), 5)
        task = asyncio.create_task(client.handle_event(1, call(ctx)))
        await asyncio.sleep(0)
        wire.written.clear()
        await feed(wire, batch, cut)
        await asyncio.wait_for(task, 1)
        assert wire.written == frames(b"\x0a\x03GET", b"", b"\x0a\x0fcapture.example")
        assert ctx.upstream.path == "/a"


async def test_msgpack_answer_cut_at_every_byte() -> None:
    note = msgpack.packb([2, "serverPid", 7])
    step = {"EventId": 9, "Data": {"Method": "kong.request.get_method", "Args": []}}
    first = note + msgpack.packb([1, 1, None, step])
    last = msgpack.packb([1, 2, None, {"Data": "ret"}])
    for cut in range(len(first) + 1):
        wire = Wire()
        pids: list[tuple[object, ...]] = []
        client = MsgpackClient(wire, Path("x"), 5, lambda *found, pids=pids: pids.append(found))
        task = asyncio.create_task(client.handle_event(1, call()))
        await asyncio.sleep(0)
        wire.written.clear()
        await feed(wire, first, cut)
        found = msgpack.unpackb(bytes(wire.written))
        assert found == [0, 2, "plugin.Step", [{"EventId": 9, "Data": "GET"}]]
        await feed(wire, last, cut % len(last))
        await asyncio.wait_for(task, 1)
        assert pids == [("serverPid", 7)]
