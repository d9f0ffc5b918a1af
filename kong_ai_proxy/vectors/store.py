"""Where vectors are kept: what Redis and PostgreSQL have in common here.

A space holds the vectors of one configuration's targets; its name is a digest of what they are
vectors of, so what a space holds never changes. Whoever needs a space asks whether it is there
(`has`), and where it is not embeds what it is of and puts it, all vectors at once, while it holds
the lock (`locked`).

Distances are the same in every store. Vectors are brought to length 1 first (a model that gives
longer ones means nothing by it), so that

- cosine: 1 - cosine of the angle, 0 (same direction) to 2 (opposite);
- euclidean: half the distance of the two points, 0 (same) to 1 (opposite), since a threshold is
  from 0 to 1 whatever the metric. Redis itself gives the squared distance (RediSearch's L2),
  pgvector's `<->` the distance.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, NamedTuple, Protocol

from kong_ai_proxy.auth.tokens import Tokens
from kong_ai_proxy.config.vectors import Vectordb

Metric = Literal["cosine", "euclidean"]

UNUSED = 7 * 24 * 3600
"""Seconds after its last use from which a space may be removed."""


class StoreError(Exception):
    """A store cannot do what is asked: what failed, and what to do. Its text has no secret."""


class MissingSpaceError(StoreError):
    """The space is not there, or no more: it has to be put, perhaps again."""


class Space(NamedTuple):
    """Which vectors."""

    name: str
    """Digest, in hexadecimal digits, of what they are vectors of: of the texts and their names, of
    the model with all that changes its vectors, and of `dimensions` and `metric`."""
    dimensions: int
    metric: Metric


class Match(NamedTuple):
    """A vector that is near."""

    name: str
    """The name it was put under."""
    distance: float
    """As this module's description says."""


class Store(Protocol):
    """A database of vectors. Belongs to one event loop.

    Every method but `close` may raise StoreError; none but `locked` waits for longer than a few of
    the configured timeouts. Nothing is connected before the first use, and after a failure the next
    use tries again.
    """

    async def has(self, space: Space) -> bool:
        """Whether all vectors of the space are there. Counts as a use of it."""

    def locked(self, space: Space) -> AbstractAsyncContextManager[None]:
        """One at a time, over all workers and nodes: `async with store.locked(space)`. Waits for
        who holds it; who dies while holding it loses it within seconds."""

    async def put(self, space: Space, vectors: Mapping[str, Sequence[float]]) -> None:
        """Keep all vectors of the space, by name. May be repeated."""

    async def nearest(self, space: Space, vector: Sequence[float], most: int) -> list[Match]:
        """At most `most` vectors of the space, the nearest first. Counts as a use of the space.
        Raises MissingSpaceError."""

    async def close(self) -> None:
        """End all connections. Raises nothing."""


def unit(space: Space, vector: Sequence[float]) -> list[float]:
    """The vector brought to length 1. Raises StoreError for one that does not fit the space."""
    check_length(space, len(vector))
    length = math.hypot(*vector)
    check_size(length)
    return [number / length for number in vector]


def check_length(space: Space, numbers: int) -> None:
    """Raise StoreError for a vector of another length than the space's."""
    if numbers != space.dimensions:
        raise StoreError(
            f"config.vectordb.dimensions: {space.dimensions}, but the embedding model gave a vector"
            f" of {numbers} numbers; set it to what the model gives"
        )


def check_size(length: float) -> None:
    """Raise StoreError for a vector that has no direction."""
    if not 0.0 < length < math.inf:  # NaN too
        raise StoreError(
            "the embedding model gave a vector without a direction "
            "(all zeros, or numbers that are not finite)"
        )


async def load(config: Vectordb) -> None:
    """Have the libraries imported that `open_store` needs, in a thread of their own: it takes as
    long as hundreds of requests do."""
    _one_thread_of_blas()
    module = "pgvector_store" if config.strategy == "pgvector" else "redis_store"
    with contextlib.suppress(ModuleNotFoundError):  # which open_store tells of
        await asyncio.to_thread(importlib.import_module, f"kong_ai_proxy.vectors.{module}")


def open_store(
    config: Vectordb, *, tokens: Tokens | None = None, ca_file: str | None = None
) -> Store:
    """The store of a configuration; connects at its first use.

    `tokens` gets credentials for `cloud_authentication`; it stays the caller's to close. `ca_file`
    has certificates that are trusted beside the system's. Raises StoreError where the libraries
    are missing, or the configuration cannot be followed.
    """
    if config.strategy == "pgvector":
        return _postgres(config, ca_file)
    return _redis(config, tokens, ca_file)


def _postgres(config: Vectordb, ca_file: str | None) -> Store:
    try:
        from kong_ai_proxy.vectors.pgvector_store import PgvectorStore
    except ModuleNotFoundError as error:
        raise _missing("pgvector", error) from None
    return PgvectorStore(config, ca_file=ca_file)


def _redis(config: Vectordb, tokens: Tokens | None, ca_file: str | None) -> Store:
    _one_thread_of_blas()
    try:
        from kong_ai_proxy.vectors.redis_store import RedisStore
    except ModuleNotFoundError as error:
        raise _missing("redis", error) from None
    return RedisStore(config, tokens=tokens, ca_file=ca_file)


def _one_thread_of_blas() -> None:
    """Read when NumPy is loaded: a matrix of a few targets is no work for every core."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _missing(strategy: str, error: ModuleNotFoundError) -> StoreError:
    library = (error.name or "").partition(".")[0]
    return StoreError(
        f"config.vectordb.strategy {strategy} needs {library}: "
        f"pip install 'kong-ai-proxy[{strategy}]'"
    )
