"""Vectors in a really running PostgreSQL with pgvector."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kong_ai_proxy.config.vectors import Vectordb
from kong_ai_proxy.vectors import pgvector_store
from kong_ai_proxy.vectors.pgvector_store import PgvectorStore
from kong_ai_proxy.vectors.store import MissingSpaceError, Space, StoreError, open_store
from tests import postgres_servers
from tests.postgres_servers import PASSWORD, PostgresServer
from tests.unit.relay import authorities

postgres = postgres_servers.postgres

SPACE = Space("5" * 64, 3, "cosine")
VECTORS = {"east": [1.0, 0.0, 0.0], "north": [0.0, 2.0, 0.0], "northeast": [0.5, 0.5, 0.0]}
Json = dict[str, Any]


class World:
    """An empty database and the stores that use it."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server = server
        self.name = name
        self._stores: list[PgvectorStore] = []

    def store(self, *, ca_file: str | None = None, **fields: Any) -> PgvectorStore:
        store = PgvectorStore(self.config(**fields), ca_file=ca_file)
        self._stores.append(store)
        return store

    def config(self, **fields: Any) -> Vectordb:
        own = {"port": self.server.port, "password": PASSWORD, "database": self.name, **fields}
        record = {
            "strategy": "pgvector",
            "dimensions": 3,
            "distance_metric": "cosine",
            "pgvector": own,
        }
        return Vectordb.model_validate(record)

    async def execute(self, *statements: str) -> None:
        await self.server.execute(*statements, database=self.name)

    async def value(self, query: str) -> Any:
        connection = await self.server.connect(self.name)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    async def connections(self) -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kong-ai-proxy'"
        return int(await self.value(query))

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


@pytest_asyncio.fixture
async def world(postgres: PostgresServer) -> AsyncIterator[World]:
    async with postgres.database() as name:
        world = World(postgres, name)
        yield world
        await world.close()


@contextlib.asynccontextmanager
async def role(world: World, name: str, *rights: str) -> AsyncIterator[str]:
    """A role that may do this much."""
    await world.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'", *rights)
    try:
        yield name
    finally:
        await world.execute(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


# ---- what it keeps


async def test_what_is_put_is_there_for_everybody(world: World) -> None:
    assert not await world.store().has(SPACE)
    await world.store().put(SPACE, VECTORS)
    assert await world.store().has(SPACE)
    assert not await world.store().has(SPACE._replace(name="6" * 64))


async def test_the_nearest_come_first_with_cosine_distances(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    found = await store.nearest(SPACE, [3.0, 0.0, 0.0], 3)
    assert [match.name for match in found] == ["east", "northeast", "north"]
    assert [match.distance for match in found] == pytest.approx([0, 1 - math.sqrt(0.5), 1])
    assert [match.name for match in await store.nearest(SPACE, [3.0, 0.0, 0.0], 1)] == ["east"]


async def test_opposite_directions_are_as_far_as_can_be(world: World) -> None:
    store = world.store()
    euclidean = Space("7" * 64, 3, "euclidean")
    for space in (SPACE, euclidean):
        await store.put(space, VECTORS)
    west = [-9.0, 0.0, 0.0]
    for space, expected in [(SPACE, 2), (euclidean, 1)]:
        farthest = (await store.nearest(space, west, 3))[-1]
        assert farthest.name == "east"
        assert farthest.distance == pytest.approx(expected)


async def test_euclidean_distances_are_half_of_those_of_unit_vectors(world: World) -> None:
    store, space = world.store(), Space("7" * 64, 3, "euclidean")
    await store.put(space, VECTORS)
    found = await store.nearest(space, [3.0, 0.0, 0.0], 3)
    expected = [0, math.dist([1, 0], [math.sqrt(0.5)] * 2) / 2, math.sqrt(2) / 2]
    assert [match.distance for match in found] == pytest.approx(expected)


async def test_spaces_of_different_lengths_share_the_table(world: World) -> None:
    store, longer = world.store(), Space("8" * 64, 16000, "cosine")
    await store.put(SPACE, VECTORS)
    await store.put(longer, {"x": [1.0] * 16000})
    assert [match.name for match in await store.nearest(longer, [0.5] * 16000, 9)] == ["x"]
    assert len(await store.nearest(SPACE, [1.0, 0.0, 0.0], 9)) == 3


async def test_what_is_put_again_is_there_once(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    await store.put(SPACE, VECTORS)
    assert len(await store.nearest(SPACE, [1.0, 0.0, 0.0], 9)) == 3


async def test_a_vector_of_another_length_is_refused(world: World) -> None:
    with pytest.raises(StoreError, match=r"config\.vectordb\.dimensions: 3, .* of 2 numbers"):
        await world.store().put(SPACE, {"flat": [1.0, 0.0]})


async def test_a_space_that_is_not_there_is_missing(world: World) -> None:
    store = world.store()
    with pytest.raises(MissingSpaceError):  # there is no table yet
        await store.nearest(SPACE, [1.0, 0.0, 0.0], 1)
    await store.put(SPACE._replace(name="6" * 64), VECTORS)
    with pytest.raises(MissingSpaceError):
        await store.nearest(SPACE, [1.0, 0.0, 0.0], 1)


async def test_many_may_make_the_table_at_the_same_time(world: World) -> None:
    spaces = [Space(f"{number:064x}", 3, "cosine") for number in range(6)]
    await asyncio.gather(*(world.store().put(space, VECTORS) for space in [*spaces, *spaces]))
    assert all([await world.store().has(space) for space in spaces])


async def test_what_nobody_has_used_for_a_week_is_removed(world: World) -> None:
    store, old, used = world.store(), *(Space(d * 64, 3, "cosine") for d in "ab")
    for space in (old, used):
        await store.put(space, VECTORS)
    await world.execute("UPDATE kong_ai_proxy_vectors SET used = now() - interval '8 days'")
    assert await world.store().has(used)  # which counts as a use
    await store.put(SPACE, VECTORS)
    assert not await store.has(old)
    assert await store.has(used)


async def test_a_search_counts_as_a_use_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    age = "SELECT extract(epoch FROM now() - min(used))::int FROM kong_ai_proxy_vectors"
    await world.execute("UPDATE kong_ai_proxy_vectors SET used = now() - interval '1 day'")
    await store.nearest(SPACE, [1.0, 0.0, 0.0], 1)
    assert await world.value(age) >= 24 * 3600
    monkeypatch.setattr(pgvector_store, "TOUCH_SECONDS", 0.0)
    await store.nearest(SPACE, [1.0, 0.0, 0.0], 1)
    assert await world.value(age) < 3600


# ---- the lock


async def test_one_at_a_time_holds_the_lock_of_a_space(world: World) -> None:
    inside = most = 0

    async def work(store: PgvectorStore) -> None:
        nonlocal inside, most
        async with store.locked(SPACE):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(work(world.store()) for _ in range(5)))
    assert (inside, most) == (0, 1)


async def test_spaces_have_locks_of_their_own(world: World) -> None:
    store = world.store()
    async with store.locked(SPACE), store.locked(SPACE._replace(name="6" * 64)):
        pass


async def test_who_fails_while_holding_it_lets_it_go(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        async with world.store().locked(SPACE):
            raise ZeroDivisionError
    async with world.store().locked(SPACE):
        assert await world.connections() == 1
    assert await world.connections() == 0


async def test_who_waits_for_it_leaves_the_pool_to_who_holds_it(world: World) -> None:
    store = world.store()

    async def wait() -> None:
        async with store.locked(SPACE):
            pass

    async with store.locked(SPACE):
        waiting = [asyncio.create_task(wait()) for _ in range(pgvector_store.MAX_CONNECTIONS + 2)]
        await asyncio.sleep(0)
        await store.put(SPACE, VECTORS)
    await asyncio.gather(*waiting)


async def test_who_waits_for_it_gives_up_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector_store, "LOCK_SECONDS", 0.05)
    async with world.store().locked(SPACE):
        with pytest.raises(StoreError, match="another worker has been embedding"):
            async with world.store().locked(SPACE):
                raise AssertionError
    async with world.store().locked(SPACE):  # and left nothing behind
        pass


HOLD = """
import asyncio, sys
from kong_ai_proxy.config.vectors import Vectordb
from kong_ai_proxy.vectors.pgvector_store import PgvectorStore
from kong_ai_proxy.vectors.store import Space

async def main():
    store = PgvectorStore(Vectordb.model_validate_json(sys.stdin.readline()))
    async with store.locked(Space(*eval(sys.argv[1]))):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_loses_it(world: World) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, repr(tuple(SPACE)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdin
    assert holder.stdout
    holder.stdin.write(world.config().model_dump_json(exclude_unset=True).encode() + b"\n")
    assert await holder.stdout.readline() == b"held\n"
    holder.kill()
    async with asyncio.timeout(5), world.store().locked(SPACE):
        pass
    await holder.wait()


# ---- the server


async def test_connections_outlive_the_server(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    world.server.stop()
    with pytest.raises(StoreError, match=r"host, port: cannot connect to PostgreSQL at 127"):
        await store.has(SPACE)
    world.server.start()
    assert await store.has(SPACE)


async def test_a_restart_between_two_searches_is_not_noticed(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    await asyncio.gather(*(store.nearest(SPACE, [1.0, 0.0, 0.0], 1) for _ in range(8)))
    await world.server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'kong-ai-proxy'"
    )
    for _ in range(3):
        assert await store.nearest(SPACE, [1.0, 0.0, 0.0], 1)


async def test_connections_are_few_whatever_is_asked_at_a_time(world: World) -> None:
    store = world.store()
    await store.put(SPACE, VECTORS)
    await asyncio.gather(*(store.nearest(SPACE, [1.0, 0.0, 0.0], 1) for _ in range(100)))
    assert await world.connections() <= pgvector_store.MAX_CONNECTIONS
    await store.close()
    assert await world.connections() == 0


async def test_a_server_that_hangs_is_an_error_in_time(world: World) -> None:
    store = world.store(timeout=150)
    world.server.freeze()
    try:
        async with asyncio.timeout(5):
            with pytest.raises(StoreError, match=r"did not answer in time .*timeout is 150 ms"):
                await store.has(SPACE)
            with pytest.raises(StoreError, match="did not answer in time"):
                async with store.locked(SPACE):
                    raise AssertionError
    finally:
        world.server.thaw()
    assert not await world.store().has(SPACE)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"password": "wrong-secret"}, r"user, password: .* refused the login of user postgres"),
        ({"password": None}, r"user, password: .* refused the login of user postgres"),
        ({"user": "nobody-here"}, r"refused the login of user nobody-here"),
        ({"database": "none"}, r"config.vectordb.pgvector.database: .* has no database none"),
        ({"port": 1}, r"host, port: cannot connect to PostgreSQL at 127.0.0.1:1: "),
        ({"host": "host.invalid"}, r"host, port: cannot connect to PostgreSQL at host.invalid"),
        ({"ssl": True, "ssl_required": True}, r"ssl_required: PostgreSQL at .* has no TLS"),
        ({"ssl": True, "ssl_cert": "/nowhere"}, r"ssl_cert, ssl_cert_key: No such file"),
    ],
)
async def test_a_configuration_that_is_wrong_is_told_by_the_field(
    world: World, monkeypatch: pytest.MonkeyPatch, fields: Json, text: str
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)  # is not ours to use
    store = world.store(**fields)
    with pytest.raises(StoreError, match=text) as error:
        await store.has(SPACE)
    with pytest.raises(StoreError, match=text):
        async with store.locked(SPACE):
            raise AssertionError
    assert "secret" not in str(error.value)


async def test_who_may_not_make_the_extension_is_told_what_to_do(world: World) -> None:
    async with role(world, "poor") as name:
        with pytest.raises(StoreError, match="have an administrator run CREATE EXTENSION vector"):
            await world.store(user=name).put(SPACE, VECTORS)


@pytest.mark.parametrize("right", ["USAGE", "CREATE"])
async def test_who_may_not_make_the_table_is_told_what_to_do(world: World, right: str) -> None:
    await world.execute("CREATE EXTENSION vector", f"REVOKE {right} ON SCHEMA public FROM PUBLIC")
    async with role(world, "poor") as name:
        with pytest.raises(StoreError, match="GRANT CREATE, USAGE ON SCHEMA public TO poor"):
            await world.store(user=name).put(SPACE, VECTORS)


async def test_an_administrator_may_make_the_table(world: World) -> None:
    await world.store().put(SPACE._replace(name="6" * 64), VECTORS)
    rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON kong_ai_proxy_vectors TO poor"
    async with role(world, "poor", rights) as name:
        store = world.store(user=name)
        await store.put(SPACE, VECTORS)
        assert await store.nearest(SPACE, [1.0, 0.0, 0.0], 1)


async def test_who_may_only_read_can_search(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.store().put(SPACE, VECTORS)
    async with role(world, "poor", "GRANT SELECT ON kong_ai_proxy_vectors TO poor") as name:
        store = world.store(user=name)
        assert await store.has(SPACE)
        assert await store.nearest(SPACE, [1.0, 0.0, 0.0], 1)
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        with pytest.raises(StoreError, match="user poor lacks a right"):
            await store.put(SPACE, VECTORS)


# ---- TLS. The server's build has none: something before it has, as cloud providers do it.


@contextlib.asynccontextmanager
async def tls_before(server: PostgresServer, context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a server that takes TLS as PostgreSQL does
    (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL)."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            await reader.readexactly(8)
            writer.write(b"S")
            await writer.start_tls(context)
            there, back = await asyncio.open_connection("127.0.0.1", server.port)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with proxy:
        yield proxy.sockets[0].getsockname()[1]
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer):
        while data := await reader.read(65536):
            writer.write(data)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> authorities.Authority:
    return authorities.make(tmp_path_factory.mktemp("authority"))


async def test_tls_with_an_authority_of_ones_own(
    world: World, authority: authorities.Authority
) -> None:
    async with tls_before(world.server, authority.server) as port:
        fields: Json = {"host": "localhost", "port": port, "ssl": True, "ssl_required": True}
        store = world.store(**fields, ca_file=authority.ca_file)
        await store.put(SPACE, VECTORS)
        assert await store.has(SPACE)
        unverified = world.store(**fields, ssl_verify=False, ssl_version="tlsv1_3")
        assert await unverified.has(SPACE)
        await world.close()


@pytest.mark.parametrize("fields", [{"host": "localhost"}, {"host": "127.0.0.1"}])
async def test_a_certificate_that_is_not_trusted_is_an_error(
    world: World, authority: authorities.Authority, fields: Json
) -> None:
    ca_file = authority.ca_file if fields["host"] != "localhost" else None
    async with tls_before(world.server, authority.server) as port:
        store = world.store(**fields, port=port, ssl=True, ca_file=ca_file)
        with pytest.raises(StoreError, match=r"ssl_verify: the certificate .* is not trusted"):
            await store.has(SPACE)


async def test_without_tls_it_goes_on_unless_tls_is_required(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    assert not await world.store(ssl=True).has(SPACE)
    assert "the connection is not encrypted" in caplog.text


# ---- how it is chosen


async def test_a_configuration_opens_it(world: World) -> None:
    store = open_store(world.config())
    assert isinstance(store, PgvectorStore)
    await store.close()  # before its first use too


def test_without_its_library_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide(monkeypatch, "asyncpg")
    config = Vectordb.model_validate(
        {"strategy": "pgvector", "dimensions": 3, "distance_metric": "cosine"}
    )
    with pytest.raises(StoreError, match=r"needs asyncpg: pip install 'kong-ai-proxy\[pgvector\]'"):
        open_store(config)


def hide(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Have a library look as if it were not installed."""
    for name in list(sys.modules):
        if name.partition(".")[0] == library or name.startswith("kong_ai_proxy.vectors.pgvector"):
            monkeypatch.delitem(sys.modules, name)
    real: Callable[..., Any] = __import__

    def find(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return real(name, *rest, **more)

    monkeypatch.setattr("builtins.__import__", find)
