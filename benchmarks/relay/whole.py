"""One request whose answer is looked at byte for byte, and the 100 MB both ways."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from time import perf_counter

import orjson

from benchmarks.relay import cases, wire

FRAME = "x-kong-ai-proxy-frame"
KEPT = 2 * cases.MEGABYTE
"""How much of an answer is kept to be looked at; a digest is made of all of it."""
READ_SIZE = 1 << 18


async def exchange(name: str, port: int, line: bytes) -> float:
    """Send one request with a further header line. Returns the seconds it took.

    Raises RuntimeError unless both ends got what the other sent.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    expected = _expected(name)
    try:
        begin = perf_counter()
        await _send(name, writer, line)
        head = await reader.readuntil(wire.HEAD_END)
        digest, body = await _answer(reader, head[:-2])
        took = perf_counter() - begin
    finally:
        writer.close()
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError((head + body[:2000]).decode(errors="replace"))
    found = orjson.loads(body)["sha256"] if name == cases.UPLOAD else digest
    right = cases.BY_NAME[name].is_answered_by(body) if name in cases.BY_NAME else found == expected
    if not right:
        raise RuntimeError(f"the other end got other bytes: {body[:2000]!r}")
    return took


async def _send(name: str, writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(cases.request_head(name)[:-2] + line + b"\r\n")
    for piece in cases.request_body(name):
        writer.write(piece)
        await writer.drain()


def _expected(name: str) -> str:
    if name == cases.UPLOAD:
        return _digest(cases.request_body(name))
    return _digest(cases.bulk()) if name == cases.DOWNLOAD else ""


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


async def _answer(reader: asyncio.StreamReader, head: bytes) -> tuple[str, bytes]:
    """The digest of an answer's content without the private frame, and its beginning."""
    body, kept, left, digest = wire.Body(head), bytearray(), _before_frame(head), hashlib.sha256()
    while not body.done:
        data = await reader.read(READ_SIZE)
        if not data:
            raise RuntimeError("the answer was cut short")
        for piece in body.feed(data):
            own = piece[:left]
            left = None if left is None else left - len(own)
            digest.update(own)
            kept += own[: KEPT - len(kept)]
    found = bytes(kept)
    return digest.hexdigest(), found.partition(b"\x1e")[0] if wire.length(head) is None else found


def _before_frame(head: bytes) -> int | None:
    """How long the content before the frame is, where the head says so."""
    for line in head.decode().lower().splitlines():
        name, _, value = line.partition(":")
        if name == FRAME and value.strip().isdigit():
            return int(value)
    return None
