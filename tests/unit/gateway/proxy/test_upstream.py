"""Names and kept connections."""

from __future__ import annotations

import asyncio

import pytest

from kong_ai_proxy.gateway.upstream import Address, NameResolutionFailed, Pool, Resolver, is_ip
from tests.unit.gateway.proxy.support import Upstream, service, stand_in, until


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]"])
async def test_an_address_needs_no_resolution(host: str) -> None:
    assert is_ip(host)
    assert await Resolver().resolve(host) == [host.strip("[]")]


@pytest.mark.parametrize("host", ["ai.invalid", "AI.INVALID.", "invalid", "", "a..b", "x" * 300])
async def test_a_name_that_never_resolves(host: str) -> None:
    assert not is_ip(host)
    with pytest.raises(NameResolutionFailed):
        await Resolver().resolve(host)


async def test_ipv4_comes_first() -> None:
    assert (await Resolver().resolve("localhost"))[0] == "127.0.0.1"


async def test_a_kept_connection_that_the_upstream_closed_is_not_used() -> None:
    async with Upstream().running() as upstream, stand_in(service(upstream.port)) as kong:
        assert (await kong.ask("GET /r")).status == 200
        for task in upstream._tasks:
            task.cancel()
        pool: Pool = kong.gateway._proxy._pool
        (idle,) = pool._idle.values()
        await until(lambda: not idle[0][0].usable)
        assert (await kong.ask("POST /r")).status == 200
    assert upstream.connections == 2


async def test_a_pool_closes_what_it_holds() -> None:
    async with Upstream().running() as upstream:
        pool = Pool()
        address = Address("127.0.0.1", upstream.port, tls=False)
        stream = await pool.connect(address, 5.0)
        pool.give_back(address, stream)
        pool.close()
        await asyncio.sleep(0)
        assert pool.take(address) is None
