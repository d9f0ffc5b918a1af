"""MsgPack:1: messages one after the other, without a frame around them.

A request is `[0, id, method, args]`, its response `[1, id, error, result]`, a notification
`[2, label, args]`. Kong's strings are raw bytes, decoded here as UTF-8 with `surrogateescape`;
what Kong packs as binary (bodies) stays bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack

from kong_ai_proxy.pluginserver.wire import WireError, safe_text
from kong_ai_proxy.pluginserver.wire.methods import Method, Result, check_arguments

MAX_MESSAGE: Final = 256 * 1024 * 1024
"""The most bytes of unread messages that are kept."""

MAX_ITEMS: Final = 65_536
"""The longest array or map taken: room for them is made before their items have come."""

_KEPT_BUFFER: Final = 1024 * 1024

_packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")


class Reader:
    """Cuts the bytes of a connection into messages, however they arrive."""

    __slots__ = ("_fed", "_unpacker")

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._fed = 0
        self._unpacker = msgpack.Unpacker(
            raw=False,
            unicode_errors="surrogateescape",
            strict_map_key=False,  # uri captures have integer keys
            max_buffer_size=MAX_MESSAGE,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=16,
        )

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are complete with `data`. Raises WireError on what is none."""
        try:
            self._unpacker.feed(data)
            self._fed += len(data)
            messages = list(self._unpacker)
        except (msgpack.UnpackException, ValueError, TypeError, OverflowError) as error:
            raise WireError(f"no MessagePack: {type(error).__name__}") from None
        # An unpacker never gives its buffer back; one that held a body is replaced.
        if self._fed > _KEPT_BUFFER and self._unpacker.tell() == self._fed:
            self._reset()
        return messages


def _pack(message: list[Any]) -> bytes:
    try:
        packed: bytes = _packer.pack(message)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"a value that MessagePack cannot hold ({type(error).__name__})") from None
    return packed


def encode_result(number: int, result: object) -> bytes:
    """The response to request `number`. Raises WireError on what cannot be packed."""
    return _pack([1, number, None, result])


def encode_error(number: int, text: str) -> bytes:
    """The error response to request `number`, its text made safe for Kong."""
    return _pack([1, number, safe_text(text), None])


def no_instance(number: int, instance: int) -> bytes:
    """The error that makes Kong start the instance again and repeat the event."""
    return _pack([1, number, f"no plugin instance {instance}", None])


def encode_pid(pid: int) -> bytes:
    """The notification by which Kong sees that this is another server than before."""
    return _pack([2, "serverPid", pid])


def encode_arguments(method: Method, args: tuple[object, ...]) -> list[object]:
    """The arguments of a PDK call as Kong gets them. Raises WireError where they do not fit."""
    if method.result == "raw body":
        return list(args)
    check_arguments(method, args)
    if method.argument == "int" and not args:
        return [100]
    if method.argument == "map":
        return [dict(args[0])]  # type: ignore[call-overload]  # checked to be a mapping
    plain = list(args)
    while plain and plain[-1] is None:
        plain.pop()
    if method.argument == "exit" and len(plain) == 3 and plain[1] is None:
        plain[1] = ""  # Lua would not see what comes after a hole
    return plain


# Results of PDK methods


def _text(data: Any) -> str:
    if isinstance(data, str):
        return data
    if isinstance(data, bytes):
        return str(data, "utf-8", "surrogateescape")
    if data is None:
        return ""
    raise WireError(f"expected text, got {type(data).__name__}")


def _bytes(data: Any) -> bytes:
    if isinstance(data, bytes):
        return data
    return _text(data).encode("utf-8", "surrogateescape")


def _number(data: Any) -> int | float:
    if isinstance(data, (int, float)) and not isinstance(data, bool):
        return data
    raise WireError(f"expected a number, got {type(data).__name__}")


def _mapping(data: Any) -> dict[Any, Any]:
    """A Lua table: an empty one comes as an array."""
    if data is None or data == []:
        return {}
    if isinstance(data, dict):
        return data
    raise WireError(f"expected a map, got {type(data).__name__}")


def _headers(data: Any) -> dict[str, Any]:
    """Kong sends every value as a list, and `?name` as an empty one."""
    return {_text(name): _header(value) for name, value in _mapping(data).items()}


def _header(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if not value:
        return True
    return value[0] if len(value) == 1 else value


def _captures(data: Any) -> dict[str, Any]:
    """Unnamed captures come as a map from 0 (the whole match) on; here they start with 1."""
    both = _mapping(data)
    named = {_text(name): _text(value) for name, value in _mapping(both.get("named")).items()}
    unnamed = both.get("unnamed")
    if isinstance(unnamed, dict):
        numbers = sorted(key for key in unnamed if isinstance(key, int) and key > 0)
        unnamed = [unnamed[key] for key in numbers]
    return {"named": named, "unnamed": [_text(value) for value in unnamed or ()]}


_RESULTS: Final[Mapping[Result, Callable[[Any], Any]]] = {
    "empty": lambda data: None,
    "never": lambda data: None,
    "text": _text,
    # True: a query name without a value
    "text or none": lambda data: data if data is None or data is True else _text(data),
    "int": lambda data: 0 if data is None else int(_number(data)),
    "int or none": lambda data: None if data is None else int(_number(data)),
    "number": lambda data: float(_number(data)),
    "bool": bool,
    "bytes": _bytes,
    "value": lambda data: data,
    "headers": _headers,
    "raw body": _bytes,
    "captures": _captures,
    "route": lambda data: _mapping(data) or None,
    "service": lambda data: _mapping(data) or None,
    "consumer": lambda data: _mapping(data) or None,
    "credential": lambda data: _mapping(data) or None,
    "memory": lambda data: _mapping(data) or None,
}


def decode_result(method: Method, data: Any) -> Any:
    """What a step says, in the shape that ProtoBuf:1 gives too. Raises WireError."""
    return _RESULTS[method.result](data)
