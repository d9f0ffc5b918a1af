"""Vectors in a Redis that is really running, with the distances computed here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from typing_extensions import override

from kong_ai_proxy.auth.identity import BearerToken
from kong_ai_proxy.auth.tokens import Tokens
from kong_ai_proxy.config.vectors import Vectordb
from kong_ai_proxy.vectors import redis_lock, redis_store
from kong_ai_proxy.vectors.redis_connection import Server
from kong_ai_proxy.vectors.store import (
    UNUSED,
    MissingSpaceError,
    Space,
    Store,
    StoreError,
    open_store,
)
from tests.redis_servers import (
    MASTER,
    RedisServer,
    redis_cluster,
    redis_sentinel,
    redis_server,
)

SPACE = Space("5a" * 32, 3, "cosine")
EUCLIDEAN = Space("5b" * 32, 3, "euclidean")
VECTORS = {"east": [2.0, 0.0, 0.0], "north": [0.0, 1.0, 0.0], "west {1}:": [-1.0, 0.0, 0.0]}
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


async def names(store: Store, space: Space = SPACE, most: int = 9) -> list[str]:
    return [match.name for match in await store.nearest(space, ALMOST_EAST, most)]


async def until(condition: Any) -> None:
    """Wait for what happens beside the requests."""
    async with asyncio.timeout(SECONDS):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_the_nearest_come_first_with_cosine_distances(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    found = await store.nearest(SPACE, ALMOST_EAST, 9)
    assert [match.name for match in found] == ["east", "north", "west {1}:"]
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
    assert await names(other) == ["east", "north", "west {1}:"]


async def test_a_space_that_was_never_put_is_missing(world: World) -> None:
    with pytest.raises(MissingSpaceError):
        await world.store().nearest(SPACE, ALMOST_EAST, 1)


async def test_putting_again_changes_nothing(world: World) -> None:
    one, other = world.store(), world.store()
    await asyncio.gather(one.put(SPACE, VECTORS), other.put(SPACE, VECTORS))
    assert await names(one) == await names(other) == ["east", "north", "west {1}:"]


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
    assert found == [["east", "north", "west {1}:"]] * 20


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
        assert await names(store) == ["east", "north", "west {1}:"]
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
    assert await names(store) == ["east", "north", "west {1}:"]


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


# --- who logs in ---


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    with redis_server(password="server-secret") as server:
        with server.client() as client:
            own = "~kong-ai-proxy:vectors:* +@all"
            client.execute_command("ACL", "SETUSER", "kong", "on", ">user-secret", *own.split())
            client.execute_command("ACL", "SETUSER", "reader", "on", ">user-secret", "~*", "+@read")
        yield server


@pytest.mark.parametrize(
    "login", [{"password": "server-secret"}, {"username": "kong", "password": "user-secret"}]
)
async def test_users_log_in(guarded: RedisServer, login: dict[str, str]) -> None:
    async with opened(guarded) as world:
        store = world.store(**login)
        await store.put(SPACE, VECTORS)
        async with store.locked(SPACE):
            assert await names(store) == ["east", "north", "west {1}:"]


@pytest.mark.parametrize(
    ("login", "text"),
    [
        ({}, "redis.password: Redis demands a login"),
        ({"password": "wrong-secret"}, "redis.username, password: Redis refused the login"),
        (
            {"username": "reader", "password": "user-secret"},
            "redis.username: Redis denies the user reader a command or key",
        ),
    ],
)
async def test_a_refused_login_is_told_without_secrets(
    guarded: RedisServer, login: dict[str, str], text: str
) -> None:
    async with opened(guarded) as world:
        with pytest.raises(StoreError) as caught:
            await world.store(**login).put(SPACE, VECTORS)
    assert text in str(caught.value)
    assert "-secret" not in str(caught.value)


async def test_a_clouds_token_logs_in(guarded: RedisServer) -> None:
    class Source(Tokens):
        @override
        async def get(self, identity: Any) -> BearerToken:
            return BearerToken("server-secret")

    async with opened(guarded) as world:
        cloud = {"auth_provider": "gcp"}
        store = world.store(cloud_authentication=cloud, tokens=Source({}))
        await store.put(SPACE, VECTORS)
        assert await store.has(SPACE)


async def test_a_login_that_was_given_up_leaves_no_half_open_connection(
    guarded: RedisServer,
) -> None:
    class Source(Tokens):
        waits = True

        @override
        async def get(self, identity: Any) -> BearerToken:
            if self.waits:
                await asyncio.Event().wait()
            return BearerToken("server-secret")

    async with opened(guarded) as world:
        source = Source({})
        cloud = {"auth_provider": "gcp"}
        limits: dict[str, Any] = {"connect_timeout": 30, "read_timeout": 1000, "send_timeout": 30}
        store = world.store(cloud_authentication=cloud, tokens=source, **limits)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await store.has(SPACE)
        source.waits = False
        await store.put(SPACE, VECTORS)
        assert await store.has(SPACE)


# --- TLS ---


@pytest.fixture(scope="module")
def safe() -> Iterator[RedisServer]:
    with redis_server(tls=True, password="server-secret") as server:
        yield server


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "localhost"},
        {"host": "127.0.0.1", "server_name": "localhost"},
        {"host": "127.0.0.1", "ssl_verify": False},
    ],
)
async def test_tls_is_spoken(safe: RedisServer, fields: dict[str, Any]) -> None:
    ca_file = None if "ssl_verify" in fields else safe.ca_file
    async with opened(safe) as world:
        store = world.store(ca_file=ca_file, ssl=True, password="server-secret", **fields)
        await store.put(SPACE, VECTORS)
        assert await store.has(SPACE)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"host": "localhost", "ssl": True}, r"redis\.ssl_verify: .* not trusted: .*--ca-file"),
        ({"host": "localhost"}, r"ended the connection; .*redis\.ssl is false"),
    ],
)
async def test_tls_that_fails_is_told(safe: RedisServer, fields: dict[str, Any], text: str) -> None:
    async with opened(safe) as world:
        with pytest.raises(StoreError, match=text):
            await world.store(**fields).has(SPACE)


async def test_a_certificate_of_another_name_is_refused(safe: RedisServer) -> None:
    async with opened(safe) as world:
        store = world.store(host="127.0.0.1", ssl=True, ca_file=safe.ca_file)
        with pytest.raises(StoreError, match=r"ssl_verify.*127\.0\.0\.1.*server_name"):
            await store.has(SPACE)


async def test_tls_with_a_server_without_is_told(world: World) -> None:
    with pytest.raises(StoreError, match=r"did not answer .* TLS\? .*redis\.ssl is true"):
        await world.store(ssl=True, connect_timeout=200).has(SPACE)


# --- where the data is ---


async def test_another_database_is_used(world: World) -> None:
    store = world.store(database=3)
    await store.put(SPACE, VECTORS)
    with world.server.client() as client:
        assert not client.keys("*")
    assert await names(world.store(database=3)) == ["east", "north", "west {1}:"]


async def test_a_database_that_is_not_there_is_told(world: World) -> None:
    with pytest.raises(StoreError, match=r"redis\.database: Redis has no database 99"):
        await world.store(database=99).has(SPACE)


async def test_a_port_from_a_vault_is_a_text(world: World) -> None:
    store = world.store()
    config = vectordb(port=world.server.port)
    redis = config.redis.model_copy(update={"port": str(world.server.port)})
    other = open_store(config.model_copy(update={"redis": redis}))
    await store.put(SPACE, VECTORS)
    assert await other.has(SPACE)
    await other.close()


async def test_a_port_that_is_none_is_told() -> None:
    config = vectordb()
    redis = config.redis.model_copy(update={"port": "redis"})
    with pytest.raises(StoreError, match=r"redis\.port: expected a number"):
        open_store(config.model_copy(update={"redis": redis}))


@pytest.mark.parametrize("role", ["master", "slave", "any"])
async def test_sentinels_name_the_server(world: World, sentinel: RedisServer, role: str) -> None:
    store = world.store(**by_sentinel(sentinel, role=role))
    await store.put(SPACE, VECTORS)
    assert await store.has(SPACE)
    assert await names(store) == ["east", "north", "west {1}:"]


async def test_a_master_that_no_sentinel_knows_is_told(world: World, sentinel: RedisServer) -> None:
    store = world.store(**by_sentinel(sentinel, master="other"))
    with pytest.raises(StoreError, match=r"sentinel_master: no sentinel of .* names .* other"):
        await store.has(SPACE)


async def test_a_sentinel_that_refuses_the_login_is_told(
    world: World, sentinel: RedisServer
) -> None:
    store = world.store(**by_sentinel(sentinel) | {"sentinel_password": "wrong-secret"})
    with pytest.raises(StoreError, match=r"config\.vectordb\.redis\.") as caught:
        await store.has(SPACE)
    assert "-secret" not in str(caught.value)


@pytest.fixture(scope="module")
def sentinel(shared: RedisServer) -> Iterator[RedisServer]:
    with redis_sentinel(shared, password="sentinel-secret") as server:
        yield server


def by_sentinel(
    sentinel: RedisServer, master: str = MASTER, role: str = "master"
) -> dict[str, Any]:
    return {
        "sentinel_master": master,
        "sentinel_role": role,
        "sentinel_nodes": [{"host": "127.0.0.1", "port": sentinel.port}],
        "sentinel_password": "sentinel-secret",
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    with redis_cluster(3, password="server-secret") as servers:
        yield servers


async def test_a_cluster_keeps_spaces_on_several_nodes(cluster: list[RedisServer]) -> None:
    nodes = [{"ip": "127.0.0.1", "port": server.port} for server in cluster]
    async with opened(cluster[0]) as world:
        store = world.store(cluster_nodes=nodes, password="server-secret")
        for name in ("1", "2", "3", "4", "5"):
            space = SPACE._replace(name=name)
            async with store.locked(space):
                await store.put(space, VECTORS)
            assert await store.has(space)
            assert await names(store, space) == ["east", "north", "west {1}:"]
    sizes = []
    for server in cluster:
        with server.client() as client:
            sizes.append(client.dbsize())
    assert all(sizes)


async def test_a_node_without_its_cluster_is_told(cluster: list[RedisServer]) -> None:
    async with opened(cluster[0]) as world:
        store = world.store(password="server-secret")
        asked = (store.has(SPACE._replace(name=name)) for name in ("1", "2", "3", "4", "5"))
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
    texts = [str(outcome) for outcome in outcomes if isinstance(outcome, StoreError)]
    assert texts
    assert all("set config.vectordb.redis.cluster_nodes" in text for text in texts)


async def test_a_server_that_is_no_cluster_is_told(world: World) -> None:
    nodes = [{"ip": "127.0.0.1", "port": world.server.port}]
    with pytest.raises(StoreError, match=r"redis\.cluster_nodes: none of .* cluster"):
        await world.store(cluster_nodes=nodes).has(SPACE)
