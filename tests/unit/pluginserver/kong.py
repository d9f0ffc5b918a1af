"""Kong's side of ProtoBuf:1, by hand and blocking: as much of it as the process tests need."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Self

DEADLINE = 20.0
"""Seconds after which a test that waits has failed."""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _int_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _fields(data: bytes) -> dict[int, int | bytes]:
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        value, at = _read_varint(data, at)
        if key & 7 == 2:
            found[key >> 3], at = data[at : at + value], at + value
        else:
            found[key >> 3] = value
    return found


class ConnectionClosedError(Exception):
    """The plugin server closed the connection, on a frame's edge or inside one."""


class Kong:
    """One connection of Kong's to a plugin server."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self._sequence = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.socket.close()

    def start_instance(self, note: str = "", plugin: str = "probe") -> int:
        """Start an instance; its id."""
        config = json.dumps({"note": note, "__key__": "plugins:" + note, "__plugin_id": note})
        call = _bytes_field(1, plugin.encode()) + _bytes_field(2, config.encode())
        self._call(33, call)
        status = _fields(self.read_frame())[33]
        assert isinstance(status, bytes)
        number = _fields(status)[2]
        assert isinstance(number, int)
        return number

    def begin(self, instance: int) -> None:
        """Run the probe's access up to its getter, which waits for `finish`.

        Raises LookupError when the server does not know the instance."""
        self.ask(instance)
        self.wait_for_getter()

    def ask(self, instance: int) -> None:
        """Send the event."""
        self._call(36, _int_field(1, instance) + _bytes_field(2, b"access"))

    def wait_for_getter(self) -> None:
        """Read the probe's getter. Raises LookupError when the instance is not known."""
        method = self.read_frame()
        self.read_frame()
        if method.startswith(b"no plugin instance"):
            raise LookupError(method.decode())
        assert method == b"kong.request.get_method"

    def finish(self) -> tuple[int, str]:
        """Answer the getter and the rest of the event. The worker's pid and the instance's note."""
        pid, note, *_ = self._finish()
        return pid, note

    def ticket(self) -> tuple[int, str]:
        """A whole event that issues a ticket for `GET /`. The relay's port and the ticket."""
        self.begin(self.start_instance("ticket"))
        _, _, port, ticket = self._finish()
        return port, ticket

    def _finish(self) -> list[Any]:
        self._send(_bytes_field(1, b"GET"))
        told = b""
        while method := self.read_frame():
            argument = self.read_frame()
            if method == b"kong.response.set_header":
                told = argument
            self._send(b"")
        assert self.read_frame()
        found: list[Any] = json.loads(told[told.index(b"[") : told.rindex(b"]") + 1])
        return found

    def event(self, instance: int) -> tuple[int, str]:
        """A whole event."""
        self.begin(instance)
        return self.finish()

    def read_frame(self) -> bytes:
        """The next frame. Raises ConnectionClosedError."""
        (size,) = struct.unpack("<I", self._read(4))
        return self._read(size)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except ConnectionError as error:
                raise ConnectionClosedError(f"after {len(data)} of {size} bytes") from error
            if not piece:
                raise ConnectionClosedError(f"after {len(data)} of {size} bytes")
            data += piece
        return data

    def _call(self, command: int, argument: bytes) -> None:
        self._sequence += 1
        self._send(_int_field(1, self._sequence) + _bytes_field(command, argument))

    def _send(self, payload: bytes) -> None:
        try:
            self.socket.sendall(struct.pack("<I", len(payload)))  # in two writes, as Kong does
            self.socket.sendall(payload)
        except ConnectionError as error:
            raise ConnectionClosedError("on writing") from error
