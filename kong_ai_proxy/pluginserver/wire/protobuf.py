"""ProtoBuf:1: frames and messages, coded by hand.

A frame is a uint32 little-endian length and a payload. Messages are those of Kong's
kong/include/kong/pluginsocket.proto and google/protobuf/struct.proto; field numbers are written
here as the tags that stand on the wire (`number << 3 | wire type`). Google's own library would
refuse strings that are not UTF-8, which clients send in headers and queries.

Every function that decodes raises WireError on bytes that are no such message, every one that
encodes raises WireError on a value that the message cannot hold.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from kong_ai_proxy.pluginserver.wire import WireError
from kong_ai_proxy.pluginserver.wire.methods import METHODS, Argument, Method, Result

MAX_FRAME: Final = 256 * 1024 * 1024
"""The longest frame taken or sent, in bytes. Only bodies come near it."""

MAX_STRUCTURED: Final = 16 * 1024 * 1024
"""The longest reply that is not one piece of text or bytes: its parts cost more memory."""

MAX_DEPTH: Final = 64
"""How deep values may nest."""

END: Final = b"\0\0\0\0"
"""The frame that ends an event."""

_LENGTH: Final = struct.Struct("<I")
_DOUBLE: Final = struct.Struct("<d")
_SMALL: Final = tuple(bytes((number,)) for number in range(128))
_INT32: Final = range(-(2**31), 2**31)


class Framer:
    """Cuts the bytes of a connection into frames, however they arrive."""

    __slots__ = ("_buffer", "_needed")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 4  # bytes up to the end of the next frame, as far as is known

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete with `data`. Raises WireError above MAX_FRAME."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return []
            data = bytes(self._buffer)
            self._buffer = bytearray()
        payloads: list[bytes] = []
        at, end = 0, len(data)
        self._needed = 4
        while end - at >= 4:
            size = _LENGTH.unpack_from(data, at)[0]
            if size > MAX_FRAME:
                raise WireError(f"a frame of {size} bytes, more than {MAX_FRAME}")
            if size > end - at - 4:
                self._needed = size + 4
                break
            payloads.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        if at < end:
            self._buffer += data[at:]
        return payloads


def frame(payload: bytes) -> bytes:
    """A payload with its length before it."""
    if len(payload) > MAX_FRAME:
        raise WireError(f"a message of {len(payload)} bytes, more than {MAX_FRAME}")
    return _LENGTH.pack(len(payload)) + payload


# Primitives


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The unsigned number at `at`, and where it ends."""
    result = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
            if shift > 63:
                raise WireError("a varint longer than ten bytes")
    except IndexError:
        raise WireError("the message ends inside a varint") from None


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Tag and raw value of each field: bytes, an unsigned int, or 8 or 4 bytes."""
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag > 127:
            tag, at = _read_varint(data, at - 1)
        kind = tag & 7
        if kind == 2:
            # One byte is the usual length; where it is not, or is missing, the general way.
            size = data[at] if at < end else 128
            at += 1
            if size > 127:
                size, at = _read_varint(data, at - 1)
        elif kind == 0:
            number, at = _read_varint(data, at)
            yield tag, number
            continue
        else:
            size = _fixed_size(kind)
        stop = at + size
        if stop > end:
            raise WireError("the message ends inside a field")
        yield tag, data[at:stop]
        at = stop


def _fixed_size(kind: int) -> int:
    if kind == 1:
        return 8
    if kind == 5:
        return 4
    raise WireError(f"wire type {kind}")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _text(data: bytes) -> str:
    return str(data, "utf-8", "surrogateescape")


def _varint(number: int) -> bytes:
    if 0 <= number < 128:
        return _SMALL[number]
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number > 127:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sized(tag: bytes, payload: bytes) -> bytes:
    size = len(payload)
    if size < 128:
        return tag + _SMALL[size] + payload
    return tag + _varint(size) + payload


def _octets(value: object) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise WireError("text with a lone surrogate") from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise WireError(f"expected text, got {type(value).__name__}")


def _int32(value: object) -> bytes:
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INT32:
        raise WireError(f"expected a 32 bit integer, got {type(value).__name__}")
    return _varint(value)


# google.protobuf.Value, Struct, ListValue

_NULL, _NUMBER, _STRING, _BOOL, _STRUCT, _LIST = 0x08, 0x11, 0x1A, 0x20, 0x2A, 0x32


def _decode_value(data: bytes, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise WireError(f"values nested deeper than {MAX_DEPTH}")
    value: Any = None
    for tag, raw in _fields(data):
        if tag == _STRING:
            value = _text(raw)
        elif tag == _NUMBER:
            value = _number(raw)
        elif tag == _BOOL:
            value = raw != 0
        elif tag == _STRUCT:
            value = _decode_struct(raw, depth + 1)
        elif tag == _LIST:
            value = [_decode_value(item, depth + 1) for tag, item in _fields(raw) if tag == 0x0A]
        elif tag == _NULL:
            value = None
    return value


def _number(raw: bytes) -> int | float:
    """Lua knows one kind of number; whole ones are ints here, as over MsgPack:1."""
    number: float = _DOUBLE.unpack(raw)[0]
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _decode_struct(data: bytes, depth: int = 0) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise WireError(f"values nested deeper than {MAX_DEPTH}")
    return dict([_decode_entry(raw, depth) for tag, raw in _fields(data) if tag == 0x0A])


def _decode_entry(data: bytes, depth: int) -> tuple[str, Any]:
    """A map entry {key = 1, value = 2}. The usual one, two short texts, is read at sight."""
    size = len(data)
    if 6 <= size < 128 and data[0] == 0x0A:
        at = 2 + data[1]
        short = at + 4 <= size and data[at] == 0x12 and data[at + 1] == size - at - 2
        if short and data[at + 2] == _STRING and data[at + 3] == size - at - 4:
            return _text(data[2:at]), _text(data[at + 4 :])
    key, value = "", None
    for tag, raw in _fields(data):
        if tag == 0x0A:
            key = _text(raw)
        elif tag == 0x12:
            value = _decode_value(raw, depth + 1)
    return key, value


def _encode_value(value: object, depth: int = 0) -> bytes:
    if isinstance(value, (str, bytes)):
        return _sized(b"\x1a", _octets(value))
    if value is None:
        return b"\x08\x00"
    if isinstance(value, bool):
        return b"\x20\x01" if value else b"\x20\x00"
    if isinstance(value, (int, float)):
        try:
            return b"\x11" + _DOUBLE.pack(value)
        except OverflowError:
            raise WireError("a number beyond the range of a double") from None
    if depth >= MAX_DEPTH:
        raise WireError(f"values nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return _sized(b"\x2a", _encode_struct(value, depth + 1))
    if isinstance(value, (list, tuple)):
        return _sized(b"\x32", _encode_list(value, depth + 1))
    raise WireError(f"{type(value).__name__} is no JSON value")


def _encode_struct(fields: object, depth: int = 0) -> bytes:
    """Entries that are None are left out, as a Lua table would; Kong reads null as a text."""
    if not isinstance(fields, Mapping):
        raise WireError(f"expected a mapping, got {type(fields).__name__}")
    parts = []
    for key, value in fields.items():
        if value is not None:
            entry = _sized(b"\x0a", _octets(key)) + _sized(b"\x12", _encode_value(value, depth))
            parts.append(_sized(b"\x0a", entry))
    return b"".join(parts)


def _encode_list(values: list[object] | tuple[object, ...], depth: int = 0) -> bytes:
    return b"".join([_sized(b"\x0a", _encode_value(value, depth)) for value in values])


# Records: tag, name and kind of each field

_Spec = dict[int, tuple[str, Any]]

_ID: Final[_Spec] = {0x0A: ("id", "text")}
_CREDENTIAL: Final[_Spec] = {0x0A: ("id", "text"), 0x12: ("consumer_id", "text")}
_CONSUMER: Final[_Spec] = {
    0x0A: ("id", "text"),
    0x10: ("created_at", "int"),
    0x1A: ("username", "text"),
    0x22: ("custom_id", "text"),
    0x2A: ("tags", "texts"),
}
_ROUTE: Final[_Spec] = {
    0x0A: ("id", "text"),
    0x10: ("created_at", "int"),
    0x18: ("updated_at", "int"),
    0x22: ("name", "text"),
    0x2A: ("protocols", "texts"),
    0x32: ("methods", "texts"),
    0x3A: ("hosts", "texts"),
    0x42: ("paths", "texts"),
    0x4A: ("headers", "texts"),
    0x50: ("https_redirect_status_code", "int"),
    0x58: ("regex_priority", "int"),
    0x60: ("strip_path", "bool"),
    0x68: ("preserve_host", "bool"),
    0x72: ("snis", "texts"),
    0x7A: ("sources", "texts"),
    0x82: ("destinations", "texts"),
    0x8A: ("tags", "texts"),
    0x92: ("service", _ID),
}
_SERVICE: Final[_Spec] = {
    0x0A: ("id", "text"),
    0x10: ("created_at", "int"),
    0x18: ("updated_at", "int"),
    0x22: ("name", "text"),
    0x28: ("retries", "int"),
    0x32: ("protocol", "text"),
    0x3A: ("host", "text"),
    0x40: ("port", "int"),
    0x4A: ("path", "text"),
    0x50: ("connect_timeout", "int"),
    0x58: ("write_timeout", "int"),
    0x60: ("read_timeout", "int"),
    0x6A: ("tags", "texts"),
    0x72: ("client_certificate", _ID),
}
_SLABS: Final[_Spec] = {0x08: ("allocated_slabs", "int"), 0x10: ("capacity", "int")}
_MEMORY: Final[_Spec] = {
    0x0A: ("lua_shared_dicts", {0x0A: ("kong", _SLABS), 0x12: ("kong_db_cache", _SLABS)}),
    0x12: ("workers_lua_vms", [{0x08: ("http_allocated_gc", "int"), 0x10: ("pid", "int")}]),
}


def _decode_record(data: bytes, spec: _Spec) -> dict[str, Any]:
    """The fields that were sent, by name."""
    record: dict[str, Any] = {}
    for tag, raw in _fields(data):
        if tag not in spec:
            continue
        name, kind = spec[tag]
        if kind == "text":
            record[name] = _text(raw)
        elif kind == "texts":
            record.setdefault(name, []).append(_text(raw))
        elif kind == "int":
            record[name] = _signed(raw)
        elif kind == "bool":
            record[name] = raw != 0
        elif isinstance(kind, list):
            record.setdefault(name, []).append(_decode_record(raw, kind[0]))
        else:
            record[name] = _decode_record(raw, kind)
    return record


def _encode_record(record: object, spec: _Spec) -> bytes:
    """A record of text, texts and int fields; fields it does not have are left out."""
    if record is None:
        return b""
    if not isinstance(record, Mapping):
        raise WireError(f"expected a mapping, got {type(record).__name__}")
    parts = []
    for tag, (name, kind) in spec.items():
        value = record.get(name)
        if value is None:
            continue
        if kind == "int":
            parts.append(_SMALL[tag] + _varint(int(value)))
        else:
            values = value if kind == "texts" else (value,)
            parts += [_sized(_SMALL[tag], _octets(item)) for item in values]
    return b"".join(parts)


# Results of PDK methods


class BodyFile(str):
    """The path of the file into which Kong has spooled the request's body."""

    __slots__ = ()


class BodyError(WireError):
    """Kong says that it cannot give the body."""


def _last(data: bytes, wanted: int, default: Any) -> Any:
    for tag, raw in _fields(data):
        if tag == wanted:
            default = raw
    return default


def _octets_of(data: bytes) -> bytes:
    """Field 1 of a String or ByteString, which is nearly always its only one."""
    if 2 <= len(data) < 130 and data[0] == 0x0A and data[1] == len(data) - 2:
        return data[2:]
    octets: bytes = _last(data, 0x0A, b"")
    return octets


def _raw_body(data: bytes) -> bytes | BodyFile:
    body: bytes | BodyFile = b""
    for tag, raw in _fields(data):
        if tag == 0x0A:
            body = raw
        elif tag == 0x12:
            body = BodyFile(_text(raw))
        elif tag == 0x1A:
            raise BodyError(f"Kong has no body: {_text(raw)[:200]}")
    return body


def _captures(data: bytes) -> dict[str, Any]:
    named: dict[str, str] = {}
    unnamed: list[str] = []
    for tag, raw in _fields(data):
        if tag == 0x0A:
            unnamed.append(_text(raw))
        elif tag == 0x12:
            named[_text(_last(raw, 0x0A, b""))] = _text(_last(raw, 0x12, b""))
    return {"named": named, "unnamed": unnamed}


def _optional_text(data: bytes) -> str | None:
    return _text(_octets_of(data)) if data else None


def _optional_int(data: bytes) -> int | None:
    return _signed(_last(data, 0x08, 0)) if data else None


def _float(data: bytes) -> float:
    number: float = _DOUBLE.unpack(_last(data, 0x09, b"\0\0\0\0\0\0\0\0"))[0]
    return number


def _record_or_none(spec: _Spec) -> Callable[[bytes], dict[str, Any] | None]:
    return lambda data: _decode_record(data, spec) or None


_RESULTS: Final[Mapping[Result, Callable[[bytes], Any]]] = {
    "empty": lambda data: None,
    "never": lambda data: None,
    "text": lambda data: _text(_octets_of(data)),
    "text or none": _optional_text,
    "int": lambda data: _signed(_last(data, 0x08, 0)),
    "int or none": _optional_int,
    "number": _float,
    "bool": lambda data: _last(data, 0x08, 0) != 0,
    "bytes": _octets_of,
    "value": _decode_value,
    "headers": _decode_struct,
    "raw body": _raw_body,
    "captures": _captures,
    "route": _record_or_none(_ROUTE),
    "service": _record_or_none(_SERVICE),
    "consumer": _record_or_none(_CONSUMER),
    "credential": _record_or_none(_CREDENTIAL),
    "memory": _record_or_none(_MEMORY),
}

# Arguments of PDK methods


def _no_argument(*args: object) -> bytes:
    if args:
        raise WireError(f"expected no argument, got {len(args)}")
    return b""


def _pair(key: object, value: object) -> bytes:
    """KV. None is left out: Kong reads a missing value as nil and null as a text."""
    encoded = b"" if value is None else _sized(b"\x12", _encode_value(value))
    return _sized(b"\x0a", _octets(key)) + encoded


def _target(host: object, port: object) -> bytes:
    return _sized(b"\x0a", _octets(host)) + b"\x10" + _int32(port)


def _exit(status: object, body: object = None, headers: object = None) -> bytes:
    if isinstance(body, (Mapping, list, tuple)):
        body, headers = _json(body), _with_json_type(headers)
    encoded = b"\x08" + _int32(status)
    if body is not None:
        encoded += _sized(b"\x12", _octets(body))
    if headers is not None:
        encoded += _sized(b"\x1a", _encode_struct(headers))
    return encoded


def _json(body: object) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        raise WireError("the body is no JSON value") from None


def _with_json_type(headers: object) -> dict[Any, Any]:
    """Kong adds the content type itself only where it gets a Lua table, over MsgPack:1."""
    given = dict(headers) if isinstance(headers, Mapping) else {}
    if not any(str(name).lower() == "content-type" for name in given):
        given["content-type"] = "application/json; charset=utf-8"
    return given


def _consumer_spec(consumer_id: object, by_username: object = False) -> bytes:
    return _sized(b"\x0a", _octets(consumer_id)) + (b"\x10\x01" if by_username else b"")


def _authenticate(consumer: object, credential: object) -> bytes:
    encoded = b""
    if consumer is not None:
        encoded += _sized(b"\x0a", _encode_record(consumer, _CONSUMER))
    if credential is not None:
        encoded += _sized(b"\x12", _encode_record(credential, _CREDENTIAL))
    return encoded


_ARGUMENTS: Final[Mapping[Argument, Callable[..., bytes]]] = {
    "none": _no_argument,
    "text": lambda text: _sized(b"\x0a", _octets(text)),
    # A number that is left out reads as 0, which get_headers and get_query refuse.
    "int": lambda number=100: b"\x08" + _int32(number),
    "bool": lambda flag=False: b"\x08\x01" if flag else b"\x08\x00",
    "bytes": lambda body: _sized(b"\x0a", _octets(body)),
    "pair": _pair,
    "map": lambda fields: _encode_struct(fields),
    "list": lambda *values: _encode_list(values),
    "target": _target,
    "exit": _exit,
    "consumer": _consumer_spec,
    "authenticate": _authenticate,
}

_ONE_PIECE: Final = frozenset(("text", "bytes", "raw body"))

# Arguments that mostly are the configuration's: the same for one request after the other.
_REPEATED: Final = frozenset(("text", "pair", "target"))
_KNOWN_CALLS: Final = 512  # of one method
_KNOWN_SIZE: Final = 512  # bytes of one call


class Call:
    """How one PDK method is called: worked out once, because every request makes many calls."""

    __slots__ = ("_bare", "_encode", "_known", "_longest", "_name", "_result", "ends", "sets")

    def __init__(self, method: Method) -> None:
        self.sets = method.result == "empty"
        self.ends = method.result == "never"
        self._name = frame(method.name.encode())
        self._bare = self._name + END if method.argument == "none" else None
        self._encode = _ARGUMENTS[method.argument]
        self._result = _RESULTS[method.result]
        self._longest = MAX_FRAME if method.result in _ONE_PIECE else MAX_STRUCTURED
        repeated = self.sets and method.argument in _REPEATED
        self._known: dict[tuple[object, ...], bytes] | None = {} if repeated else None

    def encode(self, args: tuple[object, ...]) -> bytes:
        """The two frames of a call: the method's name, its argument."""
        if not args and self._bare is not None:
            return self._bare
        if self._known is None or not all(type(each) in (str, int) for each in args):
            return self._encoded(args)
        frames = self._known.get(args)
        if frames is None:
            frames = self._encoded(args)
            if len(frames) <= _KNOWN_SIZE and len(self._known) < _KNOWN_CALLS:
                self._known[args] = frames
        return frames

    def _encoded(self, args: tuple[object, ...]) -> bytes:
        try:
            argument = self._encode(*args)
        except TypeError:
            raise WireError(f"{len(args)} arguments do not fit") from None
        return self._name + frame(argument)

    def decode(self, payload: bytes) -> Any:
        """What a reply says. Numbers in values come as int where they are whole."""
        if len(payload) > self._longest:
            raise WireError(f"a reply of {len(payload)} bytes")
        return self._result(payload)


CALLS: Final[Mapping[str, Call]] = {
    name: Call(method) for name, method in METHODS.items() if "protobuf" in method.protocols
}
"""The calls of ProtoBuf:1 by method name."""


# RpcCall and RpcReturn

GET_PLUGIN_NAMES, GET_PLUGIN_INFO, START_INSTANCE = 31, 32, 33
GET_INSTANCE_STATUS, CLOSE_INSTANCE, HANDLE_EVENT = 34, 35, 36


class RpcCall:
    """One command of Kong's. `command` is its field number, 0 when it has none that we know.

    `name` and `config` belong to START_INSTANCE (`name` to GET_PLUGIN_INFO too), `instance` and
    `event` to HANDLE_EVENT (`instance` to the other two as well).
    """

    __slots__ = ("command", "config", "event", "instance", "name", "sequence")

    def __init__(self) -> None:
        self.sequence = 0
        self.command = 0
        self.name = ""
        self.config = b""
        self.instance = 0
        self.event = ""

    @classmethod
    def decode(cls, payload: bytes) -> RpcCall:
        """Read an RpcCall. Raises WireError."""
        call = cls()
        for tag, raw in _fields(payload):
            if tag == 0x08:
                call.sequence = _signed(raw)
            elif tag & 7 == 2 and GET_PLUGIN_NAMES <= tag >> 3 <= HANDLE_EVENT:
                call.command = tag >> 3
                call._read(raw)
        return call

    def _read(self, data: bytes) -> None:
        named = self.command in (GET_PLUGIN_INFO, START_INSTANCE)
        for tag, raw in _fields(data):
            if tag == 0x08 and not named:
                self.instance = _signed(raw)
            elif tag == 0x0A and named:
                self.name = _text(raw)
            elif tag == 0x12 and self.command == START_INSTANCE:
                self.config = raw
            elif tag == 0x12 and self.command == HANDLE_EVENT:
                self.event = _text(raw)


def encode_return(sequence: int, field: bytes = b"") -> bytes:
    """The frame of an RpcReturn: the command's sequence, and one of the fields below."""
    return frame(b"\x08" + _varint(sequence) + field)


def plugin_names(names: list[str]) -> bytes:
    """RpcReturn.plugin_names"""
    return _sized(b"\xfa\x01", b"".join([_sized(b"\x0a", _octets(name)) for name in names]))


def plugin_info(name: str, phases: list[str], version: str, priority: int) -> bytes:
    """RpcReturn.plugin_info. The schema is not in it: Kong takes it from the dump."""
    info = _sized(b"\x0a", _octets(name))
    info += b"".join([_sized(b"\x22", _octets(phase)) for phase in phases])
    info += _sized(b"\x2a", _octets(version)) + b"\x30" + _int32(priority)
    return _sized(b"\x82\x02", info)


def instance_status(name: str, instance: int, started_at: int | None = None) -> bytes:
    """RpcReturn.instance_status. The configuration is not in it: it holds keys."""
    status = _sized(b"\x0a", _octets(name)) + b"\x10" + _int32(instance)
    if started_at is not None:
        status += b"\x20" + _varint(started_at)
    return _sized(b"\x8a\x02", status)


def unknown_method(text: str) -> bytes:
    """The two frames that tell Kong a text in place of a PDK call: it ends the event with it."""
    return frame(text.encode("utf-8", "replace")) + END
