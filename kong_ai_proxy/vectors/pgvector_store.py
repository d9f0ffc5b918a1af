"""Vectors in PostgreSQL with pgvector: https://github.com/pgvector/pgvector.

One table holds all spaces. Its column of vectors has no fixed length, so that spaces of all lengths
fit. There is no index of neighbours, which would only guess them: a space has a vector for each
description of a configuration, and the primary key finds these.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg
from asyncpg import exceptions
from typing_extensions import override

from kong_ai_proxy.auth import trust
from kong_ai_proxy.config.vectors import Pgvector, Vectordb
from kong_ai_proxy.vectors.pgvector_errors import (
    FAILURES,
    FIELDS,
    explained,
    is_lost,
    is_without_tls,
)
from kong_ai_proxy.vectors.store import (
    UNUSED,
    Match,
    MissingSpaceError,
    Space,
    Store,
    StoreError,
    unit,
)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_CONNECTIONS = 4
"""Of one configuration in one worker; more requests wait for one of them."""
IDLE_SECONDS = 60.0
"""How long an unused connection is kept: there may be many workers, and servers allow 100
connections unless told otherwise."""
LOCK_SECONDS = 60.0
"""The longest that somebody waits who wants to embed what another embeds already."""
HELD_SECONDS = 300
"""After which the server ends who holds the lock and does nothing: its machine may be gone."""
TOUCH_SECONDS = 3600.0
"""How often it is noted that a space is used."""

_IS_MADE = "SELECT to_regclass('kong_ai_proxy_vectors') IS NOT NULL"
_MAKE = (
    # Creations at the same time fail, IF NOT EXISTS or not.
    "SELECT pg_advisory_xact_lock(hashtext('kong-ai-proxy'))",
    "CREATE EXTENSION IF NOT EXISTS vector",
    "CREATE TABLE IF NOT EXISTS kong_ai_proxy_vectors ("
    " space text NOT NULL, name text NOT NULL, embedding vector NOT NULL,"
    " used timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (space, name))",
)
_PUT = (
    "INSERT INTO kong_ai_proxy_vectors (space, name, embedding)"
    " VALUES ($1, $2, $3::real[]::vector)"
    " ON CONFLICT (space, name) DO UPDATE SET embedding = excluded.embedding, used = now()"
)
_HAS = "SELECT EXISTS (SELECT FROM kong_ai_proxy_vectors WHERE space = $1)"
_TOUCH = "UPDATE kong_ai_proxy_vectors SET used = now() WHERE space = $1"
_REMOVE = "DELETE FROM kong_ai_proxy_vectors WHERE used < now() - $1::interval"
# <=> is 1 - cosine; <-> is the distance, of which half is wanted: see the description of `store`.
_NEAREST = {
    "cosine": (
        "SELECT name, embedding <=> $2::real[]::vector AS distance"
        " FROM kong_ai_proxy_vectors WHERE space = $1 ORDER BY distance, name LIMIT $3"
    ),
    "euclidean": (
        "SELECT name, (embedding <-> $2::real[]::vector) / 2 AS distance"
        " FROM kong_ai_proxy_vectors WHERE space = $1 ORDER BY distance, name LIMIT $3"
    ),
}

Connection = Any  # asyncpg has no types
Pool = Any


class PgvectorStore(Store):
    """See Store."""

    def __init__(self, config: Vectordb, *, ca_file: str | None = None) -> None:
        self._config: Pgvector = config.pgvector
        self._ca_file = ca_file
        self._seconds = max(self._config.timeout, 1.0) / 1000
        self._pool: Pool = None
        self._tls: ssl.SSLContext | None = None
        self._opening = asyncio.Lock()
        self._touched: dict[str, float] = {}

    @override
    async def has(self, space: Space) -> bool:
        """See Store. They are put at once, so that one of them tells of all."""
        try:
            found = bool(await self._run(lambda one: one.fetchval(_HAS, space.name)))
        except _MissingTableError:
            return False
        if found:
            await self._touch(space)
        return found

    @override
    @contextlib.asynccontextmanager
    async def locked(self, space: Space) -> AsyncIterator[None]:
        """See Store. The lock is a transaction's, so that it is also right behind a pooler; it has
        a connection of its own, so that those who wait for it leave the pool to who has it."""
        try:
            connection = await self._connect()
            await self._lock(connection, space)
        except FAILURES as error:
            raise explained(error, self._config) from None
        try:
            yield
        finally:
            with contextlib.suppress(*FAILURES):  # its end is the lock's
                await connection.close(timeout=self._seconds)

    async def _lock(self, connection: Connection, space: Space) -> None:
        key = int.from_bytes(hashlib.sha256(space.name.encode()).digest()[:8], signed=True)
        try:
            await connection.execute("BEGIN")
            await connection.execute(
                f"SET LOCAL idle_in_transaction_session_timeout = '{HELD_SECONDS}s'"
            )
            await connection.fetchval("SELECT pg_advisory_xact_lock($1)", key, timeout=LOCK_SECONDS)
        except TimeoutError:
            connection.terminate()
            raise StoreError(
                f"another worker has been embedding for {LOCK_SECONDS:.0f} s; "
                "is the embedding model that slow?"
            ) from None
        except BaseException:
            connection.terminate()
            raise

    @override
    async def put(self, space: Space, vectors: Mapping[str, Sequence[float]]) -> None:
        """See Store. Makes the extension and the table where they are missing, and removes what
        nobody has used for long."""
        rows = [(space.name, name, unit(space, vector)) for name, vector in vectors.items()]

        async def work(connection: Connection) -> None:
            if not await connection.fetchval(_IS_MADE):
                async with connection.transaction():
                    for statement in _MAKE:
                        await connection.execute(statement)
            async with connection.transaction():
                await connection.executemany(_PUT, rows)
                await connection.execute(_REMOVE, timedelta(seconds=UNUSED))

        await self._run(work)
        self._touched[space.name] = time.monotonic()

    @override
    async def nearest(self, space: Space, vector: Sequence[float], most: int) -> list[Match]:
        """See Store."""
        query, sought = _NEAREST[space.metric], unit(space, vector)
        rows = await self._run(lambda one: one.fetch(query, space.name, sought, most))
        if not rows:
            raise MissingSpaceError("the vectors are not in the database any more")
        await self._touch(space)
        return [Match(row["name"], row["distance"]) for row in rows]

    @override
    async def close(self) -> None:
        """See Store."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(self._seconds):
                await pool.close()
        except FAILURES:
            pool.terminate()

    async def _touch(self, space: Space) -> None:
        """Note that a space is used, now and then. Who may only read does without."""
        now = time.monotonic()
        if now - self._touched.get(space.name, -TOUCH_SECONDS) < TOUCH_SECONDS:
            return
        self._touched[space.name] = now
        try:
            await self._run(lambda one: one.execute(_TOUCH, space.name))
        except StoreError as error:
            _log.warning("it could not be noted that vectors are used: %s", error)

    # ---- connections

    async def _run(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Do something that may be repeated: kept connections do not live longer than the
        server. Raises StoreError."""
        try:
            try:
                return await self._run_once(work)
            except FAILURES as error:
                if self._pool is None or not is_lost(error):
                    raise
                await self._pool.expire_connections()
                return await self._run_once(work)
        except exceptions.UndefinedTableError:
            raise _MissingTableError("the vectors are not in the database") from None
        except FAILURES as error:
            raise explained(error, self._config) from None

    async def _run_once(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        pool = await self._opened()
        async with pool.acquire(timeout=self._seconds) as connection:
            return await work(connection)

    async def _opened(self) -> Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    connect=self._connect_for_pool,
                    reset=_leave,
                    min_size=0,
                    max_size=MAX_CONNECTIONS,
                    max_inactive_connection_lifetime=IDLE_SECONDS,
                )
            return self._pool

    async def _connect_for_pool(self, _dsn: None, **options: Any) -> Connection:
        return await self._connect(**options)

    async def _connect(self, **options: Any) -> Connection:
        own = self._config
        if not own.ssl:
            return await self._connect_with(False, options)
        try:
            self._tls = self._tls or self._context()
            return await self._connect_with(self._tls, options)
        except ConnectionError as error:
            if own.ssl_required or not is_without_tls(error):
                raise
        _log.warning(
            "PostgreSQL at %s:%d has no TLS: the connection is not encrypted "
            "(%s.ssl_required is false)",
            own.host,
            own.port,
            FIELDS,
        )
        return await self._connect_with(False, options)

    async def _connect_with(self, tls: ssl.SSLContext | bool, options: dict[str, Any]) -> Any:
        """All is said here, for what is not asyncpg takes from the environment (PGPASSWORD)."""
        own = self._config
        return await asyncpg.connect(
            host=own.host,
            port=own.port,
            user=own.user,
            password=own.password or "",
            database=own.database,
            ssl=tls,
            timeout=self._seconds,
            command_timeout=self._seconds,
            server_settings={"application_name": "kong-ai-proxy"},
            **options,
        )

    def _context(self) -> ssl.SSLContext:
        """`ssl_version` is the least that is taken. Raises StoreError for a file that cannot be
        loaded."""
        own = self._config
        context = trust.context(self._ca_file)
        if own.ssl_version == "tlsv1_3":
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        if not own.ssl_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if own.ssl_cert:
            try:
                context.load_cert_chain(own.ssl_cert, own.ssl_cert_key)
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise StoreError(f"{FIELDS}.ssl_cert, ssl_cert_key: {reason}") from None
        return context


async def _leave(_connection: Connection) -> None:
    """Nothing: what is done here changes no session, and a reset is another query."""


class _MissingTableError(MissingSpaceError):
    """Nothing has ever been put."""
