"""Kong's side of MsgPack:1: messages as lua-MessagePack writes and reads them.

Strings go out as `raw` (no str 8), bodies as binary; empty tables as arrays, except headers and
query arguments, whose values are always lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgpack

from kong_ai_proxy.gateway.pdk import METHODS, Call, LuaError, invoke
from kong_ai_proxy.gateway.pdk.base import log

_PACKER = msgpack.Packer(use_bin_type=False, unicode_errors="surrogateescape")
_BINARY = msgpack.Packer(use_bin_type=True)
_EMPTY_MAP = b"\x80"
_REQUEST = 0
_MAX_LENGTH = 2**31 - 1

_STEPS = {
    "kong.client.get_credential": "plugin.StepCredential",
    "kong.client.load_consumer": "plugin.StepConsumer",
    "kong.client.get_consumer": "plugin.StepConsumer",
    "kong.client.authenticate": "plugin.StepCredential",
    "kong.node.get_memory_stats": "plugin.StepMemoryStats",
    "kong.router.get_route": "plugin.StepRoute",
    "kong.router.get_service": "plugin.StepService",
}
_MULTI_MAPS = frozenset(
    {
        "kong.request.get_query",
        "kong.request.get_headers",
        "kong.response.get_headers",
        "kong.service.response.get_headers",
    }
)
_BODIES = frozenset(
    {
        "kong.request.get_raw_body",
        "kong.response.get_raw_body",
        "kong.service.response.get_raw_body",
    }
)


def unpacker() -> msgpack.Unpacker:
    """A reader of the server's messages; strings of both kinds become text or bytes."""
    return msgpack.Unpacker(
        raw=False,
        unicode_errors="surrogateescape",
        strict_map_key=False,
        max_buffer_size=0,
        max_str_len=_MAX_LENGTH,
        max_bin_len=_MAX_LENGTH,
        max_array_len=_MAX_LENGTH,
        max_map_len=_MAX_LENGTH,
    )


def lua_value(value: object) -> object:
    """What was decoded as Lua has it: binary is a string too, a table holds no nil, 1.0 is 1."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list):
        while value and value[-1] is None:
            value.pop()
        return [lua_value(item) for item in value]
    if isinstance(value, dict):
        found = ((lua_value(key), lua_value(item)) for key, item in value.items())
        return {key: item for key, item in found if item is not None}
    return value


def arguments(args: object) -> list[object]:
    """The arguments of a call. Lua's `unpack` ends a list at the first nil behind its start."""
    if isinstance(args, dict):
        return []
    if not isinstance(args, list):
        return [args]
    if None in args[1:]:
        args = args[: args.index(None, 1)]
    return [item if isinstance(item, bytes) else lua_value(item) for item in args]


def _packable(value: object) -> object:
    """Lua writes an empty table as an array, one with holes as a map, 1.0 as 1."""
    if isinstance(value, Mapping):
        return {key: _packable(item) for key, item in value.items()} if value else []
    if isinstance(value, list | tuple):
        if None in value:
            return {i: _packable(item) for i, item in enumerate(value, 1) if item is not None}
        return [_packable(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _multi_map(table: Mapping[str, object]) -> bytes:
    if not table:
        return _EMPTY_MAP
    fixed: dict[str, object] = {}
    for name, value in table.items():
        if value is True:
            fixed[name] = []
        elif isinstance(value, str):
            fixed[name] = [value]
        else:
            fixed[name] = value
    return bytes(_PACKER.pack(fixed))


def pack(value: object) -> bytes:
    return bytes(_PACKER.pack(value))


def request(message_id: int, method: str, argument: object) -> bytes:
    """`[0, id, method, [argument]]`"""
    return pack([_REQUEST, message_id, method, [argument]])


def step(message_id: int, method: str, event_id: object, data: bytes | None) -> bytes:
    """A result on its way back; `data` is packed already, None for nil, which has no key."""
    head = b"\x94\x00" + pack(message_id) + pack(method) + b"\x91"
    event = pack("EventId") + pack(event_id)
    if data is None:
        return head + b"\x81" + event
    return head + b"\x82" + event + b"\xa4Data" + data


def call_pdk(call: Call, name: object, args: Sequence[object]) -> tuple[str, bytes | None]:
    """Call a method: the step that carries its result, and the result packed.

    A method Kong does not have is logged and answered with nil; otherwise as `invoke`.
    """
    if not isinstance(name, str):
        raise LuaError("bad argument #1 to 'gmatch' (string expected)")
    if name not in METHODS:
        if any(known.startswith(f"{name}.") for known in METHODS):
            raise LuaError("attempt to call local 'method' (a table value)")
        log(call, "error", f"could not find pdk method: {name}")
        return "plugin.Step", None
    value = invoke(call, name, args)
    if name in _MULTI_MAPS:
        return "plugin.StepMultiMap", _multi_map(value if isinstance(value, dict) else {})
    kind = _STEPS.get(name, "plugin.Step")
    if name in _BODIES:
        if not isinstance(value, bytes):
            raise LuaError("attempt to get length of local 'str' (a nil value)")
        return kind, bytes(_BINARY.pack(value))
    if isinstance(value, str):
        return kind, bytes(_PACKER.pack(value))
    return kind, None if value is None else pack(_packable(value))
