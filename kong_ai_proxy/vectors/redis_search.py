"""The search module of Redis and Valkey: indexes over hashes, and the vectors nearest to one.

Only what every server with these commands has is used:
https://redis.io/docs/latest/commands/ft.create/ https://redis.io/docs/latest/commands/ft.search/
https://valkey.io/topics/search/
https://docs.aws.amazon.com/memorydb/latest/devguide/vector-search-commands.html
https://cloud.google.com/memorystore/docs/cluster/ftsearch

One index serves all spaces of one metric and length, each space being a tag in it: MemoryDB allows
ten indexes in all, and an index that nobody drops stays for ever. It is FLAT, so exact: a space has
one vector for each target.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from kong_ai_proxy.vectors.redis_connection import Server
from kong_ai_proxy.vectors.redis_errors import ReplyError
from kong_ai_proxy.vectors.redis_keys import index_name, prefix
from kong_ai_proxy.vectors.store import Match, MissingSpaceError, Space, StoreError

METRICS = {"cosine": "COSINE", "euclidean": "L2"}

_EXISTS = re.compile(r"already exists", re.IGNORECASE)
_NO_INDEX = re.compile(r"no such index|unknown index|index\b.*not found", re.IGNORECASE)
_NO_COMMAND = re.compile(r"unknown command", re.IGNORECASE)


class Search:
    """The module of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ensured: set[str] = set()

    async def ensure(self, space: Space) -> bool:
        """Have the index that the space is in. Whether it was there. Raises StoreError, also for an
        index of this name that is for other vectors."""
        name = index_name(space)
        if name in self._ensured:
            return True
        existed = await self._created(space)
        self._ensured.add(name)
        return existed

    async def nearest(self, space: Space, packed: bytes, most: int) -> list[Match]:
        """In no order. Raises StoreError; MissingSpaceError without the index."""
        query = f"(@space:{{{space.name}}})=>[KNN {most} @vector $vector AS distance]"
        options = ("PARAMS", 2, "vector", packed, "RETURN", 1, "distance", "LIMIT", 0, most)
        try:
            reply = await self._server.command(
                "FT.SEARCH", index_name(space), query, *options, "DIALECT", 2
            )
        except ReplyError as error:
            self._ensured.discard(index_name(space))
            if _NO_INDEX.search(error.reply):
                raise MissingSpaceError(f"the index {index_name(space)} is gone") from None
            raise
        return list(_matches(space, reply))

    async def _created(self, space: Space) -> bool:
        vector = ("TYPE", "FLOAT32", "DIM", space.dimensions)
        metric = ("DISTANCE_METRIC", METRICS[space.metric])
        fields = ("space", "TAG", "vector", "VECTOR", "FLAT", 6, *vector, *metric)
        start = ("FT.CREATE", index_name(space), "ON", "HASH", "PREFIX", 1, prefix(space))
        try:
            await self._server.command(*start, "SCHEMA", *fields)
        except ReplyError as error:
            if not _EXISTS.search(error.reply):
                raise
            await self._check(space)
            return True
        return False

    async def _check(self, space: Space) -> None:
        """Raise StoreError where the index that exists is for other vectors."""
        said = dict(_pairs(await self._server.command("FT.INFO", index_name(space))))
        dimensions = said.get("dim", said.get("dimensions"))
        metric = said.get("distance_metric")
        fits = dimensions in (None, str(space.dimensions)) and metric in (
            None,
            METRICS[space.metric],
        )
        if not fits:
            raise StoreError(
                f"the search index {index_name(space)} is for vectors of {dimensions} numbers and "
                f"{metric}, not {space.dimensions} and {METRICS[space.metric]}: drop it "
                "(FT.DROPINDEX), it is made anew"
            )


async def is_there(server: Server, space: Space) -> bool:
    """Whether the server has the module, and lets this user ask it. Raises StoreError."""
    try:
        await server.command("FT.INFO", index_name(space))
    except ReplyError as error:
        if error.is_denied or _NO_COMMAND.search(error.reply):
            return False
        if not _NO_INDEX.search(error.reply):
            raise
    return True


def _matches(space: Space, reply: Any) -> Iterator[Match]:
    """Of a reply to FT.SEARCH: how many there are, then each key with its fields and values."""
    start = len(prefix(space, space.name))
    try:
        for key, fields in zip(reply[1::2], reply[2::2], strict=True):
            found = dict(zip(fields[::2], fields[1::2], strict=True))
            distance = float(found[b"distance"])
            if space.metric == "euclidean":  # L2 is the squared distance
                distance = math.sqrt(max(distance, 0.0)) / 2.0
            yield Match(key[start:].decode(), max(distance, 0.0))
    except (TypeError, ValueError, KeyError, IndexError):
        raise StoreError("Redis answered FT.SEARCH in a way that is not known") from None


def _pairs(reply: Any) -> Iterator[tuple[str, str]]:
    """Names and values at any depth of a reply to FT.INFO: servers nest them differently."""
    if not isinstance(reply, list):
        return
    for name, value in pairwise(reply):
        if isinstance(name, bytes) and isinstance(value, bytes | int):
            text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            yield name.decode(errors="replace").lower(), text
    for part in reply:
        yield from _pairs(part)
