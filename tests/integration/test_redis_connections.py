"""How a Redis that is really running is reached: logins, TLS, databases, sentinels, clusters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
import redis
from typing_extensions import override

from kong_ai_proxy.auth.identity import BearerToken
from kong_ai_proxy.auth.tokens import Tokens
from kong_ai_proxy.vectors import redis_keys
from kong_ai_proxy.vectors.store import StoreError, open_store
from tests.redis_servers import (
    MASTER,
    RedisServer,
    redis_cluster,
    redis_sentinel,
    redis_server,
)
from tests.redis_worlds import (
    NEAREST_FIRST,
    SECONDS,
    SPACE,
    VECTORS,
    World,
    names,
    opened,
    vectordb,
)


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
            assert await names(store) == NEAREST_FIRST


async def test_a_user_needs_no_more_than_is_documented(guarded: RedisServer) -> None:
    with guarded.client() as client:
        client.flushall()
        rights = (redis_keys.__doc__ or "").split("ACL SETUSER kong on >password ")[1]
        rights = rights.split("\n\n")[0].replace("\\", "")
        # A server without the module does not know its commands.
        known_rights = (right for right in rights.split() if not right.startswith("+ft."))
        client.execute_command("ACL", "SETUSER", "least", "on", ">user-secret", *known_rights)
    async with opened(guarded) as world:
        store = world.store(username="least", password="user-secret")
        async with store.locked(SPACE):
            assert not await store.has(SPACE)
            await store.put(SPACE, VECTORS)
        assert await store.has(SPACE)
        assert await names(store) == NEAREST_FIRST
    with guarded.client() as client:
        assert not client.keys("*:lock")


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
    assert await names(world.store(database=3)) == NEAREST_FIRST


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
    assert await names(store) == NEAREST_FIRST


@pytest.fixture
def replicated() -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A master, its replica, and a sentinel that knows both."""
    with redis_server() as master, redis_server() as replica:
        with master.client() as client:
            client.config_set("repl-diskless-sync-delay", 0)
        with replica.client() as client:
            client.replicaof("127.0.0.1", master.port)
            wait(lambda: client.info("replication")["master_link_status"] == "up")
        with redis_sentinel(master, password="sentinel-secret") as sentinel:
            with sentinel.client() as client:
                wait(lambda: any(not state["is_disconnected"] for state in known(client)))
            yield master, replica, sentinel


def known(sentinel: redis.Redis) -> list[dict[str, Any]]:
    """The replicas that a sentinel knows."""
    return list(sentinel.sentinel_slaves(MASTER))


def wait(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


async def test_vectors_are_read_from_a_replica(
    replicated: tuple[RedisServer, RedisServer, RedisServer],
) -> None:
    master, replica, sentinel = replicated
    async with opened(master) as world:
        store = world.store(**by_sentinel(sentinel, role="slave"))
        await store.put(SPACE, VECTORS)
        with replica.client() as client, master.client() as other:
            other.wait(1, 5000)
            assert await names(store) == NEAREST_FIRST
            assert client.info("commandstats")["cmdstat_hget"]["calls"] == len(VECTORS)


async def test_a_replica_that_lags_behind_is_not_believed(
    replicated: tuple[RedisServer, RedisServer, RedisServer],
) -> None:
    master, replica, sentinel = replicated
    with replica.client() as client:
        client.replicaof("NO", "ONE")  # it gets nothing more
    async with opened(master) as world:
        store = world.store(**by_sentinel(sentinel, role="any"))
        await store.put(SPACE, VECTORS)
        assert await names(store) == NEAREST_FIRST


async def test_a_master_that_no_sentinel_knows_is_told(world: World, sentinel: RedisServer) -> None:
    store = world.store(**by_sentinel(sentinel, master="other"))
    with pytest.raises(StoreError, match=r"sentinel_master: no sentinel of .* names .* other"):
        await store.has(SPACE)


async def test_a_sentinel_that_refuses_the_login_is_told(
    world: World, sentinel: RedisServer
) -> None:
    store = world.store(**by_sentinel(sentinel) | {"sentinel_password": "wrong-secret"})
    with pytest.raises(StoreError, match="sentinel_username and sentinel_password") as caught:
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
            assert await names(store, space) == NEAREST_FIRST
    sizes = []
    for server in cluster:
        with server.client() as client:
            sizes.append(client.dbsize())
    assert all(sizes)


async def test_a_clouds_token_logs_in_to_all_of_a_cluster(cluster: list[RedisServer]) -> None:
    class Source(Tokens):
        @override
        async def get(self, identity: Any) -> BearerToken:
            return BearerToken("server-secret")

    fields: dict[str, Any] = {
        "cluster_nodes": [{"ip": "127.0.0.1", "port": cluster[0].port}],
        "cloud_authentication": {"auth_provider": "gcp"},
    }
    async with opened(cluster[0]) as world:
        store = world.store(tokens=Source({}), **fields)
        for name in ("1", "2", "3", "4", "5"):
            await store.put(SPACE._replace(name=name), VECTORS)


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
