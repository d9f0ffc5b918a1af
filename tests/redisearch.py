"""The search commands of Redis or Valkey, in front of a server without them.

    async with redisearch.opened(server) as module: module.port

Every other command goes to the server as it is. Commands are taken as the references define them,
and only what they define for vectors in hashes; replies have their shapes and errors their texts:
https://redis.io/docs/latest/commands/ft.create/ https://redis.io/docs/latest/commands/ft.search/
https://redis.io/docs/latest/commands/ft.info/ https://valkey.io/topics/search/
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from tests.redis_servers import RedisServer

Kind = Literal["redis", "valkey"]
Reply = str | int | bytes | list[Any]

_QUERY = re.compile(
    r"\(@(?P<tag>\w+):\{(?P<value>\w+)\}\)"
    r"=>\[KNN (?P<count>\d+) @(?P<field>\w+) \$(?P<parameter>\w+) AS (?P<name>\w+)\]"
)


class FtError(Exception):
    """An error reply."""


class Index(NamedTuple):
    """What FT.CREATE said."""

    name: str
    prefix: str
    tag: str
    field: str
    dimensions: int
    metric: str


class Module:
    """The module, in front of one server."""

    def __init__(self, server: RedisServer, kind: Kind, most_indexes: int) -> None:
        self.port = 0
        self.kind = kind
        self.is_loaded = True
        self.is_denied = False
        self.indexes: dict[str, Index] = {}
        self.seen: list[str] = []
        """Names of all commands that came."""
        self._server = server
        self._client = server.client()
        self._most_indexes = most_indexes
        self._open: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._open[asyncio.current_task()] = writer
        answers, requests = await asyncio.open_connection("127.0.0.1", self._server.port)
        back = asyncio.create_task(_pipe(answers, writer))
        try:
            while command := await _command(reader):
                name = command[0].decode().upper()
                self.seen.append(name)
                if name.startswith("FT.") and self.is_loaded:
                    writer.write(self._answer(name, command[1:]))
                else:
                    requests.write(_encoded(command))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            back.cancel()
            requests.close()
            writer.close()

    async def close(self) -> None:
        """End all connections."""
        for writer in self._open.values():
            writer.close()
        await asyncio.gather(*(task for task in self._open if task), return_exceptions=True)
        self._client.close()

    def _answer(self, name: str, arguments: list[bytes]) -> bytes:
        methods = {
            "FT._LIST": self._list,
            "FT.CREATE": self._create,
            "FT.DROPINDEX": self._drop,
            "FT.INFO": self._info,
            "FT.SEARCH": self._search,
        }
        if self.is_denied:
            return f"-NOPERM this user has no permissions to run the '{name}' command\r\n".encode()
        try:
            return _encoded(methods[name](_Arguments(arguments)))
        except FtError as error:
            return f"-{error}\r\n".encode()

    def _list(self, arguments: _Arguments) -> Reply:
        arguments.end()
        return [name.encode() for name in self.indexes]

    def _drop(self, arguments: _Arguments) -> Reply:
        name = arguments.text()
        arguments.end()
        self._index(name)
        del self.indexes[name]
        return "OK"

    def _create(self, arguments: _Arguments) -> Reply:
        name = arguments.text()
        arguments.expect("ON", "HASH", "PREFIX", "1")
        prefix = arguments.text()
        arguments.expect("SCHEMA")
        tag = arguments.text()
        arguments.expect("TAG")
        field = arguments.text()
        arguments.expect("VECTOR", "FLAT", "6", "TYPE", "FLOAT32", "DIM")
        dimensions = arguments.number()
        arguments.expect("DISTANCE_METRIC")
        metric = arguments.text()
        arguments.end()
        if metric not in ("L2", "IP", "COSINE"):
            raise FtError(f"Bad arguments for vector similarity FLAT index metric: {metric}")
        if name in self.indexes:
            raise FtError(
                "Index already exists"
                if self.kind == "redis"
                else f"Index {name} in database 0 already exists."
            )
        if len(self.indexes) >= self._most_indexes:
            many = len(self.indexes) + 1
            raise FtError(
                f"LIMIT Number of indexes ({many}) exceeds the limit ({self._most_indexes})"
            )
        self.indexes[name] = Index(name, prefix, tag, field, dimensions, metric)
        return "OK"

    def _info(self, arguments: _Arguments) -> Reply:
        index = self._index(arguments.text())
        arguments.end()
        start = [b"identifier", index.field.encode(), b"attribute", index.field.encode()]
        if self.kind == "redis":
            metric = [b"distance_metric", index.metric.encode()]
            kind = [b"type", b"VECTOR", b"algorithm", b"FLAT", b"data_type", b"FLOAT32"]
            vector = [*start, *kind, b"dim", index.dimensions, *metric]
        else:
            metric = [b"distance_metric", index.metric.encode(), b"size", b"0"]
            own = [b"capacity", 10240, b"dimensions", index.dimensions, *metric]
            vector = [*start, b"type", b"VECTOR", b"index", own]
        tag = index.tag.encode()
        tags = [b"identifier", tag, b"attribute", tag, b"type", b"TAG", b"SEPARATOR", b","]
        return [b"index_name", index.name.encode(), b"attributes", [tags, vector], b"num_docs", 0]

    def _search(self, arguments: _Arguments) -> Reply:
        index = self._index(arguments.text())
        query = _QUERY.fullmatch(arguments.text())
        if query is None or query["tag"] != index.tag or query["field"] != index.field:
            raise FtError("Syntax error at offset 0 near the query")
        arguments.expect("PARAMS", "2", query["parameter"])
        blob = arguments.data()
        arguments.expect("RETURN", "1", query["name"], "LIMIT", "0")
        limit = arguments.number()
        arguments.expect("DIALECT", "2")
        arguments.end()
        if len(blob) != 4 * index.dimensions:
            raise FtError(
                f"Error parsing vector similarity query: query vector blob size ({len(blob)}) "
                f"does not match index's expected size ({4 * index.dimensions})."
            )
        found = self._nearest(index, query["value"], blob)[: int(query["count"])]
        reply: list[Any] = [len(found)]
        for distance, key in found[:limit]:
            reply += [key, [query["name"].encode(), f"{distance:.12g}".encode()]]
        return reply

    def _nearest(self, index: Index, value: str, blob: bytes) -> list[tuple[float, bytes]]:
        """Of the hashes that are indexed: those with a vector of the right length."""
        found: list[tuple[float, bytes]] = []
        for key in self._client.keys(f"{index.prefix}*"):
            tag, vector = cast(list[bytes | None], self._client.hmget(key, index.tag, index.field))
            if tag == value.encode() and vector and len(vector) == len(blob):
                found.append((_distance(index.metric, vector, blob), cast(bytes, key)))
        return sorted(found)

    def _index(self, name: str) -> Index:
        if name not in self.indexes:
            raise FtError(
                f"{name}: no such index"
                if self.kind == "redis"
                else f"Index with name '{name}' not found in database 0"
            )
        return self.indexes[name]


class _Arguments:
    """The arguments of a command, read from the left."""

    def __init__(self, left: list[bytes]) -> None:
        self._left = left

    def data(self) -> bytes:
        if not self._left:
            raise FtError("wrong number of arguments")
        return self._left.pop(0)

    def text(self) -> str:
        return self.data().decode()

    def number(self) -> int:
        return int(self.data())

    def expect(self, *words: str) -> None:
        for word in words:
            found = self.text()
            if found.upper() != word.upper():
                raise FtError(f"Unknown argument `{found}`, {word} was expected")

    def end(self) -> None:
        if self._left:
            raise FtError(f"Unknown argument `{self._left[0].decode(errors='replace')}`")


@contextlib.asynccontextmanager
async def opened(
    server: RedisServer, kind: Kind = "redis", most_indexes: int = 10
) -> AsyncIterator[Module]:
    """The module, on a port of its own."""
    module = Module(server, kind, most_indexes)
    listener = await asyncio.start_server(module.serve, "127.0.0.1")
    module.port = listener.sockets[0].getsockname()[1]
    try:
        yield module
    finally:
        listener.close()
        await module.close()


def _distance(metric: str, one: bytes, other: bytes) -> float:
    """As https://redis.io/docs/latest/develop/ai/search-and-query/vectors/ says: L2 is squared."""
    a, b = (np.array(struct.unpack(f"<{len(data) // 4}f", data)) for data in (one, other))
    if metric == "L2":
        return float(((a - b) ** 2).sum())
    product = float(a @ b)
    if metric == "COSINE":
        product /= float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1.0 - product


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    """A command as https://redis.io/docs/latest/develop/reference/protocol-spec/ has it; nothing at
    the end."""
    line = await reader.readline()
    if not line:
        return []
    assert line.startswith(b"*")
    parts = []
    for _ in range(int(line[1:])):
        size = await reader.readline()
        assert size.startswith(b"$")
        parts.append((await reader.readexactly(int(size[1:]) + 2))[:-2])
    return parts


def _encoded(reply: Any) -> bytes:
    if isinstance(reply, str):
        return f"+{reply}\r\n".encode()
    if isinstance(reply, int):
        return f":{reply}\r\n".encode()
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n" % len(reply) + b"".join(_encoded(part) for part in reply)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
