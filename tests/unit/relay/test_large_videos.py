"""A hundred megabytes of film pass through a relay in little memory, also for a client that takes
them slowly."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from typing import Any

import orjson
import pytest

from kong_ai_proxy.formats.openai.videos import video_id
from tests.unit.relay.test_large_flows import PIECE, ROOM, SHA256, SIZE, Relay, grown, relaying
from tests.unit.relay.upstreams import Connection, Upstream, answer

ARN = "arn:aws:bedrock:us-east-1:123456789012:async-invoke/abcdefghij12"


class Films:
    """As little of Bedrock, S3 and the Gemini API as the content of a video needs."""

    async def serve(self, connection: Connection) -> None:
        while True:
            received = await connection.head()
            path = received.target.partition("?")[0]
            if path.startswith("/async-invoke/"):
                await connection.send(answer(orjson.dumps(INVOCATION)))
            elif path.startswith("/v1beta/interactions/"):
                await connection.send(answer(orjson.dumps(INTERACTION)))
            else:
                await self._film(connection)

    async def _film(self, connection: Connection) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {SIZE}\r\n\r\n"
        await connection.send(head.encode())
        for _ in range(SIZE // len(PIECE)):
            await connection.send(PIECE)


INVOCATION = {
    "invocationArn": ARN,
    "modelArn": "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-reel-v1:1",
    "status": "Completed",
    "submitTime": "2025-01-31T12:00:00Z",
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/abcdefghij12"}},
}
URI = "https://generativelanguage.googleapis.com/v1beta/files/abc:download?alt=media"
INTERACTION = {
    "id": "v1_abc",
    "status": "completed",
    "steps": [{"type": "model_output", "content": [{"type": "video", "uri": URI}]}],
}


def bedrock(url: str) -> tuple[dict[str, Any], str]:
    where = {"aws_region": "us-east-1", "video_output_s3_uri": "s3://bucket"}
    auth = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "secret"}
    options = {"upstream_url": url, "bedrock": where}
    return {"auth": auth, "model": {"provider": "bedrock", "options": options}}, ARN


def gemini(url: str) -> tuple[dict[str, Any], str]:
    auth = {"header_name": "x-goog-api-key", "header_value": "key"}
    model = {"provider": "gemini", "options": {"upstream_url": url}}
    return {"auth": auth, "model": model}, "gemini-omni-1.1-flash/v1_abc/1755000000/8"


async def downloaded(relay: Relay, get: str, receives: int) -> str:
    """By a client whose buffers hold about `receives` bytes."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", relay.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=receives)
    writer.write(relay.head(get))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head + await reader.read(1000)
    assert b"content-length: %d" % SIZE in head.lower()
    digest, left = hashlib.sha256(), SIZE
    while left and (piece := await reader.read(receives)):
        digest.update(piece)
        left -= len(piece)
    writer.close()
    return digest.hexdigest()


@pytest.mark.parametrize(("provider", "receives"), [(bedrock, 1 << 14), (gemini, 1 << 18)])
async def test_a_film_is_fetched_in_little_memory(provider: Any, receives: int) -> None:
    async with Upstream(Films().serve) as upstream:
        config, name = provider(upstream.url(""))
        config["route_type"] = "video/v1/videos/generations"
        get = f"GET /v1/videos/{video_id(name)}/content"
        async with relaying(config, get) as relay:
            growth = await grown(relay, fetched(relay, get, receives))
    assert growth < ROOM, f"{growth >> 20} MB"


async def fetched(relay: Relay, get: str, receives: int) -> None:
    assert await downloaded(relay, get, receives) == SHA256
