"""A lock in Redis that dies with its holder.

A key with a random value and a time to live, as https://redis.io/docs/latest/commands/set/
describes; its holder prolongs it. What it guards may be done twice without harm, so that it need
not survive a failover.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from kong_ai_proxy.vectors.redis_connection import Server
from kong_ai_proxy.vectors.store import StoreError

LEASE = 6.0
"""Seconds after which a lock is free whose holder died."""
PATIENCE = 120.0
"""Seconds that the lock is waited for."""
_POLL = 0.1

_IF_OURS = "if redis.call('get',KEYS[1])==ARGV[1] then return %s end return 0"
_PROLONG = _IF_OURS % "redis.call('pexpire',KEYS[1],ARGV[2])"
_RELEASE = _IF_OURS % "redis.call('del',KEYS[1])"


@asynccontextmanager
async def held(
    server: Server, key: str, lease: float = LEASE, patience: float = PATIENCE
) -> AsyncIterator[None]:
    """Hold the lock. Raises StoreError."""
    token = secrets.token_hex(16)
    milliseconds = round(lease * 1000)
    try:
        await _acquire(server, key, token, milliseconds, patience)
    except asyncio.CancelledError:  # perhaps just when it was got
        await _release(server, key, token)
        raise
    holding = asyncio.create_task(_prolong(server, key, token, milliseconds))
    try:
        yield
    finally:
        holding.cancel()
        await _release(server, key, token)


async def _release(server: Server, key: str, token: str) -> None:
    with suppress(StoreError):  # its lease ends all the same
        await server.command("EVAL", _RELEASE, 1, key, token)


async def _acquire(server: Server, key: str, token: str, lease: int, patience: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while not await server.command("SET", key, token, "NX", "PX", lease):
        if loop.time() > end:
            raise StoreError(
                f"another worker has held {key} for {patience:.0f} s; "
                "is its embedding model that slow?"
            )
        await asyncio.sleep(_POLL * (1.0 + random.random()))  # noqa: S311 - no secret


async def _prolong(server: Server, key: str, token: str, lease: int) -> None:
    while True:
        await asyncio.sleep(lease / 3000)
        with suppress(StoreError):  # the next time may do
            await server.command("EVAL", _PROLONG, 1, key, token, lease)
