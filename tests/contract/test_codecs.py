"""Both codecs: any cutting gives the same messages, and Google's protobuf agrees."""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Callable
from operator import mul
from typing import Any

import msgpack
import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.pluginserver.wire import WireError, safe_text
from kong_ai_proxy.pluginserver.wire import msgpack as mp
from kong_ai_proxy.pluginserver.wire import protobuf as pb
from kong_ai_proxy.pluginserver.wire.methods import METHODS, Argument
from tests.contract import oracle
from tests.contract.kong_side import EXAMPLES, frame

RAW = st.binary(max_size=40)


def as_text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


TEXT = RAW.map(as_text)
LONG_TEXT = TEXT | RAW.map(lambda octets: as_text(octets * 40))
INT32 = st.integers(-(2**31), 2**31 - 1)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | LONG_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
STRUCTS = st.dictionaries(TEXT, VALUES, max_size=6)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@EXAMPLES
@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 3000)))
def test_any_cutting_gives_the_same_frames(payloads: list[bytes], places: list[int]) -> None:
    framer = pb.Framer()
    data = b"".join(frame(payload) for payload in payloads)
    assert [got for piece in cut(data, places) for got in framer.feed(piece)] == payloads


@EXAMPLES
@given(st.lists(VALUES, max_size=5), st.lists(st.integers(0, 3000)))
def test_any_cutting_gives_the_same_messages(values: list[Any], places: list[int]) -> None:
    reader = mp.Reader()
    data = b"".join(msgpack.packb(value, unicode_errors="surrogateescape") for value in values)
    assert [got for piece in cut(data, places) for got in reader.feed(piece)] == values


def test_a_body_of_eight_megabytes_comes_in_small_pieces() -> None:
    """Takes time in proportion to its size, and leaves no big buffer behind."""
    body = b"x" * 8_000_000
    for take, data in (
        (pb.Framer().feed, frame(body)),
        (mp.Reader().feed, msgpack.packb(body)),
    ):
        pieces = cut(data, list(range(0, len(data), 4096)))
        assert [got for piece in pieces for got in take(piece)] == [body]


def test_a_frame_above_the_bound_is_refused_at_its_length() -> None:
    with pytest.raises(WireError, match="more than"):
        pb.Framer().feed(struct.pack("<I", pb.MAX_FRAME + 1))
    assert pb.Framer().feed(struct.pack("<I", pb.MAX_FRAME)) == []


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of four billion
        b"\xdf\x7f\xff\xff\xff",
        b"\xc1",  # never used
        b"\x91" * 100_000,  # nested
        b"\x81\x90\x00",  # a list as key
    ],
)
def test_what_is_no_message_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        mp.Reader().feed(data)


ARGUMENTS: dict[Argument, st.SearchStrategy[tuple[Any, ...]]] = {
    "none": st.just(()),
    "text": st.tuples(LONG_TEXT),
    "int": st.tuples(INT32),
    "bool": st.tuples(st.booleans()),
    "bytes": st.tuples(RAW),
    "pair": st.tuples(TEXT, VALUES),
    "map": st.tuples(STRUCTS),
    "list": st.lists(VALUES, max_size=4).map(tuple),
    "target": st.tuples(TEXT, INT32),
    "exit": st.tuples(INT32, RAW | LONG_TEXT, STRUCTS),
    "consumer": st.tuples(TEXT, st.booleans()),
    "authenticate": st.tuples(
        st.fixed_dictionaries({"id": TEXT, "created_at": INT32, "tags": st.lists(TEXT)}),
        st.fixed_dictionaries({"id": TEXT, "consumer_id": TEXT}),
    ),
}


def octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def without_none(value: Any) -> Any:
    """As a Lua table keeps it."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value


def message_of(shape: Argument, args: tuple[Any, ...]) -> Any:
    """The argument as Google's library has it."""
    make: Callable[..., Any] = oracle.MESSAGES[oracle.ARGUMENTS[shape]]
    args = tuple(without_none(arg) for arg in args)
    if shape == "map":
        return oracle.struct_of(*args)
    if shape == "list":
        return make(values=[oracle.value_of(value) for value in args])
    if shape == "pair":
        value = {} if args[1] is None else {"v": oracle.value_of(args[1])}
        return make(k=octets(args[0]), **value)
    if shape == "exit":
        return make(status=args[0], body=octets(args[1]), headers=oracle.struct_of(args[2]))
    if shape == "target":
        return make(host=octets(args[0]), port=args[1])
    if shape == "consumer":
        flag = {"by_username": True} if args[1] else {}
        return make(id=octets(args[0]), **flag)
    if shape == "authenticate":
        both = [{key: as_octets(value) for key, value in arg.items()} for arg in args]
        return make(consumer=both[0], credential=both[1])
    return make(**({"v": as_octets(args[0])} if args else {}))


def as_octets(value: Any) -> Any:
    if isinstance(value, list):
        return [octets(item) for item in value]
    return octets(value) if isinstance(value, str) else value


@pytest.mark.parametrize("shape", list(ARGUMENTS))
@EXAMPLES
@given(data=st.data())
def test_arguments_are_what_google_reads(shape: Argument, data: st.DataObject) -> None:
    args = data.draw(ARGUMENTS[shape])
    method = next(method for method in METHODS.values() if method.argument == shape)
    encoded = pb.CALLS[method.name].encode(args)
    framer = pb.Framer()
    name, argument = framer.feed(encoded)
    assert name.decode() == method.name
    got = oracle.parse(oracle.ARGUMENTS[shape], argument)
    assert oracle.meaning(got) == oracle.meaning(message_of(shape, args))


@EXAMPLES
@given(STRUCTS)
def test_structs_that_google_writes_are_read(struct_: dict[str, Any]) -> None:
    payload = oracle.struct_of(struct_).SerializeToString()
    assert pb.CALLS["kong.request.get_headers"].decode(payload) == struct_


@EXAMPLES
@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**53), 2**53)
            | st.text(max_size=5)
            # Lengths of one byte and of two.
            | st.builds(mul, st.text(min_size=1, max_size=3), st.integers(40, 150)),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_googles_own_struct_is_read_and_written(plain: dict[str, Any]) -> None:
    official = struct_pb2.Struct()
    official.update(plain)
    payload = official.SerializeToString()
    assert pb.CALLS["kong.request.get_headers"].decode(payload) == plain
    encoded = pb.CALLS["kong.service.request.set_headers"].encode((plain,))
    again = struct_pb2.Struct.FromString(pb.Framer().feed(encoded)[1])
    expected = struct_pb2.Struct()
    expected.update(without_none(plain))
    assert again == expected


RESULTS: list[tuple[str, dict[str, Any], Any]] = [
    ("kong.request.get_path", {"v": b"/a\xe9"}, "/a\udce9"),
    ("kong.request.get_path", {"v": b"x" * 300}, "x" * 300),
    ("kong.request.get_path", {}, ""),
    ("kong.request.get_header", {}, None),
    ("kong.request.get_header", {"v": b"a"}, "a"),
    ("kong.request.get_port", {"v": 8000}, 8000),
    ("kong.request.get_port", {"v": -1}, -1),
    ("kong.request.get_port", {}, 0),
    ("kong.service.response.get_status", {}, None),
    ("kong.service.response.get_status", {"v": 200}, 200),
    ("kong.request.get_http_version", {"v": 1.1}, 1.1),
    ("kong.ip.is_trusted", {"v": True}, True),
    ("kong.ip.is_trusted", {}, False),
    ("kong.service.response.get_raw_body", {"v": b"\0\xff"}, b"\0\xff"),
    ("kong.request.get_raw_body", {"content": b"x"}, b"x"),
    ("kong.request.get_raw_body", {"content": b""}, b""),
    ("kong.request.get_raw_body", {"body_filepath": b"/f"}, pb.BodyFile("/f")),
    (
        "kong.request.get_uri_captures",
        {"unnamed": [b"a", b"\xe9"], "named": [{"key": b"t", "value": b"a"}]},
        {"unnamed": ["a", "\udce9"], "named": {"t": "a"}},
    ),
    ("kong.request.get_uri_captures", {}, {"unnamed": [], "named": {}}),
    ("kong.client.get_consumer", {}, None),
    (
        "kong.client.get_consumer",
        {"id": b"c", "created_at": 2**40, "tags": [b"t"]},
        {"id": "c", "created_at": 2**40, "tags": ["t"]},
    ),
    ("kong.client.get_credential", {"id": b"c"}, {"id": "c"}),
    (
        "kong.router.get_route",
        {"id": b"r", "tags": [b"a", b"b"], "strip_path": False, "service": {"id": b"s"}},
        {"id": "r", "tags": ["a", "b"], "strip_path": False, "service": {"id": "s"}},
    ),
    (
        "kong.router.get_service",
        {"host": b"h", "port": 80, "client_certificate": {"id": b"c"}},
        {"host": "h", "port": 80, "client_certificate": {"id": "c"}},
    ),
    (
        "kong.node.get_memory_stats",
        {"lua_shared_dicts": {"kong": {"capacity": 5}}, "workers_lua_vms": [{"pid": 1}]},
        {"lua_shared_dicts": {"kong": {"capacity": 5}}, "workers_lua_vms": [{"pid": 1}]},
    ),
]


@pytest.mark.parametrize(("name", "fields", "expected"), RESULTS)
def test_results_that_google_writes_are_read(
    name: str, fields: dict[str, Any], expected: object
) -> None:
    message = oracle.MESSAGES[oracle.RESULTS[METHODS[name].result]](**fields)
    assert pb.CALLS[name].decode(message.SerializeToString()) == expected


@EXAMPLES
@given(st.sampled_from(sorted(pb.CALLS)), st.binary(max_size=200))
def test_no_reply_breaks_the_decoder(name: str, payload: bytes) -> None:
    with contextlib.suppress(WireError):
        pb.CALLS[name].decode(payload)


@EXAMPLES
@given(st.sampled_from(sorted(METHODS)), VALUES)
def test_no_step_breaks_the_decoder(name: str, value: Any) -> None:
    with contextlib.suppress(WireError, ValueError, OverflowError):
        mp.decode_result(METHODS[name], value)


@EXAMPLES
@given(st.binary(max_size=200))
def test_no_command_breaks_the_decoder(payload: bytes) -> None:
    with contextlib.suppress(WireError):
        pb.RpcCall.decode(payload)


@EXAMPLES
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(
        [
            ("cmd_handle_event", {"instance_id": 2**31 - 1, "event_name": b"access"}),
            ("cmd_start_instance", {"name": b"p", "config": b"\xff{}"}),
            ("cmd_close_instance", {"instance_id": 5}),
            ("cmd_get_plugin_names", {}),
        ]
    ),
)
def test_commands_that_google_writes_are_read(
    sequence: int, command: tuple[str, dict[str, Any]]
) -> None:
    name, fields = command
    message = oracle.MESSAGES["RpcCall"](sequence=sequence, **{name: fields})
    call = pb.RpcCall.decode(message.SerializeToString())
    assert call.sequence == sequence
    assert call.instance == fields.get("instance_id", 0)
    assert call.event.encode() == fields.get("event_name", b"")
    assert call.config == fields.get("config", b"")
    back: Any = oracle.parse("RpcReturn", pb.Framer().feed(pb.encode_return(sequence))[0])
    assert back.sequence == sequence


def nested(depth: int) -> bytes:
    payload = b""
    for _ in range(depth):  # Value{list_value{values}}
        for tag in (b"\x0a", b"\x32"):
            size = len(payload)
            varint = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
            payload = tag + varint + payload
    return payload


def test_values_nested_too_deep_are_refused_both_ways() -> None:
    value = pb.CALLS["kong.ctx.shared.get"]
    assert value.decode(nested(60)) is not None
    with pytest.raises(WireError, match="nested"):
        value.decode(nested(2000))
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(WireError, match="nested"):
        pb.CALLS["kong.ctx.shared.set"].encode(("k", endless))
    with pytest.raises(WireError):
        mp.encode_result(1, endless)


def test_a_structured_reply_above_its_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = b"\x0a\x00" * (pb.MAX_STRUCTURED // 2 + 1)
    with pytest.raises(WireError, match="a reply of"):
        pb.CALLS["kong.request.get_headers"].decode(payload)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        (
            "kong.request.get_headers",
            {"a": ["1"], "b": ["1", "2"], "c": []},
            {"a": "1", "b": ["1", "2"], "c": True},
        ),
        ("kong.request.get_headers", [], {}),
        (
            "kong.request.get_uri_captures",
            {"named": {"t": "x"}, "unnamed": {0: "/x", 1: "x", 2: "y"}},
            {"named": {"t": "x"}, "unnamed": ["x", "y"]},
        ),
        (
            "kong.request.get_uri_captures",
            {"named": [], "unnamed": []},
            {"named": {}, "unnamed": []},
        ),
        ("kong.request.get_uri_captures", None, {"named": {}, "unnamed": []}),
        ("kong.request.get_raw_body", "caf\udce9", b"caf\xe9"),
        ("kong.request.get_raw_body", None, b""),
        ("kong.client.get_consumer", None, None),
        ("kong.client.get_consumer", [], None),
        ("kong.service.set_upstream", None, False),
        ("kong.request.get_query_arg", True, True),
        ("kong.request.get_port", 80.0, 80),
    ],
)
def test_steps_have_the_shape_of_protobuf(name: str, data: Any, expected: Any) -> None:
    assert mp.decode_result(METHODS[name], data) == expected


def test_arguments_over_msgpack_have_no_holes() -> None:
    exit_ = METHODS["kong.response.exit"]
    assert mp.encode_arguments(exit_, (204, None, None)) == [204]
    assert mp.encode_arguments(exit_, (204, None, {"a": "b"})) == [204, "", {"a": "b"}]


@pytest.mark.parametrize("text", ["socket Closed", "NO PLUGIN INSTANCE 3"])
def test_texts_on_which_kong_acts_are_made_safe(text: str) -> None:
    assert safe_text(f"a {text} b").lower().find(text.split()[-1].lower()) in (-1, 8)
    assert "closed" not in safe_text(text).lower()
    assert "no plugin instance" not in safe_text(text).lower()
