"""An upstream that keeps what reached it, byte for byte."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Self

_ANSWER = b'{"object":"recorded"}'


@dataclass
class Received:
    """One request as the provider saw it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, or None; repeated ones joined by a comma."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def names(self) -> set[str]:
        """Lower-case names of all headers."""
        return {key.lower() for key, _ in self.headers}


@dataclass
class Recorder:
    """Answers every request with 200 and a small JSON; `answer` may be replaced."""

    answer: bytes = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    received: list[Received] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> Self:
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**26)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await asyncio.gather(*self._serving)

    def url(self, path: str = "") -> str:
        """Its address with `path`."""
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def last(self) -> Received:
        """The newest request."""
        return self.received[-1]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        serving = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read(reader):
                self.received.append(request)
                writer.write(self.answer.replace(b"%d", b"%d" % len(_ANSWER)) + _ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    method, target, _ = lines[0].split(" ")
    pairs = [line.partition(":") for line in lines[1:] if line]
    headers = [(name, value.strip()) for name, _, value in pairs]
    request = Received(method, target, headers, b"")
    if (request.header("transfer-encoding") or "") == "chunked":
        request.body = await _chunks(reader)
    else:
        request.body = await reader.readexactly(int(request.header("content-length") or 0))
    return request


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body
