"""A relay in this process, without Kong: requests bring tickets that are issued here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from yarl import URL

from kong_ai_proxy import config
from kong_ai_proxy.balancer.states import Table
from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.relay.once import ClaimError
from kong_ai_proxy.relay.server import Relay
from kong_ai_proxy.relay.settings import RelaySettings
from kong_ai_proxy.relay.ticket import HEADER, Claims, Issuer, Verifier

DIGEST = b"d" * 32
MARKER = "0123456789abcdef" * 2


class _Once:
    """Numbers of one process."""

    def __init__(self) -> None:
        self._next = itertools.count()
        self._used: set[int] = set()

    def take(self) -> int:
        return next(self._next)

    def claim(self, number: int) -> None:
        if number in self._used:
            raise ClaimError("been used")
        self._used.add(number)


class RunningRelay:
    """A relay with one configuration."""

    def __init__(self, plan: Plan, settings: RelaySettings, table: Table | None = None) -> None:
        self._plan: Plan | None = plan
        once = _Once()
        secret = os.urandom(32)
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        self._sock.listen()
        self.port: int = self._sock.getsockname()[1]
        self.issuer = Issuer(secret, once, self.port)
        verifier = Verifier(secret, once)
        self.relay = Relay(self._find_plan, verifier, settings, table or Table.private())

    async def _find_plan(self, instance: int, digest: bytes) -> Plan | None:
        return self._plan if (instance, digest) == (1, DIGEST) else None

    async def start(self) -> None:
        """Raises OSError for a CA file that cannot be loaded."""
        try:
            await self.relay.start(self._sock)
        except OSError:
            self._sock.close()
            raise

    def forget(self) -> None:
        """Know the configuration no more."""
        self._plan = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ticket(self, method: str, target: str, **claims: Any) -> str:
        """A ticket for one request."""
        return self.issuer.issue(Claims(1, DIGEST, **claims), method, target)

    def headers(
        self, method: str, target: str, *, marker: bool = False, **claims: Any
    ) -> dict[str, str]:
        """What Kong adds to a request for the relay; with `marker` what the shim adds too."""
        headers = {HEADER: self.ticket(method, target, **claims)}
        return {**headers, "x-kong-ai-proxy-marker": MARKER} if marker else headers

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        target: str,
        *,
        marker: bool = False,
        claims: dict[str, Any] | None = None,
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request with a ticket, as Kong would send it."""
        headers = self.headers(method, target, marker=marker, **(claims or {}))
        headers.update(options.pop("headers", {}))
        url = URL(self.url + target, encoded=True)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(method, url, headers=headers, **options) as response,
        ):
            yield response

    async def settled(self, seconds: float = 5.0) -> None:
        """Wait until no request is under way and no connection to a provider is in use."""
        async with asyncio.timeout(seconds):
            while self.relay.requests or self._connector._acquired:
                await asyncio.sleep(0.005)

    @property
    def idle(self) -> int:
        """Connections to providers that are kept for the next request."""
        return sum(map(len, self._connector._conns.values()))

    @property
    def _connector(self) -> aiohttp.BaseConnector:
        connector = self.relay._upstream._session.connector
        assert connector is not None
        return connector


@contextlib.asynccontextmanager
async def running(
    configuration: dict[str, Any],
    plugin: str = "ai-proxy",
    settings: RelaySettings | None = None,
    table: Table | None = None,
) -> AsyncIterator[RunningRelay]:
    """A relay with this configuration of a plugin."""
    plan = Plan(config.parse(plugin, configuration), "plugin-1")
    plan.check_available()
    relay = RunningRelay(plan, settings or RelaySettings(), table)
    await relay.start()
    try:
        yield relay
        await relay.settled()
    finally:
        relay.relay.stop()
        await relay.relay.close()
