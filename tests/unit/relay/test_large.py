"""A hundred megabytes each way: nothing is lost, and nothing is kept."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

import psutil

from kong_ai_proxy.pluginserver.generation import ALLOCATION
from kong_ai_proxy.relay.ticket import HEADER
from tests.unit.relay.upstreams import Connection, Upstream, answer

SIZE = 100 << 20
PIECE = bytes(range(256)) * 1024
SHA256 = hashlib.sha256(PIECE * (SIZE // len(PIECE))).hexdigest()
ROOM = 20 << 20
GET, POST = "GET /v1/files/file-1/content", "POST /v1/files"


class Relay:
    """A relay in a process of its own, and the tickets that it gave out."""

    def __init__(self, process: Process, port: int, tickets: dict[str, list[str]]) -> None:
        self._process = psutil.Process(process.pid)
        self._tickets = tickets
        self.port = port

    def head(self, request: str, more: str = "") -> bytes:
        ticket = self._tickets[request].pop()
        return f"{request} HTTP/1.1\r\nhost: relay\r\n{HEADER}: {ticket}\r\n{more}\r\n".encode()

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(self._process.memory_info().rss)


@contextlib.asynccontextmanager
async def relaying(url: str) -> AsyncIterator[Relay]:
    requests = [GET, POST] * 4
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.unit.relay.large_relay",
        url,
        *requests,
        env={**ALLOCATION, **os.environ},  # as workers have it
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdout
    assert process.stdin
    try:
        port = int(await process.stdout.readline())
        tickets: dict[str, list[str]] = {GET: [], POST: []}
        for request in requests:
            tickets[request].append((await process.stdout.readline()).decode().strip())
        yield Relay(process, port, tickets)
    finally:
        process.stdin.close()
        assert await process.wait() == 0


async def downloaded(relay: Relay) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(relay.head(GET))
    await reader.readuntil(b"\r\n\r\n")
    digest, left = hashlib.sha256(), SIZE
    while left and (piece := await reader.read(1 << 18)):
        digest.update(piece)
        left -= len(piece)
    writer.close()
    return digest.hexdigest()


async def uploaded(relay: Relay, size: int = SIZE) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    headers = f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {size}\r\n"
    writer.write(relay.head(POST, headers))
    for _ in range(size // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()
    await reader.readuntil(b"\r\n\r\n")
    told = await reader.readexactly(64)
    writer.close()
    return told


async def provider(connection: Connection) -> None:
    """Answers an upload with its sha256, anything else with SIZE bytes."""
    while True:
        received = await connection.head()
        if received.method == "POST":
            digest = hashlib.sha256()
            async for piece in connection.body(received):
                digest.update(piece)
            await connection.send(answer(digest.hexdigest().encode()))
            continue
        await connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode())
        for _ in range(SIZE // len(PIECE)):
            await connection.send(PIECE)


async def test_a_hundred_megabytes_each_way_in_little_memory() -> None:
    async with Upstream(provider) as upstream, relaying(upstream.url("/v1/files")) as relay:
        await uploaded(relay, 4 << 20)  # what is allocated once and for all
        before = relay.memory
        highest = before

        async def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, relay.memory)
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        assert await downloaded(relay) == SHA256
        assert (await uploaded(relay)).decode() == SHA256
        watching.cancel()
        assert highest - before < ROOM, f"{(highest - before) >> 20} MB"
