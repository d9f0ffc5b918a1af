"""Stores of vectors over a Redis that is really running."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from kong_ai_proxy.config.vectors import Vectordb
from kong_ai_proxy.vectors.store import Space, Store, open_store
from tests.redis_servers import RedisServer

SPACE = Space("5a" * 32, 3, "cosine")
VECTORS = {"east": [2.0, 0.0, 0.0], "north": [0.0, 1.0, 0.0], "west {1}:": [-1.0, 0.0, 0.0]}
NEAREST_FIRST = ["east", "north", "west {1}:"]
"""Names by their distance from ALMOST_EAST."""
ALMOST_EAST = [8.0, 6.0, 0.0]
SECONDS = 10.0


class World:
    """A server without a search module, empty, and stores that use it."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self._stores: list[Store] = []

    def store(self, *, ca_file: str | None = None, tokens: Any = None, **fields: Any) -> Store:
        config = vectordb(**{"port": self.server.port, **fields})
        store = open_store(config, ca_file=ca_file, tokens=tokens)
        self._stores.append(store)
        return store

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


def vectordb(**fields: Any) -> Vectordb:
    record = {"strategy": "redis", "dimensions": 3, "distance_metric": "cosine", "redis": fields}
    return Vectordb.model_validate(record)


@contextlib.asynccontextmanager
async def opened(server: RedisServer) -> AsyncIterator[World]:
    world = World(server)
    try:
        yield world
    finally:
        await world.close()


async def names(store: Store, space: Space = SPACE, most: int = 9) -> list[str]:
    return [match.name for match in await store.nearest(space, ALMOST_EAST, most)]


async def until(condition: Any) -> None:
    """Wait for what happens beside the requests."""
    async with asyncio.timeout(SECONDS):
        while not await condition():
            await asyncio.sleep(0.005)
