"""Nodes share through Redis what they know of targets: usage, and the failures that open a
breaker.

The supervisor does it, several times a second; no request waits for it. What each target has is a
hash, `kong-ai-proxy:target:<16 hexadecimal digits>`, that lives for a day after its last use:

    requests, prompt, completion, cost    what all nodes used
    fails, failed_at                      failures that count, when the last one was (Unix time)

While Redis does not answer each node goes on by itself, with what it knows of the others, and tells
what is new when Redis is back; if Redis is empty then, all nodes begin anew alike. What was being
told at the moment when the connection broke is told again, so it may count twice.

A new generation (`kong reload`) begins with what is in Redis; what is in memory only (latencies,
requests under way, rests, and without Redis all the rest too) begins anew with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import time
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from kong_ai_proxy.balancer.memory import Memory
from kong_ai_proxy.balancer.nodes import News, Told, Total, news, take

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

EXCHANGE_SECONDS: Final = 0.25
PREFIX: Final = "kong-ai-proxy:target:"
LIFE_SECONDS: Final = 24 * 3600

_ANSWER_SECONDS = 2.0
_CLOSE_SECONDS = 1.0
_MAX_PAUSE = 5.0  # between two attempts to reach Redis
_SHARE = 4  # of the time at most a quarter is spent on it
_KEPT_SECONDS = 3600.0  # how often targets in use have their life prolonged
_BATCH = 500  # targets in one pipeline
_FIELDS = (*Told._fields, "fails", "failed_at")

_log = logging.getLogger("kong_ai_proxy.pluginserver.sharing")


def redis_url(text: str) -> str:
    """A Redis server's URL. Raises ValueError, whose text has none of the URL: it may have a
    password in it."""
    form = "expected redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS"
    try:
        parts = urllib.parse.urlsplit(text.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{form}: host or port cannot be read") from None
    if "://" not in text:
        raise ValueError(f"{form}: redis:// is missing")
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError(f"{form}: another scheme")
    url = parts.geturl()
    if not host:
        raise ValueError(f"{form}: no host")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{form}: characters that need a percent")
    database = parts.path.removeprefix("/")
    if parts.query or parts.fragment or not (database.isdecimal() or not database):
        raise ValueError(f"{form}: something else than a database's number follows the host")
    if importlib.util.find_spec("redis") is None:
        raise ValueError("the package redis is missing: pip install 'kong-ai-proxy[redis]'")
    return url


class Sharing:
    """Exchanges the states of one node with the others, from `start` to `close`."""

    def __init__(self, memory: Memory, url: str, ca_file: str | None = None) -> None:
        """`url` as `redis_url` returned it; `ca_file` holds certificates that are trusted beside
        the system's."""
        self._memory = memory
        self._url = url
        self._ca_file = ca_file
        self._redis: Redis | None = None
        parts = urllib.parse.urlsplit(url)
        self._place = f"{parts.hostname}:{parts.port or 6379}"
        self._answers: bool | None = None
        self._failures = 0
        self._kept_at = 0.0
        self._closing = asyncio.Event()
        self.exchanges = 0
        """How many went well."""

    def start(self) -> None:
        """Begin. What goes wrong is logged, never raised."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Tell what is left, if Redis answers within a second, and end."""
        self._closing.set()
        await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._redis is not None:
            with contextlib.suppress(Exception):
                await self._redis.aclose()

    async def _run(self) -> None:
        while not self._closing.is_set():
            began = time.monotonic()
            await self._attempt()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause(time.monotonic() - began)):
                    await self._closing.wait()
        if self._answers:
            await self._attempt()

    def _pause(self, took: float) -> float:
        if self._failures:
            return float(min(_MAX_PAUSE, EXCHANGE_SECONDS * 2 ** min(self._failures, 10)))
        return max(EXCHANGE_SECONDS, (_SHARE - 1) * took)

    async def _attempt(self) -> None:
        try:
            if self._redis is None:  # its import takes longer than workers should wait for
                self._redis = await asyncio.to_thread(_client, self._url, self._ca_file)
            await self._exchange(self._redis)
        except Exception as error:  # whatever it is, requests go on
            self._failures += 1
            if self._answers is not False:
                _log.warning(
                    "no exchange with other nodes through Redis at %s, so this node goes on by "
                    "itself: %s",
                    self._place,
                    _explained(error),
                )
            self._answers = False
            return
        if not self._answers:
            _log.info("sharing the state of targets through Redis at %s", self._place)
        self._answers = True
        self._failures = 0
        self.exchanges += 1

    async def _exchange(self, redis: Redis) -> None:
        seconds, microseconds = await redis.time()
        clock = seconds + microseconds / 1e6 - time.monotonic()  # Redis's, so that nodes agree
        keeps = time.monotonic() >= self._kept_at
        every = news(self._memory)
        for start in range(0, len(every), _BATCH):
            pipeline = redis.pipeline(transaction=False)
            await self._tell(pipeline, every[start : start + _BATCH], clock, keeps)
        if keeps:
            self._kept_at = time.monotonic() + _KEPT_SECONDS

    async def _tell(
        self, pipeline: Pipeline, batch: Sequence[News], clock: float, keeps: bool
    ) -> None:
        """Add what is new to what is in Redis, and take over what is there then."""
        ends = []
        for each in batch:
            _add(pipeline, each, clock)
            if keeps or not each.is_empty:
                pipeline.expire(_name(each), LIFE_SECONDS)
            pipeline.hmget(_name(each), _FIELDS)
            ends.append(len(pipeline))
        replies = await pipeline.execute(raise_on_error=False)
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        for each, begin, end in zip(batch, [0, *ends], ends, strict=False):
            # A target's commands fail together: Redis is full, or something else has its name.
            if not any(isinstance(reply, Exception) for reply in replies[begin:end]):
                take(self._memory, each, _total(replies[end - 1], clock))
        if errors:
            raise errors[0]


def _name(each: News) -> str:
    return PREFIX + each.name


def _add(pipeline: Pipeline, each: News, clock: float) -> None:
    name = _name(each)
    for field, amount in zip(Told._fields, each.usage, strict=True):
        if amount:
            pipeline.hincrbyfloat(name, field, amount)
    if each.is_reset:
        pipeline.hset(name, "fails", each.fails)
    elif each.fails:
        pipeline.hincrby(name, "fails", each.fails)
    if each.fails:
        pipeline.hset(name, "failed_at", each.last_failure + clock)


def _total(values: Sequence[bytes | None], clock: float) -> Total:
    *usage, fails, failed_at = (float(value or 0) for value in values)
    return Total(Told(*usage), int(fails), min(failed_at - clock, time.monotonic()))


def _client(url: str, ca_file: str | None) -> Redis:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {}
    if url.startswith("rediss:"):
        options = {"ssl_ca_certs": ca_file, "ssl_check_hostname": True}
    return Redis.from_url(
        url,
        protocol=2,  # which every server knows
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),  # what is told twice counts twice
        **options,
    )


def _explained(error: Exception) -> str:
    """Without what may be a secret: of an unknown error only what kind it is."""
    from redis.exceptions import RedisError

    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, RedisError | OSError) else kind
