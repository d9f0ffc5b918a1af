"""A hundred megabytes each way where a file becomes an object in a bucket: uploads that are taken
apart and sent in parts, downloads that pass. Nothing is lost, and nothing is kept."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

import orjson
import psutil
import pytest

from kong_ai_proxy.pluginserver.generation import ALLOCATION
from kong_ai_proxy.relay.ticket import HEADER
from tests.recorder import Received
from tests.unit.relay.upstreams import Connection, Upstream, answer

SIZE = 100 << 20
PIECE = bytes(range(256)) * 1024
SHA256 = hashlib.sha256(PIECE * (SIZE // len(PIECE))).hexdigest()
ROOM = 20 << 20
HEAD = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'
)
TAIL = b"\r\n--b--\r\n"


@dataclass
class Store:
    """What a bucket got, as a digest."""

    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0

    def add(self, piece: bytes) -> None:
        self.digest.update(piece)
        self.size += len(piece)


class Bucket:
    """As little of S3, Cloud Storage and the Gemini API as an upload and a download need."""

    def __init__(self) -> None:
        self.store = Store()

    async def serve(self, connection: Connection) -> None:
        while True:
            received = await connection.head()
            if received.method == "GET":
                await self._download(connection)
                continue
            is_part = received.method == "PUT" or _uploads(received)
            store = self.store if is_part else Store()
            async for piece in connection.body(received):
                store.add(piece)
            await connection.send(self._told(connection, received))

    async def _download(self, connection: Connection) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {SIZE}\r\n\r\n"
        await connection.send(head.encode())
        for _ in range(SIZE // len(PIECE)):
            await connection.send(PIECE)

    def _told(self, connection: Connection, received: Received) -> bytes:
        target, port = received.target, connection.writer.get_extra_info("sockname")[1]
        if target.endswith("?uploads="):
            return answer(_xml("InitiateMultipartUploadResult", "<UploadId>u1</UploadId>"))
        if "partNumber=" in target:
            return answer(b"", headers='ETag: "e"\r\n')
        if "uploadId=" in target:
            return answer(_xml("CompleteMultipartUploadResult", "<ETag>e</ETag>"))
        if received.header("x-goog-upload-command") == "start":
            url = f"http://127.0.0.1:{port}/upload/v1beta/files?upload_id=1"
            return answer(b"", headers=f"X-Goog-Upload-URL: {url}\r\n")
        if received.header("x-goog-upload-command"):
            final = "finalize" in (received.header("x-goog-upload-command") or "")
            status = f"X-Goog-Upload-Status: {'final' if final else 'active'}\r\n"
            return answer(_gemini_file(self.store.size) if final else b"", headers=status)
        if "uploadType=resumable" in target and received.method == "POST":
            url = f"http://127.0.0.1:{port}{target}&upload_id=1"
            return answer(b"", headers=f"Location: {url}\r\n")
        told = received.header("content-range") or ""
        if received.method == "PUT" and not told:  # a small object of S3's
            return answer(b"")
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", told)
        assert found, (received.method, target, told)
        if found[3] == "*":
            headers = f"Range: bytes=0-{found[2]}\r\n"
            return answer(b"", "308 Resume Incomplete", headers)
        return answer(_object(self.store.size))


def _uploads(received: Received) -> bool:
    return "upload" in (received.header("x-goog-upload-command") or "")


def _xml(name: str, content: str) -> bytes:
    return (
        f'<?xml version="1.0"?><{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"{content}</{name}>"
    ).encode()


def _gemini_file(size: int) -> bytes:
    return orjson.dumps(
        {
            "file": {
                "name": "files/abc-123",
                "displayName": "big.bin",
                "mimeType": "application/octet-stream",
                "sizeBytes": str(size),
                "createTime": "2025-08-12T12:00:00Z",
                "updateTime": "2025-08-12T12:00:00Z",
                "uri": "https://generativelanguage.googleapis.com/v1beta/files/abc-123",
                "state": "ACTIVE",
            }
        }
    )


def _object(size: int) -> bytes:
    return orjson.dumps(
        {
            "kind": "storage#object",
            "name": "uploads/big.bin",
            "bucket": "b",
            "size": str(size),
            "contentType": "application/octet-stream",
            "timeCreated": "2025-08-12T12:00:00Z",
        }
    )


def bedrock(url: str) -> dict[str, Any]:
    where = {"aws_region": "us-east-1", "batch_bucket_prefix": "s3://bucket/prefix"}
    return {
        "route_type": "llm/v1/files",
        "auth": {"aws_access_key_id": "AKIA", "aws_secret_access_key": "secret"},
        "model": {"provider": "bedrock", "options": {"upstream_url": url, "bedrock": where}},
    }


def gemini(url: str) -> dict[str, Any]:
    return {
        "route_type": "llm/v1/files",
        "auth": {"header_name": "x-goog-api-key", "header_value": "key"},
        "model": {"provider": "gemini", "options": {"upstream_url": url}},
    }


def vertex(url: str) -> dict[str, Any]:
    where = {"api_endpoint": "aiplatform.googleapis.com", "project_id": "p", "location_id": "l"}
    return {
        "route_type": "llm/v1/files",
        "auth": {"header_name": "Authorization", "header_value": "Bearer token"},
        "model": {
            "provider": "gemini",
            "options": {"upstream_url": f"{url}/bucket", "gemini": where},
        },
    }


@dataclass
class Relay:
    """A relay in a process of its own, and its tickets for uploads and downloads."""

    port: int
    process: psutil.Process
    tickets: dict[str, list[str]]

    @property
    def memory(self) -> int:
        return int(self.process.memory_info().rss)

    def head(self, request: str, more: str = "") -> bytes:
        ticket = self.tickets[request].pop()
        return f"{request} HTTP/1.1\r\nhost: relay\r\n{HEADER}: {ticket}\r\n{more}\r\n".encode()


@contextlib.asynccontextmanager
async def relaying(config: dict[str, Any], get: str) -> AsyncIterator[Relay]:
    requests = [get, "POST /v1/files"] * 3
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.unit.relay.large_relay",
        orjson.dumps(config).decode(),
        *requests,
        env={**ALLOCATION, **os.environ},  # as workers have it
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdout
    assert process.stdin
    try:
        port = int(await process.stdout.readline())
        tickets: dict[str, list[str]] = {request: [] for request in requests}
        for request in requests:
            tickets[request].append((await process.stdout.readline()).decode().strip())
        yield Relay(port, psutil.Process(process.pid), tickets)
    finally:
        process.stdin.close()
        assert await process.wait() == 0


def lines(count: int) -> Iterator[bytes]:
    """Requests of a batch, 100 at a time."""
    text = "Hëllo " * 300
    body = {"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": text}]}
    asked = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    for start in range(0, count, 100):
        numbers = range(start, start + 100)
        yield b"".join(orjson.dumps({"custom_id": f"r{n}", **asked}) + b"\n" for n in numbers)


async def uploaded(relay: Relay, size: int) -> dict[str, Any]:
    return await sent(relay, HEAD, repeat(PIECE, size // len(PIECE)))


async def sent(relay: Relay, form: bytes, pieces: Iterable[bytes]) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    headers = "content-type: multipart/form-data; boundary=b\r\ntransfer-encoding: chunked\r\n"
    writer.write(relay.head("POST /v1/files", headers))
    for piece in chain((form,), pieces):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(TAIL), TAIL))
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    assert found, head
    body = await reader.readexactly(int(found[1]))
    assert head.startswith(b"HTTP/1.1 200"), body
    writer.close()
    told: dict[str, Any] = orjson.loads(body)
    return told


async def downloaded(relay: Relay, get: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(relay.head(get))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head + await reader.read(1000)
    assert b"content-length: %d" % SIZE in head.lower()
    digest, left = hashlib.sha256(), SIZE
    while left and (piece := await reader.read(1 << 18)):
        digest.update(piece)
        left -= len(piece)
    writer.close()
    return digest.hexdigest()


async def grown(relay: Relay, work: Any) -> int:
    """By how many bytes the relay's memory was larger at most, while this was done."""
    before = highest = relay.memory
    doing = asyncio.create_task(work)
    while not doing.done():
        highest = max(highest, relay.memory)
        await asyncio.wait((doing,), timeout=0.01)
    await doing
    return highest - before


@pytest.mark.parametrize("config", [bedrock, gemini, vertex])
async def test_a_hundred_megabytes_become_an_object_in_little_memory(config: Any) -> None:
    bucket = Bucket()
    async with (
        Upstream(bucket.serve) as upstream,
        relaying(config(upstream.url("")), "GET /v1/files") as relay,
    ):
        await uploaded(relay, len(PIECE))  # what is allocated once and for all
        bucket.store = Store()
        growth = await grown(relay, uploaded(relay, SIZE))
    assert bucket.store.size == SIZE
    assert bucket.store.digest.hexdigest() == SHA256
    assert growth < ROOM, f"{growth >> 20} MB"


async def test_a_large_batch_is_converted_in_little_memory() -> None:
    """At Gemini, whose pieces are the largest."""
    form = HEAD.replace(b"user_data", b"batch")
    async with (
        Upstream(Bucket().serve) as upstream,
        relaying(gemini(upstream.url("")), "GET /v1/files") as relay,
    ):
        await sent(relay, form, lines(100))
        growth = await grown(relay, sent(relay, form, lines(15_000)))  # 30 MB
    assert growth < ROOM, f"{growth >> 20} MB"


async def test_a_hundred_megabytes_are_fetched_in_little_memory() -> None:
    bucket = Bucket()
    async with Upstream(bucket.serve) as upstream:
        async with relaying(bedrock(upstream.url("")), "GET /v1/files") as relay:
            file = await uploaded(relay, 16 << 20)
        get = f"GET /v1/files/{file['id']}/content"
        async with relaying(bedrock(upstream.url("")), get) as relay:
            growth = await grown(relay, fetched(relay, get))
    assert growth < ROOM, f"{growth >> 20} MB"


async def fetched(relay: Relay, get: str) -> None:
    assert await downloaded(relay, get) == SHA256
