"""A client of the relay that works with bytes, so that it can misbehave; and configurations."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.relays import RunningRelay, running
from tests.unit.relay.upstreams import Script, Upstream

JSON = {"content-type": "application/json"}
HELLO = b'{"messages":[{"role":"user","content":"hi"}]}'


class Answer(NamedTuple):
    """What came back. `complete` is False for a body that broke off."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    keeps: bool
    """Whether the relay keeps the connection."""


@dataclass
class Client:
    """One connection to the relay."""

    relay: RunningRelay
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def head(self, method: str, target: str, headers: Mapping[str, str]) -> bytes:
        """A request's head with a ticket."""
        lines = {"host": "relay", **self.relay.headers(method, target), **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("utf-8", "surrogateescape")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(
        self,
        method: str = "POST",
        target: str = "/chat",
        body: bytes = HELLO,
        headers: Mapping[str, str] = JSON,
    ) -> None:
        """Send a whole request."""
        length = {"content-length": str(len(body))} if body else {}
        await self.send(self.head(method, target, {**headers, **length}) + body)

    async def answer(self, method: str = "POST") -> Answer:
        """The next answer. Raises IncompleteReadError where there is not even a head."""
        async with asyncio.timeout(20):
            status, headers = await self.answer_head()
            while status == 100:
                status, headers = await self.answer_head()
            keeps = headers.get("connection", "").lower() != "close"
            if method == "HEAD" or status in (204, 304):
                return Answer(status, headers, b"", True, keeps)
            body, complete = await self._body(headers)
            return Answer(status, headers, body, complete, keeps and complete)

    async def answer_head(self) -> tuple[int, dict[str, str]]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")[:-2]
        headers = [line.partition(":") for line in lines]
        return int(first.split(" ")[1]), {name.lower(): v.strip() for name, _, v in headers}

    async def _body(self, headers: dict[str, str]) -> tuple[bytes, bool]:
        pieces: list[bytes] = []
        try:
            if "content-length" in headers:
                left = int(headers["content-length"])
                while left:
                    piece = await self.reader.read(min(left, 1 << 20))
                    if not piece:
                        return b"".join(pieces), False
                    pieces.append(piece)
                    left -= len(piece)
            else:
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    pieces.append((await self.reader.readexactly(size + 2))[:-2])
                await self.reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b"".join(pieces), False
        return b"".join(pieces), True

    async def closed(self) -> bool:
        """Whether the relay closes the connection and sends no more."""
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read() == b""
            return True

    def leave(self, *, reset: bool = False) -> float:
        """Close the connection as Kong does, or with RST; the loop's time."""
        if reset:
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def client(relay: RunningRelay, limit: int = 1 << 20) -> AsyncIterator[Client]:
    """A connection to the relay."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, limit=limit)
    try:
        yield Client(relay, reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(relay: RunningRelay, *args: Any, **options: Any) -> Answer:
    """One request on a connection of its own."""
    async with client(relay) as one:
        await one.ask(*args, **options)
        return await one.answer(*args[:1])


# ---- configurations


def target(url: str, route_type: str = "llm/v1/chat", /, **more: Any) -> dict[str, Any]:
    """One target at `url`, whose key goes into a header."""
    model: dict[str, Any] = {"provider": "openai", "options": {"upstream_url": url}}
    if route_type == "llm/v1/chat":
        model["name"] = "gpt-4o"
    auth = {"header_name": "authorization", "header_value": "Bearer operators-own"}
    return {"route_type": route_type, "auth": auth, "model": model, **more}


FILES = "llm/v1/files"
REALTIME = "realtime/v1/realtime"
PATHS = {"llm/v1/chat": "/v1/chat/completions", FILES: "/v1/files", REALTIME: "/v1/realtime"}


@contextlib.asynccontextmanager
async def provided(
    script: Script, route_type: str = "llm/v1/chat", /, *, logged: bool = False, **timeouts: int
) -> AsyncIterator[tuple[Upstream, RunningRelay]]:
    """A provider and a relay that has it as its only target; timeouts in milliseconds. `logged`:
    what becomes of a request is told in the log."""
    logging = {"logging": {"log_statistics": True}} if logged else {}
    async with Upstream(script) as upstream:
        own = target(upstream.url(PATHS[route_type]), route_type, **logging)
        found = {"targets": [own], "balancer": timeouts, "max_request_body_size": 0}
        async with running(found, "ai-proxy-advanced") as relay:
            yield upstream, relay


UPLOAD = {"content-type": "multipart/form-data; boundary=cut"}


def form(content: bytes) -> bytes:
    """A form with a file in it."""
    head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return head + content + b"\r\n--cut--\r\n"
