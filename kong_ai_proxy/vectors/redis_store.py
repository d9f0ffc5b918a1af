"""Vectors in Redis or Valkey: searched by the server where it can (a search module), else read once
and compared here.

Both ways keep the same hashes, so a server that gets the module later needs nothing put again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import chain
from typing import Any, NamedTuple

import orjson

from kong_ai_proxy.auth.tokens import Tokens
from kong_ai_proxy.config.vectors import Vectordb
from kong_ai_proxy.vectors.distance import Table, packed
from kong_ai_proxy.vectors.redis_connection import Server
from kong_ai_proxy.vectors.redis_keys import lock_key, space_key, vector_key
from kong_ai_proxy.vectors.redis_lock import held
from kong_ai_proxy.vectors.redis_search import Search, is_there
from kong_ai_proxy.vectors.store import UNUSED, Match, MissingSpaceError, Space, StoreError

CHECK = 5.0
"""Seconds after which it is looked whether what was read is still there, and the same."""
TOUCH = 3600.0
"""Seconds after which the times to live are prolonged."""

_NAME = re.compile(r"[0-9a-f]+")

_log = logging.getLogger(__name__)


class _Kept(NamedTuple):
    """What a space's own hash says."""

    names: tuple[str, ...]
    digest: bytes


class _Known:
    """What this worker knows of a space."""

    __slots__ = ("checked", "checking", "kept", "table", "touched")

    def __init__(self, kept: _Kept, now: float) -> None:
        self.kept = kept
        self.table: Table | None = None
        self.checked = now
        self.touched = now
        self.checking: asyncio.Task[None] | None = None


class RedisStore:
    """`store.Store` over Redis."""

    def __init__(
        self, config: Vectordb, *, tokens: Tokens | None = None, ca_file: str | None = None
    ) -> None:
        """Connects to nothing yet. Raises StoreError for a configuration that cannot be
        followed."""
        self._redis = config.redis
        self._server = Server(config.redis, tokens, ca_file)
        self._search: Search | None = None
        self._is_asked = False
        self._loading = asyncio.Lock()
        self._known: dict[Space, _Known] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def has(self, space: Space) -> bool:
        """As `Store.has`."""
        _check_name(space)
        kept = await self._read_kept(space)
        if kept is None:
            self._known.pop(space, None)
            return False
        search = await self._module(space)
        if search is not None and not await search.ensure(space):
            return False  # the module reads what is there in its own time; what is put, at once
        await self._touch(space, kept)
        return True

    def locked(self, space: Space) -> AbstractAsyncContextManager[None]:
        """As `Store.locked`."""
        _check_name(space)
        return held(self._server, lock_key(space))

    async def put(self, space: Space, vectors: Mapping[str, Sequence[float]]) -> None:
        """As `Store.put`."""
        _check_name(space)
        data = {name: packed(space, vector) for name, vector in vectors.items()}
        search = await self._module(space)
        if search is not None:
            await search.ensure(space)
        kept = _Kept(tuple(data), hashlib.sha256(b"".join(data.values())).hexdigest().encode())
        own = space_key(space)
        # The space's own hash goes first and comes last: it is there only when all else is.
        await self._server.commands(
            [
                ("DEL", own),
                *chain.from_iterable(_vector(space, name, data[name]) for name in data),
                ("HSET", own, *_described(space, kept)),
                ("EXPIRE", own, UNUSED),
            ]
        )
        self._known[space] = _Known(kept, _now())

    async def nearest(self, space: Space, vector: Sequence[float], most: int) -> list[Match]:
        """As `Store.nearest`."""
        known = self._known.get(space)
        if known is None or known.table is None:
            search = await self._module(space)
            known = known or await self._learned(space)
            if search is not None:
                return await self._searched(search, space, known, vector, most)
            async with self._loading:  # once for all that wait
                if known.table is None:
                    known.table = await self._loaded(space, known.kept)
        self._check_later(space, known)
        return known.table.nearest(space, vector, most)

    async def close(self) -> None:
        """As `Store.close`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.close()

    async def _module(self, space: Space) -> Search | None:
        """The server's search module, None where it has none. A proxy is not asked: some end a
        connection over a command that they do not know. Nor is one for another database: indexes
        are of database 0."""
        redis = self._redis
        if not self._is_asked:
            skipped = redis.connection_is_proxied or (redis.database and not redis.cluster_nodes)
            is_found = not skipped and await is_there(self._server, space)
            self._search = Search(self._server) if is_found else None
            self._is_asked = True
        return self._search

    async def _searched(
        self,
        search: Search,
        space: Space,
        known: _Known,
        vector: Sequence[float],
        most: int,
    ) -> list[Match]:
        limit = min(most, len(known.kept.names))
        try:
            found = await search.nearest(space, packed(space, vector), limit)
            if len(found) < limit:  # it reads in its own time what was there before its index
                table = await self._loaded(space, known.kept)
                found = table.nearest(space, vector, limit)
        except StoreError:
            self._forget(space)
            self._is_asked = False  # perhaps it is another server now
            raise
        self._check_later(space, known)
        order = {name: place for place, name in enumerate(known.kept.names)}
        found.sort(key=lambda match: (match.distance, order.get(match.name, 0)))
        return found

    async def _learned(self, space: Space) -> _Known:
        _check_name(space)
        async with self._loading:  # once for all that wait
            known = self._known.get(space)
            if known is not None:
                return known
            kept = await self._read_kept(space)
            if kept is None:
                raise _missing(space)
            await self._touch(space, kept)
            return self._known[space]

    async def _read_kept(self, space: Space) -> _Kept | None:
        reply = await self._server.command("HMGET", space_key(space), "names", "digest")
        if None in reply:
            return None
        try:
            return _Kept(tuple(orjson.loads(reply[0])), reply[1])
        except (ValueError, TypeError):
            raise StoreError(
                f"{space_key(space)} in Redis is not of this program: delete it"
            ) from None

    async def _loaded(self, space: Space, kept: _Kept) -> Table:
        """All vectors: from a replica, or where that lags behind from the master."""
        for from_replica in (True, False):
            vectors = await self._server.commands(
                [("HGET", vector_key(space, name), "vector") for name in kept.names], from_replica
            )
            if None in vectors:
                continue
            try:
                return Table(space, dict(zip(kept.names, vectors, strict=True)))
            except ValueError:
                continue
        self._forget(space)
        raise _missing(space)

    async def _touch(self, space: Space, kept: _Kept) -> None:
        """Count as a use."""
        keys = [space_key(space), *(vector_key(space, name) for name in kept.names)]
        await self._server.commands([("EXPIRE", key, UNUSED) for key in keys])
        known = self._known.get(space)
        if known is None or known.kept != kept:
            self._known[space] = _Known(kept, _now())
        else:
            known.touched = _now()

    def _check_later(self, space: Space, known: _Known) -> None:
        """Look now and then, beside the requests, whether the space is still there and the same.

        Where Redis does not answer, what is known goes on being used.
        """
        now = _now()
        if now - known.checked < CHECK or known.checking is not None:
            return
        known.checked = now
        known.checking = asyncio.create_task(self._check(space, known))
        self._tasks.add(known.checking)
        known.checking.add_done_callback(self._tasks.discard)

    async def _check(self, space: Space, known: _Known) -> None:
        try:
            kept = await self._read_kept(space)
            if kept != known.kept:
                self._forget(space)
            elif _now() - known.touched >= TOUCH:
                await self._touch(space, known.kept)
        except StoreError as error:
            _log.warning("vectors that are known already go on being used: %s", error)
        finally:
            known.checking = None

    def _forget(self, space: Space) -> None:
        self._known.pop(space, None)


def _vector(space: Space, name: str, data: bytes) -> list[tuple[Any, ...]]:
    key = vector_key(space, name)
    return [("HSET", key, "space", space.name, "vector", data), ("EXPIRE", key, UNUSED)]


def _described(space: Space, kept: _Kept) -> tuple[Any, ...]:
    names = orjson.dumps(kept.names)
    said = ("metric", space.metric, "dimensions", space.dimensions)
    return ("names", names, "digest", kept.digest, *said)


def _check_name(space: Space) -> None:
    """Names become parts of queries. Raise ValueError."""
    if not _NAME.fullmatch(space.name):
        raise ValueError("the name of a space is a number of hexadecimal digits")


def _missing(space: Space) -> MissingSpaceError:
    return MissingSpaceError(f"the vectors of {space_key(space)} are not in Redis")


def _now() -> float:
    return asyncio.get_running_loop().time()
