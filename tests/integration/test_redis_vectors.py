"""Vectors in a Redis that is really running, with the distances computed here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from kong_ai_proxy.vectors import redis_lock, redis_store
from kong_ai_proxy.vectors.redis_connection import Server
from kong_ai_proxy.vectors.store import (
    UNUSED,
    MissingSpaceError,
    Space,
    Store,
    StoreError,
)
from tests.redis_servers import (
    RedisServer,
    redis_server,
)
from tests.redis_worlds import (
    ALMOST_EAST,
    NEAREST_FIRST,
    SECONDS,
    SPACE,
    VECTORS,
    World,
    names,
    opened,
    until,
    vectordb,
)

EUCLIDEAN = Space("5b" * 32, 3, "euclidean")


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest_asyncio.fixture
async def world(shared: RedisServer) -> AsyncIterator[World]:
    with shared.client() as client:
        client.flushall()
    async with opened(shared) as world:
        yield world


@pytest_asyncio.fixture
async def mortal() -> AsyncIterator[World]:
    """A world whose server the test may end."""
    with redis_server() as server:
        async with opened(server) as world:
            yield world


async def test_the_nearest_come_first_with_cosine_distances(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    found = await store.nearest(SPACE, ALMOST_EAST, 9)
    assert [match.name for match in found] == NEAREST_FIRST
    assert [match.distance for match in found] == pytest.approx([0.2, 0.4, 1.8], abs=1e-6)


async def test_euclidean_distances_are_halved(world: World) -> None:
    store = world.store()
    await store.put(EUCLIDEAN, VECTORS)
    (opposite,) = [
        match for match in await store.nearest(EUCLIDEAN, [1, 0, 0], 9) if match.name[0] == "w"
    ]
    assert opposite.distance == pytest.approx(1.0)


async def test_only_as_many_as_asked_for(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    assert await names(store, most=1) == ["east"]


async def test_another_worker_finds_what_one_put(world: World) -> None:
    one, other = world.store(), world.store()
    assert not await other.has(SPACE)
    await one.put(SPACE, VECTORS)
    assert await other.has(SPACE)
    assert await names(other) == NEAREST_FIRST


async def test_a_space_that_was_never_put_is_missing(world: World) -> None:
    with pytest.raises(MissingSpaceError):
        await world.store().nearest(SPACE, ALMOST_EAST, 1)


async def test_putting_again_changes_nothing(world: World) -> None:
    one, other = world.store(), world.store()
    await asyncio.gather(one.put(SPACE, VECTORS), other.put(SPACE, VECTORS))
    assert await names(one) == await names(other) == NEAREST_FIRST


async def test_a_human_finds_the_keys(world: World) -> None:
    await world.store().put(SPACE, VECTORS)
    with world.server.client() as client:
        keys = sorted(client.scan_iter(match="kong-ai-proxy:vectors:*"))
        assert keys == sorted(client.keys("*"))
    braced = f"{{{SPACE.name}}}".encode()
    assert keys == [
        b"kong-ai-proxy:vectors:cosine:3:%b:east" % braced,
        b"kong-ai-proxy:vectors:cosine:3:%b:north" % braced,
        b"kong-ai-proxy:vectors:cosine:3:%b:west {1}:" % braced,
        b"kong-ai-proxy:vectors:%b" % braced,
    ]


async def test_everything_ends_when_unused_and_lives_on_when_used(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    with world.server.client() as client:
        for key in client.keys("*"):
            assert 0 < client.ttl(key) <= UNUSED
            client.expire(key, 60)
        await world.store().has(SPACE)
        assert all(client.ttl(key) > 60 for key in client.keys("*"))


async def test_a_search_counts_as_a_use(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "CHECK", 0.0)
    monkeypatch.setattr(redis_store, "TOUCH", 0.0)
    store = world.store()
    await store.put(SPACE, VECTORS)
    with world.server.client() as client:
        keys = client.keys("*")
        for key in keys:
            client.expire(key, 60)

        async def is_prolonged() -> bool:
            await store.nearest(SPACE, ALMOST_EAST, 1)
            return all(client.ttl(key) > 60 for key in keys)

        await until(is_prolonged)


async def test_vectors_that_somebody_deleted_are_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "CHECK", 0.0)
    store = world.store()
    await store.put(SPACE, VECTORS)
    await names(store)
    with world.server.client() as client:
        client.flushall()

    async def is_missing() -> bool:
        try:
            await names(store)
        except MissingSpaceError:
            return True
        return False

    await until(is_missing)
    assert not await store.has(SPACE)


async def test_a_space_with_a_vector_too_few_is_missing(world: World) -> None:
    await world.store().put(SPACE, VECTORS)
    with world.server.client() as client:
        client.delete(f"kong-ai-proxy:vectors:cosine:3:{{{SPACE.name}}}:north")
    with pytest.raises(MissingSpaceError):
        await names(world.store())


async def test_a_vector_that_somebody_spoilt_is_missing(world: World) -> None:
    await world.store().put(SPACE, VECTORS)
    with world.server.client() as client:
        client.hset(f"kong-ai-proxy:vectors:cosine:3:{{{SPACE.name}}}:north", "vector", "short")
    store = world.store()
    with pytest.raises(MissingSpaceError):
        await names(store)
    await store.put(SPACE, VECTORS)
    assert await names(store) == NEAREST_FIRST


@pytest.mark.parametrize("spoilt", ["[", "7", "null"])
async def test_a_hash_of_somebody_else_is_told(world: World, spoilt: str) -> None:
    with world.server.client() as client:
        mapping = {"names": spoilt, "digest": ""}
        client.hset(f"kong-ai-proxy:vectors:{{{SPACE.name}}}", mapping=mapping)
    with pytest.raises(StoreError, match=rf"{SPACE.name}.* is not of this program: delete it"):
        await world.store().has(SPACE)


async def test_a_key_of_another_type_is_told(world: World) -> None:
    with world.server.client() as client:
        client.set(f"kong-ai-proxy:vectors:{{{SPACE.name}}}", "text")
    with pytest.raises(StoreError, match="Redis refused a command: WRONGTYPE"):
        await world.store().has(SPACE)


async def test_a_full_server_is_told(mortal: World) -> None:
    with mortal.server.client() as client:
        client.config_set("maxmemory", 1)
    with pytest.raises(StoreError, match="out of memory"):
        await mortal.store().put(SPACE, VECTORS)


async def test_many_requests_read_the_vectors_once(world: World) -> None:
    await world.store().put(SPACE, VECTORS)
    store = world.store()
    await store.has(SPACE)
    with world.server.client() as client:
        before = client.info("commandstats").get("cmdstat_hget", {"calls": 0})["calls"]
        await asyncio.gather(*(names(store) for _ in range(20)))
        assert client.info("commandstats")["cmdstat_hget"]["calls"] - before == len(VECTORS)


async def test_many_requests_to_a_new_worker_find_all(world: World) -> None:
    await world.store().put(SPACE, VECTORS)
    store = world.store()
    found = await asyncio.gather(*(names(store) for _ in range(20)))
    assert found == [NEAREST_FIRST] * 20


async def test_vectors_of_another_length_are_refused(world: World) -> None:
    store = world.store()
    with pytest.raises(StoreError, match=r"config\.vectordb\.dimensions: 3.* 2 numbers"):
        await store.put(SPACE, {"flat": [1.0, 2.0]})
    await store.put(SPACE, VECTORS)
    with pytest.raises(StoreError, match=r"config\.vectordb\.dimensions: 3.* 4 numbers"):
        await store.nearest(SPACE, [1.0, 2.0, 3.0, 4.0], 1)


@pytest.mark.parametrize("name", ["", "upper CASE", "a}=>[KNN", "g0"])
async def test_a_name_that_is_no_digest_is_a_mistake(world: World, name: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        await world.store().has(SPACE._replace(name=name))


# --- a server that is not there ---


async def test_a_server_that_is_down_is_told_and_asked_again(mortal: World) -> None:
    store = mortal.store()
    mortal.server.kill()
    with pytest.raises(StoreError, match=r"redis\.host, port: cannot connect .*127\.0\.0\.1:\d+"):
        await store.has(SPACE)
    mortal.server.start()
    assert not await store.has(SPACE)


async def test_what_is_known_is_used_while_the_server_is_down(
    mortal: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_store, "CHECK", 0.0)
    store = mortal.store()
    await store.put(SPACE, VECTORS)
    await names(store)
    mortal.server.kill()

    async def is_logged() -> bool:
        assert await names(store) == NEAREST_FIRST
        return "go on being used: config.vectordb.redis.host" in caplog.text

    await until(is_logged)


async def test_a_connection_that_was_closed_meanwhile_is_no_error(world: World) -> None:
    store = world.store()
    await store.has(SPACE)
    with world.server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert not await store.has(SPACE)


async def test_a_server_that_hangs_is_given_up_in_time(mortal: World) -> None:
    store = mortal.store(read_timeout=100)
    await store.has(SPACE)
    mortal.server.freeze()
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"did not answer in time .*read_timeout 100 ms"):
        await store.has(SPACE)
    assert time.monotonic() - started < 2.0
    mortal.server.thaw()
    assert not await store.has(SPACE)


async def test_closing_does_not_wait_for_a_server_that_hangs(mortal: World) -> None:
    store = mortal.store(connect_timeout=100)
    await store.has(SPACE)
    mortal.server.freeze()
    async with asyncio.timeout(SECONDS):
        await store.close()


async def test_a_store_that_was_never_used_is_closed_too(world: World) -> None:
    await world.store().close()


async def test_queries_beyond_the_backlog_are_refused(mortal: World) -> None:
    store = mortal.store(read_timeout=300, keepalive_pool_size=1, keepalive_backlog=1)
    await store.has(SPACE)
    mortal.server.freeze()
    outcomes = await asyncio.gather(*(store.has(SPACE) for _ in range(3)), return_exceptions=True)
    mortal.server.thaw()
    assert [("keepalive_backlog: 1" in str(outcome)) for outcome in outcomes] == [
        False,
        False,
        True,
    ]


async def test_more_requests_than_connections_wait(world: World) -> None:
    store = world.store(keepalive_pool_size=2)
    await store.put(SPACE, VECTORS)
    assert all(await asyncio.gather(*(store.has(SPACE) for _ in range(20))))


async def test_a_whole_wait_that_is_given_up_leaves_a_usable_store(world: World) -> None:
    store = world.store(keepalive_pool_size=1)
    for _ in range(5):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.0005):
                await store.put(SPACE, VECTORS)
    await store.put(SPACE, VECTORS)
    assert await names(store) == NEAREST_FIRST


# --- the lock ---


async def test_one_at_a_time_holds_the_lock(world: World) -> None:
    inside, most = 0, 0

    async def hold(store: Store) -> None:
        nonlocal inside, most
        async with store.locked(SPACE):
            inside += 1
            most = max(most, inside)
            await store.has(SPACE)
            inside -= 1

    await asyncio.gather(*(hold(world.store()) for _ in range(4)))
    assert most == 1


async def test_a_holder_that_died_is_not_waited_for_long(world: World) -> None:
    with world.server.client() as client:
        client.set(f"kong-ai-proxy:vectors:{{{SPACE.name}}}:lock", "dead", px=200)
    async with asyncio.timeout(SECONDS), world.store().locked(SPACE):
        pass


async def test_the_lock_is_prolonged_while_it_is_held(world: World) -> None:
    server = Server(vectordb(port=world.server.port).redis, None, None)
    with world.server.client() as client:
        async with redis_lock.held(server, "lock", lease=0.3):
            before = client.pttl("lock")

            async def is_prolonged() -> bool:
                nonlocal before
                earlier, before = before, client.pttl("lock")
                return bool(before > earlier)

            await until(is_prolonged)
        assert not client.exists("lock")
    await server.close()


async def test_another_holders_lock_is_left_alone(world: World) -> None:
    store = world.store()
    key = f"kong-ai-proxy:vectors:{{{SPACE.name}}}:lock"
    with world.server.client() as client:
        async with store.locked(SPACE):
            client.set(key, "another's")
        assert client.get(key) == b"another's"


async def test_a_lock_is_not_waited_for_for_ever(world: World) -> None:
    server = Server(vectordb(port=world.server.port).redis, None, None)
    with world.server.client() as client:
        client.set("lock", "another's")
    with pytest.raises(StoreError, match="another worker has held lock"):
        async with redis_lock.held(server, "lock", patience=0.01):
            pass
    await server.close()


async def test_an_error_inside_frees_the_lock(world: World) -> None:
    store = world.store()
    with pytest.raises(RuntimeError):
        async with store.locked(SPACE):
            raise RuntimeError
    with world.server.client() as client:
        assert not client.keys("*lock")
