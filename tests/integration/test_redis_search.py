"""Vectors in Redis or Valkey with a search module.

The module is `tests.redisearch`, in front of a server that is really running. With the variable
KONG_AI_PROXY_TEST_REDISEARCH=<port> the same is asked of a real module on this machine as well; its
data is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import redis

from kong_ai_proxy.config.vectors import Vectordb
from kong_ai_proxy.vectors import redis_store
from kong_ai_proxy.vectors.redis_search import Search
from kong_ai_proxy.vectors.store import (
    Match,
    MissingSpaceError,
    Space,
    Store,
    StoreError,
    open_store,
)
from tests import redisearch
from tests.redis_servers import RedisServer, redis_server

REAL = os.environ.get("KONG_AI_PROXY_TEST_REDISEARCH")

SPACE = Space("5a" * 32, 3, "cosine")
INDEX = "kong-ai-proxy:vectors:cosine:3"
VECTORS = {"east": [2.0, 0.0, 0.0], "north": [0.0, 1.0, 0.0], "west {1}:": [-1.0, 0.0, 0.0]}
ALMOST_EAST = [8.0, 6.0, 0.0]


class World:
    """An empty server with the module, and stores that use it."""

    def __init__(self, port: int, module: redisearch.Module | None = None) -> None:
        self.port = port
        self.client = redis.Redis(port=port, protocol=2)
        self._module = module
        self._stores: list[Store] = []

    @property
    def module(self) -> redisearch.Module:
        if self._module is None:
            pytest.skip("a real module does not do this on demand")
        return self._module

    def store(self, **fields: Any) -> Store:
        own = {"port": self.port, **fields}
        record = {"strategy": "redis", "dimensions": 3, "distance_metric": "cosine", "redis": own}
        store = open_store(Vectordb.model_validate(record))
        self._stores.append(store)
        return store

    def deny(self) -> bool:
        """Have the module refuse its commands. False where a real one has to be told."""
        if self._module is not None:
            self._module.is_denied = True
        return self._module is not None

    async def ask(self, *command: Any) -> Any:
        """The reply, got beside the loop: the module is on it."""
        return await asyncio.to_thread(self.client.execute_command, *command)

    async def close(self) -> None:
        for store in self._stores:
            await store.close()
        self.client.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest_asyncio.fixture(params=["redis", "valkey", *(["real"] if REAL else [])])
async def world(request: pytest.FixtureRequest, server: RedisServer) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "real":
            world = World(int(REAL or 0))
            for index in await world.ask("FT._LIST"):
                await world.ask("FT.DROPINDEX", index)
        else:
            module = await stack.enter_async_context(redisearch.opened(server, request.param))
            world = World(module.port, module)
        await world.ask("FLUSHALL")
        yield world
        await world.close()


async def names(store: Store, space: Space = SPACE, most: int = 9) -> list[str]:
    return [match.name for match in await store.nearest(space, ALMOST_EAST, most)]


async def test_the_nearest_come_first(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    found = await store.nearest(SPACE, ALMOST_EAST, 9)
    assert [match.name for match in found] == ["east", "north", "west {1}:"]
    assert [match.distance for match in found] == pytest.approx([0.2, 0.4, 1.8], abs=1e-6)
    assert await names(store, most=2) == ["east", "north"]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
async def test_distances_are_those_of_a_server_without_it(
    world: World, server: RedisServer, metric: Any
) -> None:
    space = SPACE._replace(metric=metric)
    by_module, by_us = world.store(), world.store(port=server.port)
    if metric == "euclidean":
        by_us = world.store(port=server.port, database=1)
    await by_module.put(space, VECTORS)
    await by_us.put(space, VECTORS)
    for vector in ([1.0, 0.0, 0.0], ALMOST_EAST, [-1.0, 0.1, 7.0]):
        theirs = await by_module.nearest(space, vector, 9)
        ours = await by_us.nearest(space, vector, 9)
        assert [match.name for match in theirs] == [match.name for match in ours]
        distances = [match.distance for match in ours]
        assert [match.distance for match in theirs] == pytest.approx(distances, abs=1e-3)


async def test_spaces_do_not_see_each_other(world: World) -> None:
    store = world.store()
    other = SPACE._replace(name="e5f")
    await store.put(SPACE, VECTORS)
    await store.put(other, {"down": [0.0, 0.0, -1.0]})
    assert await names(store) == ["east", "north", "west {1}:"]
    assert await names(store, other) == ["down"]


async def test_one_index_serves_all_spaces_of_a_kind(world: World) -> None:
    store = world.store()
    for number in range(12):
        await store.put(SPACE._replace(name=f"{number:x}"), VECTORS)
    assert await world.ask("FT._LIST") == [INDEX.encode()]


async def test_workers_that_start_together_make_one_index(world: World) -> None:
    stores = [world.store() for _ in range(4)]
    await asyncio.gather(*(store.put(SPACE, VECTORS) for store in stores))
    assert [await names(store, most=1) for store in stores] == [["east"]] * 4


async def test_another_worker_finds_what_one_put(world: World) -> None:
    await world.store().put(SPACE, VECTORS)
    other = world.store()
    assert await names(other, most=1) == ["east"]
    assert await other.has(SPACE)


async def test_a_space_that_was_never_put_is_missing(world: World) -> None:
    store = world.store()
    assert not await store.has(SPACE)
    with pytest.raises(MissingSpaceError):
        await names(store)


async def test_an_index_that_was_dropped_is_made_again(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    await world.ask("FT.DROPINDEX", INDEX)
    with pytest.raises(MissingSpaceError):
        await names(store)
    assert not await store.has(SPACE)
    await store.put(SPACE, VECTORS)
    assert await store.has(SPACE)
    assert await names(store, most=1) == ["east"]


async def test_a_space_with_a_vector_too_few_is_missing(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    await world.ask("DEL", f"{INDEX}:{{{SPACE.name}}}:north")
    with pytest.raises(MissingSpaceError):
        await names(store)


async def test_what_the_module_has_not_read_yet_is_compared_here(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lagging(*_: object) -> list[Match]:
        return [Match("east", 0.2)]

    store = world.store()
    await store.put(SPACE, VECTORS)
    monkeypatch.setattr(Search, "nearest", lagging)
    assert await names(store) == ["east", "north", "west {1}:"]
    assert await names(store, most=1) == ["east"]


async def test_an_index_for_other_vectors_is_told(world: World) -> None:
    start = ("FT.CREATE", INDEX, "ON", "HASH", "PREFIX", 1, "other:", "SCHEMA", "space", "TAG")
    vector = ("vector", "VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DIM", 4, "DISTANCE_METRIC", "L2")
    await world.ask(*start, *vector)
    with pytest.raises(StoreError, match=rf"{INDEX} is for vectors of 4 .*FT\.DROPINDEX"):
        await world.store().put(SPACE, VECTORS)


async def test_too_many_indexes_are_told(server: RedisServer) -> None:
    async with redisearch.opened(server, most_indexes=0) as module:
        world = World(module.port, module)
        with pytest.raises(StoreError, match=r"as many search indexes as it allows.*LIMIT Number"):
            await world.store().put(SPACE, VECTORS)
        await world.close()


async def test_a_module_that_goes_away_is_done_without(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    world.module.is_loaded = False
    with pytest.raises(StoreError, match="unknown command"):
        await names(store)
    assert await names(store) == ["east", "north", "west {1}:"]


async def test_a_search_counts_as_a_use(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "CHECK", 0.0)
    monkeypatch.setattr(redis_store, "TOUCH", 0.0)
    store = world.store()
    await store.put(SPACE, VECTORS)
    key = f"{INDEX}:{{{SPACE.name}}}:north"
    await world.ask("EXPIRE", key, 60)
    async with asyncio.timeout(10.0):
        while await world.ask("TTL", key) <= 60:
            await names(store)


async def test_a_user_without_the_commands_is_served_without_them(world: World) -> None:
    await world.ask("ACL", "SETUSER", "kong", "on", ">secret", "~*", "+@all")
    if not world.deny():
        await world.ask("ACL", "SETUSER", "kong", "-ft.info")
    store = world.store(username="kong", password="secret")
    await store.put(SPACE, VECTORS)
    assert await names(store) == ["east", "north", "west {1}:"]


@pytest.mark.parametrize("fields", [{"connection_is_proxied": True}, {"database": 1}])
async def test_a_proxy_or_another_database_is_not_asked_for_it(
    world: World, fields: dict[str, Any]
) -> None:
    store = world.store(**fields)
    world.module.seen.clear()
    await store.put(SPACE, VECTORS)
    async with store.locked(SPACE):
        assert await names(store) == ["east", "north", "west {1}:"]
    seen = set(world.module.seen)
    seen.discard("SELECT" if "database" in fields else "")
    assert seen == {"DEL", "HSET", "EXPIRE", "SET", "HGET", "EVAL"}
